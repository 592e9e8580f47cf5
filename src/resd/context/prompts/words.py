"""A user's own words for the prompts, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from resd.context.prompts.base import Role, SectionName
from resd.records import ResdError

# The parts of a style that can be replaced, and their keys.
PARTS: Mapping[str, tuple[str, ...]] = {
    "instructions": get_args(Role),
    "closing": get_args(Role),
    "titles": get_args(SectionName),
}

Words = Mapping[str, Mapping[str, str]]


def read_words(path: str | Path) -> Words:
    """Texts by part and by role or section. Raises ResdError, in one sentence, for a file that does not fit.

    Newlines around a text do not count: YAML's blocks end with one.
    """
    where = f"context.prompts {path}"
    try:
        data = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ResdError(f"{where}: cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ResdError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error
    parts = _mapping(data, where, tuple(PARTS))
    return {part: _texts(parts[part], f"{where}: {part}", PARTS[part]) for part in parts}


def _texts(data: Any, where: str, known: Sequence[str]) -> Mapping[str, str]:
    texts = _mapping(data, where, known)
    for key, text in texts.items():
        if not isinstance(text, str):
            raise ResdError(f"{where}.{key}: is not text; quote it, or leave the key out to keep the style's")
    return {key: text.strip("\n") for key, text in texts.items()}


def _mapping(data: Any, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ResdError(f"{where}: is not a mapping; give it keys among {', '.join(known)}")
    for key in data:
        if key not in known:
            raise ResdError(f"{where}: {key!r} is not a known key; known: {', '.join(known)}")
    return data
