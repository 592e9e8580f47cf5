"""Replies that follow a JSON schema: token masks from llguidance, and documents that always close in time.

The grammar writes JSON as `json.dumps` does: `", "` between items, `": "` after keys, no other white space.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from resd.generation.thought import Marker, Thought
from resd.generation.vocabulary import Vocabulary
from resd.records import Request, ResdError

JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
# Without `no_forcing`, text that must come next is masked to one tokenization of it, which may differ from
# the model's own: a model that writes `", "tag": "helpful"}` as one token would be thrown off.
_GRAMMAR = '%llguidance {"no_forcing": true}\nstart: %json '
CACHED_GRAMMARS = 64
# Keywords for which no bound on the closing length is assumed.
UNBOUNDED = {
    "$ref",
    "allOf",
    "not",
    "if",
    "pattern",
    "format",
    "prefixItems",
    "patternProperties",
    "multipleOf",
}


class Grammars:
    """Compiles schemas (caching the last few) and creates one `Constraint` per request.

    `after` is a marker such as "</think>": if a thinking block is open, the grammar starts after it.
    """

    def __init__(self, vocabulary: Vocabulary, after: str | None = None) -> None:
        self.vocabulary = vocabulary
        self.after = Marker(vocabulary, after) if after is not None else None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def constraint(self, request: Request) -> Constraint | None:
        """None without a schema. Raises ResdError for a bad schema, or one that cannot fit `max_tokens`."""
        if request.schema is None:
            return None
        matcher = self._matcher(request.schema).deep_copy()
        constraint = Constraint(self.vocabulary, matcher, reserve_of(request.schema))
        shortest = closing_path(self.vocabulary, matcher, request.max_tokens)
        thought = Thought.before_grammar(self.after, request, len(shortest or ()) + 1)
        needed = (thought.least if thought else 0) + 1
        if shortest is None or len(shortest) + needed > request.max_tokens:
            raise ResdError(
                f"request {request.id!r}: max_tokens {request.max_tokens} cannot hold even the shortest "
                f"reply that its schema allows; raise max_tokens or shrink the schema"
            )
        constraint.thought = thought
        return constraint

    def _matcher(self, schema: Mapping[str, Any]) -> LLMatcher:
        text = json.dumps(schema)  # the order of properties is part of the grammar
        if text not in self._compiled:
            self._compiled[text] = self._compile(text)
            if len(self._compiled) > CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(text)
        return self._compiled[text]

    def _compile(self, schema: str) -> LLMatcher:
        matcher = LLMatcher(self.vocabulary.grammar_tokenizer, grammar_text(json.loads(schema)), log_level=0)
        if matcher.is_error():
            raise ResdError(
                f"the schema {schema[:80]} cannot be enforced: {matcher.get_error().splitlines()[0]}"
            )
        return matcher


class Constraint:
    """The grammar's state in one reply: which tokens may come next, and whether a drawn token stands."""

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher, reserve: int | None) -> None:
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._reserve = reserve
        self._path: list[int] = []
        self.thought: Thought | None = None

    @property
    def finished(self) -> bool:
        """Whether the document is complete and only a stop token can follow."""
        return self.thought is None and bool(self._matcher.is_stopped())

    def allowed(self, remaining: int) -> NDArray[np.bool_]:
        """`[len(vocabulary)]`: which tokens may come next with `remaining` tokens left, including it."""
        if self.thought is None:
            return mask_of(self._matcher, len(self._vocabulary))
        mask = self.thought.allowed(remaining)
        return mask | mask_of(self._matcher, len(self._vocabulary)) if self.thought.optional else mask

    def commit(self, token: int, remaining: int) -> tuple[int, bool]:
        """Consume the drawn token with `remaining` left, including it. Returns (token, whether it stands).

        A token after which the document could no longer be closed in time is replaced by the first token of
        the shortest closing, as if nothing else had been allowed.
        """
        if self.thought is not None and self.thought.takes(token):
            if self.thought.over:
                self.thought = None
            return token, True
        self.thought = None
        if token in self._vocabulary.stop_ids:
            return token, True
        chosen = self._closable(token, remaining - 1)
        return chosen, chosen == token

    def way_out(self, remaining: int) -> int:
        """The next token of a short closing, with `remaining` tokens left, including it."""
        path = closing_path(self._vocabulary, self._matcher, remaining - 1)
        assert path is not None, "a constrained reply can no longer be closed"
        return path[0] if path else self._vocabulary.stop_ids[0]

    def _closable(self, token: int, left: int) -> int:
        """Consume `token`, or a closing token if the `left` tokens after it could not close and stop."""
        known = self._path
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"the grammar refused token {token}: {self._matcher.get_error()}")
        if self._reserve is not None and left > self._reserve:
            return token
        if known and token == known[0]:
            self._path = known[1:]
            return token
        path = closing_path(self._vocabulary, self._matcher, left - 1)
        if path is not None:
            self._path = path
            return token
        self._matcher.rollback(1)
        way_out = known or closing_path(self._vocabulary, self._matcher, left)
        if way_out is None:
            raise RuntimeError("a constrained reply can no longer be closed")
        if not way_out:  # already complete: the drawn token would only have made it longer
            return self._vocabulary.stop_ids[0]
        self._matcher.consume_token(way_out[0])
        self._path = way_out[1:]
        return way_out[0]


