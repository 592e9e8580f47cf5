"""Ranking entries by relevance to a problem, when not all of them fit.

Lexical, without a model: an entry's score is the summed inverse document frequency of the words it shares
with the rest of the prompt, each entry being a document. Entries that share no words are ranked by how much
good they have done, then by age, newest first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log

from resd.context.entries import Entry

_WORD = re.compile(r"\w+")


def least_relevant_first(entries: Sequence[Entry], text: str) -> list[Entry]:
    """The entries, least relevant to a prompt that contains `text` first."""
    words = {entry.id: words_of(entry.content) for entry in entries}
    frequency = Counter(word for found in words.values() for word in found)
    present = words_of(text)

    def worth(item: tuple[int, Entry]) -> tuple[float, int, int]:
        position, entry = item
        shared = sorted(words[entry.id] & present)  # a sum's last digit depends on its order
        rarity = sum(log(1 + len(entries) / frequency[word]) for word in shared)
        return rarity, entry.helpful - entry.harmful, position

    return [entry for _, entry in sorted(enumerate(entries), key=worth)]


def words_of(text: str) -> frozenset[str]:
    """The set of words of a text, case-folded."""
    return frozenset(_WORD.findall(text.casefold()))
