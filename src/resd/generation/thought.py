"""Thinking: free text before a document, and the marker that ends it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resd.generation.vocabulary import Vocabulary
from resd.records import Request

# The maximum share of `max_tokens` for thinking that precedes a document.
THOUGHT_SHARE = 0.5


class Marker:
    """The text that ends thinking, such as "</think>", and the tokens that end it and continue.

    Tokenizers merge the end of a marker with what often follows: `>\\n\\n` is one token in many models.
    """

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        self.vocabulary = vocabulary
        self.text = text
        self.bytes = text.encode()
        self._spilling: dict[int, NDArray[np.intp]] = {}

    def begun(self, tail: bytes) -> list[int]:
        """All numbers of the marker's first bytes that `tail` may end with, including 0."""
        return [known for known in range(len(self.bytes)) if tail.endswith(self.bytes[:known])]

    def spilling(self, known: int) -> NDArray[np.intp]:
        """Tokens that complete the marker after `known` bytes and continue with more than white space.

        They would start the document unseen by its grammar.
        """
        if known not in self._spilling:
            begun = self.bytes[:known]
            rests = ((begun + token).partition(self.bytes)[2] for token in self.vocabulary.tokens)
            found = [i for i, rest in enumerate(rests) if rest.strip()]
            self._spilling[known] = np.array(found, dtype=np.intp)
        return self._spilling[known]


class Thought:
    """Free text before the document: up to a marker, bounded in length, without stop tokens."""

    def __init__(self, marker: Marker, reserve: int, *, optional: int | None) -> None:
        self._vocabulary = marker.vocabulary
        self._marker = marker
        self._closing = self._vocabulary.encode(marker.text)
        self._reserve = reserve
        self._opener = optional
        self._tail = b""
        self.over = False
        self._forced: list[int] = []  # the rest of the marker, once it is being forced

    @classmethod
    def before_grammar(cls, marker: Marker | None, request: Request, shortest: int) -> Thought | None:
        """The thinking that the prompt left open, or that the model may open immediately; else None."""
        if marker is None:
            return None
        vocabulary, text = marker.vocabulary, marker.text
        opener = text.replace("/", "")
        prompt = vocabulary.text(request.prompt_ids)
        reserve = max(shortest, request.max_tokens - int(THOUGHT_SHARE * request.max_tokens))
        if prompt.rfind(opener) > prompt.rfind(text):
            return cls(marker, min(reserve, request.max_tokens), optional=None)
        ids = vocabulary.encode(opener)
        if prompt.rstrip().endswith(text) or len(ids) != 1 or vocabulary.tokens[ids[0]] != opener.encode():
            return None
        room = request.max_tokens - len(vocabulary.encode(text)) - shortest
        return cls(marker, reserve, optional=ids[0]) if room > 0 else None

    @property
    def optional(self) -> bool:
        """Whether nothing is written yet and the reply may also start with the document itself."""
        return self._opener is not None

    @property
    def least(self) -> int:
        """The minimum number of tokens that it takes."""
        return 0 if self.optional else len(self._closing)

    @property
    def kept(self) -> int:
        """The number of tokens reserved for its marker and the document."""
        return self._reserve + len(self._closing)

    def allowed(self, remaining: int) -> NDArray[np.bool_]:
        mask = np.zeros(len(self._vocabulary), dtype=bool)
        if self._opener is not None:
            mask[self._opener] = True
        elif self._forced or remaining <= self.kept:
            self._forced = self._forced or list(self._closing)
            mask[self._forced[0]] = True
        else:
            mask[:] = True
            mask[list(self._vocabulary.special_ids - set(self._closing))] = False
            for known in self._marker.begun(self._tail):
                mask[self._marker.spilling(known)] = False
        return mask

    def takes(self, token: int) -> bool:
        """Whether the token belongs to the thinking (optional thinking starts only with its opening tag)."""
        if self._opener is not None:
            opened, self._opener = token == self._opener, None
            return opened
        self._forced = self._forced[1:]
        text = self._tail + self._vocabulary.tokens[token]
        self.over = self._marker.bytes in text
        self._tail = text[-len(self._marker.bytes) :]
        return True
