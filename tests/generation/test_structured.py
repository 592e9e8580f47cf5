"""Constrained replies of a random model: always complete, valid, and within the limit."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from resd.generation.decoder import Decoder
from resd.generation.engine import generate
from resd.generation.structured import Constraint, Grammars, reserve_of
from resd.generation.vocabulary import Vocabulary
from resd.records import Request, ResdError, Response
from support import SPECIAL, tiny_model, tiny_tokenizer

REFLECTION = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "maxLength": 40},
        "tags": {
            "type": "array",
            "maxItems": 4,
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "maxLength": 10},
                    "tag": {"enum": ["helpful", "harmful", "neutral"]},
                },
                "required": ["id", "tag"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["error", "tags"],
    "additionalProperties": False,
}
FRAGMENTS = (
    '{"error": "',
    '", "tags": [',
    '{"id": "',
    '", "tag": "',
    'helpful"}',
    ", ",
    " missing",
    "<think>",
    "</think>",
)


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """The part of JSON schema that these tests use."""
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(valid(value, option) for option in schema["anyOf"])
    if schema["type"] == "object":
        properties = schema["properties"]
        return isinstance(value, dict) and (
            set(schema["required"]) <= set(value) <= set(properties)
            and all(valid(v, properties[k]) for k, v in value.items())
        )  # fmt: skip
    if schema["type"] == "array":
        fits = isinstance(value, list) and schema.get("minItems", 0) <= len(value) <= schema["maxItems"]
        return fits and all(valid(v, schema["items"]) for v in value)
    if schema["type"] == "string":
        return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema["maxLength"]
    return {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float),
        "boolean": isinstance(value, bool),
        "null": value is None,
    }[schema["type"]]


def word_tokenizer() -> Any:
    """Longest-first fragments over single characters, as the lab model's tokenizer."""
    base = tiny_tokenizer()
    vocabulary = {**base.get_vocab()} | {w: len(base) + i for i, w in enumerate(FRAGMENTS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    longest = sorted(FRAGMENTS, key=len, reverse=True)
    pattern = "|".join("".join(f"\\x{{{ord(c):x}}}" for c in word) for word in longest)
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{pattern}|[\\s\\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<|pad|>", eos_token="<|end|>")


def byte_tokenizer() -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator([json.dumps({"error": "a — b", "tags": []})] * 5 + ["grün größer"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


@cache
def decoder_for(kind: str) -> Decoder:
    tokenizer = {"characters": tiny_tokenizer, "words": word_tokenizer, "bytes": byte_tokenizer}[kind]()
    config = tiny_model().config
    config.vocab_size, config.eos_token_id = (
        len(tokenizer) + 3,
        tokenizer.eos_token_id,
    )  # padded, as real ones are
    torch.manual_seed(2)
    model = Qwen3ForCausalLM(config).eval()
    return Decoder(model, tokenizer, compute_dtype=torch.float32)


def ask(
    decoder: Decoder, schema: dict[str, Any], max_tokens: int, count: int = 8, **options: Any
) -> list[Response]:
    defaults: dict[str, Any] = {
        "prompt_ids": (7, 8, 9),
        "max_tokens": max_tokens,
        "schema": schema,
        **options,
    }
    return generate(decoder, [Request(id=str(i), seed=i, **defaults) for i in range(count)])


def check(response: Response, schema: dict[str, Any], max_tokens: int) -> None:
    assert response.finish_reason == "stop"
    assert len(response.token_ids) == len(response.logprobs) <= max_tokens
    value = json.loads(response.text)
    assert valid(value, schema), response.text


@pytest.mark.parametrize("kind", ["characters", "words", "bytes"])
@pytest.mark.parametrize("max_tokens", [26, 60, 300])
def test_documents_close_in_time(kind: str, max_tokens: int) -> None:
    decoder = decoder_for(kind)
    for response in ask(decoder, REFLECTION, max_tokens):
        check(response, REFLECTION, max_tokens)
        if "\\" not in response.text:
            assert response.text == json.dumps(json.loads(response.text), ensure_ascii=False)


def test_greedy_replies_close_too() -> None:
    for response in ask(decoder_for("words"), REFLECTION, 40, count=2, temperature=0.0):
        check(response, REFLECTION, 40)


def test_fragments_are_used_and_style_is_json_dumps() -> None:
    decoder = decoder_for("words")
    tokenizer = decoder._tokenizer
    text = '{"error": "x", "tags": [{"id": "err-00001", "tag": "helpful"}]}'
    ids = tokenizer.encode(text)
    assert len(ids) < len(text) - 30
    constraint = decoder._grammars.constraint(Request("r", (7,), 200, schema=REFLECTION))
    assert constraint is not None
    for n, token in enumerate(ids):
        assert constraint.allowed(200 - n)[token]
        assert constraint.commit(token, 200 - n) == (token, True)
    assert constraint.finished
    assert json.dumps(json.loads(text)) == text


def test_a_limit_below_the_shortest_document_is_refused() -> None:
    shortest = len('{"error": "", "tags": []}') + 1
    (response,) = ask(decoder_for("characters"), REFLECTION, shortest, count=1)
    assert response.text == '{"error": "", "tags": []}'
    with pytest.raises(ResdError, match="cannot hold"):
        ask(decoder_for("characters"), REFLECTION, shortest - 1, count=1)


def test_a_schema_that_cannot_be_enforced_is_refused() -> None:
    with pytest.raises(ResdError, match="cannot be enforced"):
        ask(decoder_for("characters"), {"type": "nonsense"}, 20)


def test_free_and_constrained_requests_share_a_batch() -> None:
    decoder = decoder_for("words")
    free = Request("free", (7, 8, 9), max_tokens=40, seed=5)
    bound = Request("bound", (7, 8, 9), max_tokens=40, seed=6, schema=REFLECTION)
    both = generate(decoder, [free, bound])
    assert [r.token_ids for r in both] == [generate(decoder, [r])[0].token_ids for r in (free, bound)]
    check(both[1], REFLECTION, 40)


def test_logprobs_are_those_under_the_mask() -> None:
    choice = {"enum": ["aa", "ab"]}
    responses = ask(decoder_for("characters"), choice, 20, count=30)
    first = responses[0]
    assert first.logprobs[:2] == (0.0, 0.0)  # the quote and the first letter are forced
    by_text = {r.text: r.logprobs[2] for r in responses}
    assert sum(torch.tensor(list(by_text.values())).exp()) == pytest.approx(1, abs=1e-5)
    assert set(by_text) == {'"aa"', '"ab"'}


def names(count: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["a", "ab", "error", "tags", "x y", "n0"]), max_size=count, unique=True)


LEAVES = st.one_of(
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 4),
        st.integers(0, 9),
    ),
    st.sampled_from([{"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}]),
    st.just({"enum": ["helpful", "harmful", 3, None]}),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def objects(keys: list[str], values: list[Any], required: int) -> dict[str, Any]:
        properties = dict(zip(keys, values, strict=False))
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties)[:required],
            "additionalProperties": False,
        }

    lists = st.builds(
        lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
        inner, st.integers(0, 2), st.integers(1, 3),
    )  # fmt: skip
    either = st.builds(lambda a: {"anyOf": [a, {"type": "null"}]}, inner)
    return st.one_of(
        st.builds(objects, names(3), st.lists(inner, min_size=3, max_size=3), st.integers(0, 3)),
        lists,
        either,
    )


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(LEAVES, containers, max_leaves=6),
    st.sampled_from(["characters", "words", "bytes"]),
    st.sampled_from([12, 40, 90]),
)
def test_random_schemas_always_hold(schema: dict[str, Any], kind: str, max_tokens: int) -> None:
    with suppress(ResdError):  # where the shortest document is longer
        for response in ask(decoder_for(kind), schema, max_tokens, count=3):
            check(response, schema, max_tokens)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[a-z]{2,9}-[0-9]{5}$"},
        {
            "type": "array",
            "items": {"$ref": "#/$defs/t"},
            "maxItems": 3,
            "$defs": {"t": {"type": "string", "maxLength": 5}},
        },
    ],
)
def test_schemas_without_a_known_bound(schema: dict[str, Any]) -> None:
    assert reserve_of(schema) is None
    for response in ask(decoder_for("characters"), schema, 24):
        json.loads(response.text)
        assert response.finish_reason == "stop"


def thinking(words: Decoder, prompt: str) -> tuple[Decoder, tuple[int, ...]]:
    decoder = Decoder(words._model, words._tokenizer, compute_dtype=torch.float32, grammar_after="</think>")
    return decoder, tuple(words._tokenizer.encode(prompt))


@pytest.mark.parametrize("max_tokens", [40, 120])
def test_the_grammar_waits_for_an_open_thought(max_tokens: int) -> None:
    decoder, prompt = thinking(decoder_for("words"), "go<think>")
    for response in ask(decoder, REFLECTION, max_tokens, prompt_ids=prompt):
        thought, marker, document = response.text.partition("</think>")
        assert marker
        assert len(thought) > 0
        assert valid(json.loads(document), REFLECTION)
        assert len(response.token_ids) <= max_tokens
        assert response.finish_reason == "stop"


def test_the_model_may_open_a_thought_itself() -> None:
    decoder, prompt = thinking(decoder_for("words"), "go")
    replies = [r.text for r in ask(decoder, REFLECTION, 90, count=40, prompt_ids=prompt)]
    opened = [text for text in replies if text.startswith("<think>")]
    assert 0 < len(opened) < len(replies)
    for text in replies:
        document = text.partition("</think>")[2] if text in opened else text
        assert valid(json.loads(document), REFLECTION)


def test_a_closed_thought_starts_the_grammar_at_once() -> None:
    decoder, prompt = thinking(decoder_for("words"), "go<think></think>")
    for response in ask(decoder, REFLECTION, 60, prompt_ids=prompt):
        check(response, REFLECTION, 60)


MERGED = (
    *SPECIAL,
    "<think>",
    "</think",
    ">",
    ">\n\n",
    ">{",
    "x</think>\n",
    "</think>1",
    "a",
    "1",
    "<",
    "/think>",
)


def merged_constraint(prompt: str, schema: dict[str, Any]) -> tuple[Constraint, Vocabulary]:
    """Of a tokenizer that merges the marker's end with what follows it."""
    tokens = tuple(token.encode() for token in MERGED)
    ids = {"</think>": ["</think", ">"], "<think>": ["<think>"], prompt: [prompt]}
    vocabulary = Vocabulary(
        tokens,
        frozenset(range(len(SPECIAL))),
        (1,),
        lambda text: [MERGED.index(part) for part in ids.get(text, list(text))],
    )
    request = Request("r", (MERGED.index(prompt),), 40, schema=schema)
    constraint = Grammars(vocabulary, "</think>").constraint(request)
    assert constraint is not None
    return constraint, vocabulary


@pytest.mark.parametrize(
    "written", [["a", "</think", ">\n\n"], ["x</think>\n"], ["</think", ">"], ["<", "/think>"]]
)
def test_a_thought_ends_with_whatever_token_holds_the_end_of_its_marker(written: list[str]) -> None:
    constraint, _ = merged_constraint("<think>", {"type": "integer"})
    for place, token in enumerate(written):
        assert constraint.thought is not None
        assert constraint.allowed(40 - place)[MERGED.index(token)]
        constraint.commit(MERGED.index(token), 40 - place)
    assert constraint.thought is None
    assert [MERGED[i] for i in constraint.allowed(30).nonzero()[0]] == ["1"]


def test_no_token_ends_a_thought_and_begins_the_document() -> None:
    """By brute force over what may be written: whatever is behind the marker, the grammar has seen."""
    for written in ([], ["a"], ["</think"], ["<"], ["a", "</think"]):
        constraint, vocabulary = merged_constraint("<think>", {"type": "integer"})
        for token in written:
            constraint.commit(MERGED.index(token), 40)
        text = "".join(written)
        allowed = {MERGED[i] for i in constraint.allowed(40).nonzero()[0]}
        spilling = {t for t in MERGED if (text + t).partition("</think>")[2].strip()}
        assert allowed == set(MERGED) - set(SPECIAL) - spilling
        assert len(vocabulary) == len(MERGED)


def test_compiled_grammars_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resd.generation.structured.CACHED_GRAMMARS", 2)
    grammars = Grammars(Vocabulary.of(tiny_tokenizer(), (1,)))
    for size in (1, 2, 3):
        grammars.constraint(Request("r", (7,), 50, schema={"type": "string", "maxLength": size}))
    assert len(grammars._compiled) == 2


def test_token_bytes_spell_the_text() -> None:
    for make in (tiny_tokenizer, word_tokenizer, byte_tokenizer):
        tokenizer = make()
        vocabulary = Vocabulary.of(tokenizer, (tokenizer.eos_token_id,))
        text = (
            '{"error": "a b", "tags": []} größer —' if make is byte_tokenizer else '{"error": " missing x"}'
        )
        assert vocabulary.text(tokenizer.encode(text)) == text
