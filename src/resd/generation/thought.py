"""Thoughts: free text that comes before a document, and the marker that ends it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resd.generation.vocabulary import Vocabulary
from resd.records import Request

# At most this share of `max_tokens` goes to a thought that precedes the document.
THOUGHT_SHARE = 0.5


class Marker:
    """What ends a thought, such as "</think>", and the tokens that end one and go on.

    Tokenizers merge the end of a marker with what often follows it: `>\\n\\n` is one token to many models.
    """

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        self.vocabulary = vocabulary
        self.text = text
        self.bytes = text.encode()
        self._spilling: dict[int, NDArray[np.intp]] = {}

    def begun(self, tail: bytes) -> list[int]:
        """How many bytes of it are written at the end of `tail`: each count that may be, 0 among them."""
        return [known for known in range(len(self.bytes)) if tail.endswith(self.bytes[:known])]

    def spilling(self, known: int) -> NDArray[np.intp]:
        """Tokens that complete it, `known` bytes being there, with more than white space behind it.

        They would begin the document unseen by its grammar.
        """
        if known not in self._spilling:
            begun = self.bytes[:known]
            rests = ((begun + token).partition(self.bytes)[2] for token in self.vocabulary.tokens)
            found = [i for i, rest in enumerate(rests) if rest.strip()]
            self._spilling[known] = np.array(found, dtype=np.intp)
        return self._spilling[known]


class Thought:
    """Free text before the document: up to a marker, within a bound, without stop tokens."""

    def __init__(self, marker: Marker, reserve: int, *, optional: int | None) -> None:
        self._vocabulary = marker.vocabulary
        self._marker = marker
        self._closing = self._vocabulary.encode(marker.text)
        self._reserve = reserve
        self._opener = optional
        self._tail = b""
        self.over = False
        self._forced: list[int] = []  # what is left of the marker, once it is being written for the model

    @classmethod
    def before_grammar(cls, marker: Marker | None, request: Request, shortest: int) -> Thought | None:
        """The thought that the prompt left open, or that the model may open at once; else None."""
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
        """Nothing is written yet, and the reply may also start with the document itself."""
        return self._opener is not None

    @property
    def least(self) -> int:
        """Tokens that it takes at least."""
        return 0 if self.optional else len(self._closing)

    @property
    def kept(self) -> int:
        """Tokens that it leaves to its marker and to the document."""
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
        """Whether the token belongs to the thought (an optional one starts with its opener only)."""
        if self._opener is not None:
            opened, self._opener = token == self._opener, None
            return opened
        self._forced = self._forced[1:]
        text = self._tail + self._vocabulary.tokens[token]
        self.over = self._marker.bytes in text
        self._tail = text[-len(self._marker.bytes) :]
        return True
