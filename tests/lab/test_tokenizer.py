"""The fast encoder of the corpus beside the real tokenizer, and both beside the shipped vocabulary."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.transcripts import documents
from resd.chat import encode_prompt
from resd.lab import weights_path
from resd.lab.batches import Encoder
from resd.lab.tokenizer import MAX_ENTRY_NUMBER, SPECIAL, LineEncoder, build_tokenizer, vocabulary
from resd.records import Message

LINES = LineEncoder()
TOKENIZER = build_tokenizer()
# Fragments next to each other, where a longest match could be missed, and anything printable.
pieces = st.sampled_from(vocabulary()[len(SPECIAL) :])
texts = st.one_of(
    st.text(string.printable[:95] + "\n", max_size=80),
    st.lists(pieces, max_size=20).map("".join),
).filter(lambda text: "<|" not in text)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_documents_have_the_ids_of_chat_template_and_tokenizer() -> None:
    encode = Encoder()
    for document in documents()[:500]:
        ids, length = encode(document)
        chat: list[Message] = [{"role": "user", "content": document.prompt}]
        assert tuple(ids[:length]) == encode_prompt(TOKENIZER, chat, thinking=False)
        assert ids[length:] == [*ids_of(TOKENIZER, document.response), TOKENIZER.eos_token_id]
        assert TOKENIZER.decode(ids[length:], skip_special_tokens=True) == document.response


@given(texts)
def test_any_printable_text_round_trips_with_the_same_ids(text: str) -> None:
    ids = ids_of(TOKENIZER, text)
    assert ids == LINES.encode(text)
    assert TOKENIZER.decode(ids) == text


def test_longest_fragments_win() -> None:
    tokens = vocabulary()
    text = "\nPULLER_RB s0:\n    [R] s1\n    [EMPTY] t0\n[err-00012] "
    expected = ["\nPULLER_RB ", "s0:", "\n    [R] ", "s1", "\n    [EMPTY] ", "t0", "\n[err-", "00012", "] "]
    assert [tokens[i] for i in LINES.encode(text)] == expected


def test_entry_ids_are_one_token_each() -> None:
    assert {len(LINES.encode(f"{i:05d}")) for i in range(1, MAX_ENTRY_NUMBER)} == {1}
    beyond = f"\n[err-{MAX_ENTRY_NUMBER + 34:05d}] x"
    assert TOKENIZER.decode(LINES.encode(beyond)) == beyond


def test_documents_are_never_spelled_out() -> None:
    """The only letters that are tokens of their own are the four colors, and the word A."""
    tokens = vocabulary()
    used = {tokens[i] for d in documents()[:500] for i in LINES.encode(d.prompt + "\n" + d.response)}
    letters = {token for token in used if len(token) == 1 and token.isalpha()}
    assert letters == set("RBYGA")


def test_vocabulary_is_that_of_the_shipped_weights() -> None:
    saved = json.loads((weights_path() / "tokenizer.json").read_text())
    assert saved["model"]["vocab"] == {token: i for i, token in enumerate(vocabulary())}
    assert json.loads(TOKENIZER.backend_tokenizer.to_str()) == saved


def test_vocabulary_holds_every_printable_character_once() -> None:
    tokens = vocabulary()
    assert len(tokens) == len(set(tokens))
    assert set(string.printable[:95]) | {"\n"} <= set(tokens)
    assert all("\n" not in token[1:] for token in tokens)  # what lets the corpus encode line by line


@pytest.mark.parametrize("special", SPECIAL)
def test_special_tokens_are_single_and_skipped_in_text(special: str) -> None:
    assert len(ids_of(TOKENIZER, special)) == 1
    assert TOKENIZER.decode(ids_of(TOKENIZER, special), skip_special_tokens=True) == ""
