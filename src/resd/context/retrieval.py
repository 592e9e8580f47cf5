"""Which entries matter for a problem, when not all of them fit.

By words, without a model: an entry is worth the rarity of the words that it shares with the rest of the
prompt (inverse document frequency, the document being an entry). Among entries that share none, those that
have done most good come first, then the newest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log

from resd.context.entries import Entry

_WORD = re.compile(r"\w+")


def least_relevant_first(entries: Sequence[Entry], text: str) -> list[Entry]:
    """The entries in the order in which a prompt that holds `text` can do without them."""
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
    """Its words, without case."""
    return frozenset(_WORD.findall(text.casefold()))
