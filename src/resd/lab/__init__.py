"""The lab model: a small calibration instrument that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path

from resd.records import ResdError


def weights_path() -> Path:
    """The folder of the shipped weights, for `from_pretrained`."""
    return Path(__file__).parent / "weights"


def check_prompts(folder: Path, fingerprint: str) -> None:
    """Refuse a lab model that was trained on another wording: it would fail silently.

    Folders without `lab.json` are not lab models and pass. Raises ResdError on a mismatch.
    """
    about = folder / "lab.json"
    if not about.exists():
        return
    trained_on = json.loads(about.read_text())["prompts"]
    if trained_on != fingerprint:
        raise ResdError(
            f"model {folder}: this lab model knows prompts {trained_on}, the run would send {fingerprint}; "
            "set context.style to compact and context.order to static_first, "
            "or rebuild it with `resd lab build`"
        )
