"""What is counted in a text: words, sentences, capitals, and which language it is in.

A word is a run of letters, digits and underscores, as published. The published sentence splitter is a trained
model that must be downloaded; here a sentence ends with `.`, `!`, `?` or an ellipsis before white space (or
with an Indic or Chinese full stop), whatever letter comes next. A line break alone ends none. These full
stops end none either: after a title or an initial, after another abbreviation unless a capital follows, and
after the number of a list item or one before a lower-case letter.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from resd.records import ResdError

_WORD = re.compile(r"\w+")
# The look-behind keeps the search linear: a run of stops is tried once, from its beginning.
_STOP = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019\xbb)\]}*_]*+(?=\s|\Z)|[\u3002\uff01\uff1f\u0964\u0965]+"
)
_LAST_TOKEN = re.compile(r"[\w.]+\Z")
_DOTTED = re.compile(r"(?:[^\W\d]\.)+[^\W\d]\Z")
_LIST_ITEM = re.compile(r"[ \t>*_]*(?:\d{1,3}|[A-Za-z])\Z")
_CAPITALS = re.compile(r"\w+(?:[-./'\u2019]\w+)*")
_TITLES = frozenset(["mr", "mrs", "ms", "dr", "prof", "st", "rev", "sen", "capt", "sgt", "messrs", "vs"])
_MONTHS = frozenset(["jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"])
_SHORTENED = _MONTHS.union(
    ["al", "approx", "ave", "blvd", "ca", "cf", "co", "corp", "dept", "est", "etc"],
    ["inc", "jr", "ltd", "no", "pp", "rd", "sr", "vol"],
)
_LONGEST_LOOK_BACK = 40
_LANGUAGE_SEED = 0


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def capital_words(text: str) -> list[str]:
    """Words without a lower-case letter; hyphens, dots, slashes and apostrophes within a word join it."""
    return [word for word in _CAPITALS.findall(text) if word.isupper()]


def sentences(text: str) -> list[str]:
    """The sentences of a text: see above for where one ends."""
    found, start = [], 0
    for stop in _STOP.finditer(text):
        if not _continues(text, stop):
            found.append(text[start : stop.end()])
            start = stop.end()
    return [piece.strip() for piece in [*found, text[start:]] if _WORD.search(piece)]


def language(text: str) -> str | None:
    """The language's ISO 639-1 code; None where the text has nothing to tell it by. Deterministic."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _detectors().create()
    detector.append(text)
    try:
        found: str = detector.detect()
    except LangDetectException:
        return None
    return found


@cache
def _detectors() -> Any:
    """Our own factory: the seed of langdetect's shared one is for the user to set."""
    try:
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    except ImportError as error:
        raise ResdError("ifeval: needs langdetect; pip install 'resd[tasks]'") from error
    factory = DetectorFactory()
    factory.set_seed(_LANGUAGE_SEED)
    factory.load_profile(PROFILES_DIRECTORY)
    return factory


def _continues(text: str, stop: re.Match[str]) -> bool:
    """Whether the sentence goes on after this full stop."""
    if not stop[0].startswith(".") or stop[0].startswith(".."):
        return False
    last = text[stop.start() - 1 : stop.start()]
    if not last.isalnum() and last != "_":  # neither a number nor an abbreviation
        return False
    before = text[max(0, stop.start() - _LONGEST_LOOK_BACK) : stop.start()]
    if _LIST_ITEM.fullmatch(before.rpartition("\n")[2]) and stop.end() < len(text):
        return True
    token = _LAST_TOKEN.search(before)
    return token is not None and _is_short_form(token[0], text[stop.end() : stop.end() + 3].lstrip())


def _is_short_form(token: str, following: str) -> bool:
    if token.lower() in _TITLES or (len(token) == 1 and token.isupper() and token != "I"):
        return bool(following)
    numbered = token.isdigit() and len(token) < 3
    known = numbered or token.lower() in _SHORTENED or _DOTTED.fullmatch(token) is not None
    return known and bool(following) and not following[0].isupper()