def grammar_text(schema: Mapping[str, Any]) -> str:
    """A schema as an llguidance grammar."""
    return _GRAMMAR + json.dumps({**schema, "x-guidance": JSON_STYLE})


def mask_of(matcher: LLMatcher, size: int) -> NDArray[np.bool_]:
    """`[size]`: the mask of tokens that the grammar allows next."""
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return np.unpackbits(bits, count=size, bitorder="little").view(np.bool_)


def closing_path(vocabulary: Vocabulary, matcher: LLMatcher, limit: int) -> list[int] | None:
    """A short path to a complete document: at most `limit` token ids, or None if none was found.

    Greedy: forced tokens, else the allowed token that closes most. It depends on the state alone, so
    following the path never makes it longer.
    """
    matcher, path = matcher.deep_copy(), list[int]()
    while not matcher.is_accepting():
        if len(path) >= limit or matcher.is_error():
            return None
        step = _forced(vocabulary, matcher) or [_closest(vocabulary, matcher)]
        if matcher.try_consume_tokens(step) != len(step):
            return None
        path += step
    return path if len(path) <= limit else None


def _forced(vocabulary: Vocabulary, matcher: LLMatcher) -> list[int]:
    """The forced next tokens; none if the next text is open or starts inside a character."""
    try:
        text = matcher.compute_ff_bytes().decode()
    except UnicodeDecodeError:
        return []
    return list(vocabulary.grammar_tokenizer.greedy_tokenize(text))


def _closest(vocabulary: Vocabulary, matcher: LLMatcher) -> int:
    mask = mask_of(matcher, len(vocabulary))
    in_string = bool(mask[vocabulary.brackets].all())
    allowed = mask.nonzero()[0]
    return int(allowed[vocabulary.closing_ranks[in_string][allowed].argmin()])


def reserve_of(schema: Mapping[str, Any]) -> int | None:
    """An upper bound on the characters needed to close: nothing is checked while more tokens are left.

    It is the length of a document with every property and, in each list, the minimum number of items, at
    least one. None if no bound is known (references, patterns, free-form objects): all tokens are checked.
    """
    try:
        return 16 + _longest(schema)
    except (KeyError, TypeError, AttributeError):
        return None


def _longest(schema: Mapping[str, Any]) -> int:
    if "const" in schema or "enum" in schema:
        return max(len(json.dumps(value)) for value in schema.get("enum", [schema.get("const")]))
    if unbounded := set(schema) & UNBOUNDED:
        raise KeyError(*unbounded)
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return max(map(_longest, alternatives))
    if isinstance(schema["type"], list):
        return max(_longest({**schema, "type": kind}) for kind in schema["type"])
    return _LENGTHS[schema["type"]](schema)


def _longest_object(schema: Mapping[str, Any]) -> int:
    if schema.get("additionalProperties") is not False:
        raise KeyError("additionalProperties")
    return 2 + sum(
        len(json.dumps(key)) + 4 + _longest(value) for key, value in schema.get("properties", {}).items()
    )


def _longest_string(schema: Mapping[str, Any]) -> int:
    # Quotes, and an unfinished escape or multi-byte character.
    return 14 + int(schema.get("minLength", 0))


def _longest_array(schema: Mapping[str, Any]) -> int:
    return 4 + max(1, int(schema.get("minItems", 0))) * (2 + _longest(schema["items"]))


_LENGTHS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "object": _longest_object,
    "array": _longest_array,
    "string": _longest_string,
    "number": lambda _: 24,
    "integer": lambda _: 24,
    "boolean": lambda _: 5,
    "null": lambda _: 4,
}
