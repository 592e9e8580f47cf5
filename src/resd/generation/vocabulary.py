"""The bytes of every token for any tokenizer, against which grammars and closing markers are matched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from resd.records import ResdError

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Vocabulary:
    """Token id -> bytes. Special tokens keep their bytes, but no grammar ever allows them."""

    tokens: tuple[bytes, ...]
    special_ids: frozenset[int]
    stop_ids: tuple[int, ...]
    encode: Callable[[str], list[int]]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, tokenizer: Any, stop_ids: tuple[int, ...]) -> Vocabulary:
        """Read a fast tokenizer. Raises ResdError for slow ones and decoders whose bytes are unknown."""
        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            raise ResdError("replies with a schema need a fast tokenizer: load it with use_fast=True")
        to_bytes = _decoder_of(json.loads(core.to_str()).get("decoder"))
        added = core.get_added_tokens_decoder()
        special = frozenset(i for i, token in added.items() if token.special) | set(stop_ids)
        by_id = {i: to_bytes(token) for token, i in core.get_vocab(with_added_tokens=False).items()}
        by_id |= {i: token.content.encode() for i, token in added.items()}
        tokens = tuple(by_id.get(i, b"") for i in range(max(by_id) + 1))
        return cls(tokens, special, stop_ids, lambda text: _ids(tokenizer, text))

    def text(self, ids: Sequence[int]) -> str:
        """The ids as text, special tokens included."""
        return b"".join(self.tokens[i] for i in ids if i < len(self)).decode("utf-8", "replace")

    @cached_property
    def grammar_tokenizer(self) -> Any:
        """The vocabulary as an llguidance tokenizer."""
        return LLTokenizer(TokenizerWrapper(_Words(self)), n_vocab=len(self), eos_token=list(self.stop_ids))

    @cached_property
    def closing_ranks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ranks per token, outside and inside a string: lower closes JSON sooner."""
        return self._rank(b"}]", b'"'), self._rank(b'"', b"}]")

    @cached_property
    def brackets(self) -> list[int]:
        """The tokens `]` and `}`. Both can come next only inside a string."""
        return [
            i for i, token in enumerate(self.tokens) if token in (b"]", b"}") and i not in self.special_ids
        ]

    def _rank(self, *closers: bytes) -> NDArray[np.int64]:
        order = sorted(range(len(self)), key=lambda i: (*_closing_key(self.tokens[i], closers), i))
        rank = np.empty(len(self), dtype=np.int64)
        rank[order] = np.arange(len(self))
        return rank


class _Words:
    """The tokenizer interface that llguidance expects."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = list(vocabulary.tokens)
        self.eos_token_id = vocabulary.stop_ids[0]
        self.special_token_ids = sorted(vocabulary.special_ids)
        self._encode = vocabulary.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _closing_key(token: bytes, closers: tuple[bytes, ...]) -> tuple[int, bool, int]:
    """Sort key: closers, separators, digits, letters, other characters, escapes, new containers."""
    if not token:
        return (9, True, 0)
    first, only_closing = token[:1], all(byte in b'"]}' for byte in token)
    classes = (*closers, b",", b" :;.-_/!?()", b"0123456789")
    group = next((i for i, members in enumerate(classes) if first in members), 5)
    group = {b"\\": 7, b"[": 8, b"{": 8}.get(first, 6 if first >= b"\x80" else group)
    return (group, not only_closing, -len(token) if only_closing else len(token))


def _decoder_of(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    """A function from this tokenizer's vocabulary strings to bytes."""
    parts = _flatten(decoder)
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        table = _byte_level_table()
        return lambda token: (
            bytes(table[ch] for ch in token) if all(c in table for c in token) else token.encode()
        )
    if unknown := kinds - {"Fuse", "Replace", "Metaspace", "ByteFallback", "Strip"}:
        raise ResdError(
            f"replies with a schema need a tokenizer whose bytes are known, not one that decodes by "
            f"{', '.join(sorted(unknown))}"
        )
    replaced = [(p["pattern"].get("String", ""), p["content"]) for p in parts if p["type"] == "Replace"]
    replaced += [(p["replacement"], " ") for p in parts if p["type"] == "Metaspace"]
    return lambda token: _spelled(token, replaced, "ByteFallback" in kinds)


def _spelled(token: str, replaced: list[tuple[str, str]], byte_fallback: bool) -> bytes:
    if byte_fallback and (match := BYTE_TOKEN.fullmatch(token)):
        return bytes([int(match[1], 16)])
    for old, new in replaced:
        token = token.replace(old, new) if old else token
    return token.encode()


def _flatten(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [part for inner in decoder["decoders"] for part in _flatten(inner)]
    return [decoder]


def _byte_level_table() -> dict[str, int]:
    """Byte-level BPE's printable stand-ins: printable Latin-1 maps to itself, the rest from U+0100 on."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(itself)]
    return {chr(b): b for b in itself} | {chr(0x100 + i): b for i, b in enumerate(others)}
