"""Detecting degenerate text: a guard against the output of a model that has collapsed.

A role that is never trained can degrade while another one is trained. The grammar keeps its replies valid
JSON around texts such as `s0s0s1s0s0`, which in the playbook would condition every later prompt. The checks
look at form alone, in any script: text that is wrong but made of words passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from resd.context.entries import one_line

_WORD = re.compile(r"[^\W\d_]{2}")  # two letters in a row, of any script
# Letters and digits of scripts that put spaces between words; twice the length of the longest English words.
_ENDLESS = re.compile(r"[A-Za-z0-9]{61}")
# Two to eight characters, not all equal (a tape may well be RRRRRR), at least three times in a row.
_STUTTER = re.compile(r"((\S)(?!\2)\S{1,7}?)\1{2,}")
_MAX_STUTTER_SHARE = 0.3
_GRAM = 4  # characters
_WINDOW = 200  # characters: a reply that starts well and then repeats itself has a repetitive window
_MIN_WINDOW = 24
# The share of different 4-grams in a window: 0.9 in English, 0.3 and more in code, 0.02 to 0.2 in loops.
_MIN_VARIETY = 0.25
_MIN_TOKENS = 8
_MAX_TOKEN_SHARE = 0.6


def is_degenerate(text: str) -> bool:
    """Whether a text has no word, an endless word, or little but repetition. False for an empty text."""
    text = one_line(text)  # indentation is not repetition
    if not text:
        return False
    if not _WORD.search(text) or _ENDLESS.search(text):
        return True
    return _stutters(text) or _repeats_a_token(text) or _loops(text)


def _stutters(text: str) -> bool:
    stuttered = sum(len(match[0]) for match in _STUTTER.finditer(text))
    return stuttered > _MAX_STUTTER_SHARE * len(text)


def _repeats_a_token(text: str) -> bool:
    tokens = text.split()
    if len(tokens) < _MIN_TOKENS:
        return False
    return Counter(tokens).most_common(1)[0][1] > _MAX_TOKEN_SHARE * len(tokens)


def _loops(text: str) -> bool:
    return any(_variety(window) < _MIN_VARIETY for window in _windows(text))


def _windows(text: str) -> Iterator[str]:
    """Stretches of equal length; the last one overlaps the one before it. A short text has none."""
    if len(text) >= _MIN_WINDOW:
        for start in range(0, len(text), _WINDOW):
            yield text[max(0, min(start, len(text) - _WINDOW)) :][:_WINDOW]


def _variety(window: str) -> float:
    grams = [window[i : i + _GRAM] for i in range(len(window) - _GRAM + 1)]
    return len(set(grams)) / len(grams)
