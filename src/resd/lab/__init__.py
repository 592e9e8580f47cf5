"""The lab model: a small calibration instrument that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path

from resd.records import ResdError


def weights_path() -> Path:
    """The folder of the shipped weights, for `from_pretrained`."""
    return Path(__file__).parent / "weights"


def check_prompts(folder: Path, fingerprint: str) -> None:
    """Reject a lab model that was trained on another wording: it would fail silently.

    Folders without `lab.json` are not lab models and pass. Raises ResdError on a mismatch, and for a
    `lab.json` without the prompts' fingerprint.
    """
    about = folder / "lab.json"
    if not about.exists():
        return
    trained_on = _prompts_in(about.read_text())
    if trained_on is None:
        raise ResdError(
            f'{about}: no "prompts" in it; restore the file or rebuild the model with `resd lab build`'
        )
    if trained_on != fingerprint:
        raise ResdError(
            f"model {folder}: this lab model knows prompts {trained_on}, the run would send {fingerprint}; "
            "set context.style to compact, context.order to static_first and context.prompts to null; "
            "if they are, rebuild it with `resd lab build`"
        )


def _prompts_in(text: str) -> str | None:
    try:
        return str(json.loads(text)["prompts"])
    except (ValueError, KeyError, TypeError):  # no JSON, no such key, no object
        return None
