"""What every generation engine does."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from generation.engines import (
    CLOSE,
    NAMES,
    OPEN,
    STOP,
    Subject,
    distributions,
    model_of,
    prompts,
    requests,
    sampled,
    subject,
)
from resd.generation.engine import generate
from resd.records import Request, ResdError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tag": {"enum": ["helpful", "harmful"]},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["tag", "notes"],
    "additionalProperties": False,
}
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
SHORTEST = len('{"tag": "helpful", "notes": []}') + 1  # one token per character, and the stop token


@pytest.fixture(scope="module", params=NAMES)
def tested(request: pytest.FixtureRequest) -> Iterator[Subject]:
    made = subject(request.param)
    with made.engine.awake():
        yield made


def test_greedy_is_the_argmax_of_a_forward(tested: Subject) -> None:
    asked = requests(prompts([3, 17, 9, 1, 30]), temperature=0.0)
    for request, response in zip(asked, generate(tested.engine, asked), strict=True):
        rows = distributions(tested.model, request.prompt_ids, response.token_ids)
        chosen = rows.gather(-1, torch.tensor(response.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(chosen, rows.max(-1).values, atol=tested.tolerance, rtol=0)
        torch.testing.assert_close(
            torch.tensor(response.logprobs).double(), chosen, atol=tested.tolerance, rtol=0
        )


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.6), (1.3, 0.9)])
def test_logprobs_are_those_of_what_was_sampled(tested: Subject, temperature: float, top_p: float) -> None:
    asked = requests(prompts([5, 12, 40, 2]), temperature=temperature, top_p=top_p)
    for request, response in zip(asked, generate(tested.engine, asked), strict=True):
        whole = distributions(tested.model, request.prompt_ids, response.token_ids)
        drawn = torch.tensor(response.token_ids)[:, None]
        expected = sampled(whole, temperature, top_p).gather(-1, drawn)[:, 0]
        inside = expected.isfinite()  # of the nucleus, whose rim rounding moves, and of little more
        wider = sampled(whole, temperature, top_p if tested.exact else min(top_p + 0.1, 1.0))
        assert wider.gather(-1, drawn).isfinite().all()
        found = torch.tensor(response.logprobs).double()
        torch.testing.assert_close(found[inside], expected[inside], atol=2 * tested.tolerance, rtol=0)


def test_many_long_prompts_at_once(tested: Subject) -> None:
    asked = requests(prompts([400 + i for i in range(40)]), max_tokens=4)
    responses = generate(tested.engine, asked)
    for i in range(0, 40, 13):
        rows = distributions(tested.model, asked[i].prompt_ids, responses[i].token_ids)
        expected = rows.gather(-1, torch.tensor(responses[i].token_ids)[:, None])[:, 0]
        found = torch.tensor(responses[i].logprobs).double()
        torch.testing.assert_close(found, expected, atol=tested.tolerance, rtol=0)


def test_samples_follow_the_distribution(tested: Subject) -> None:
    (prompt,) = prompts([6])
    asked = [Request(f"s{i}", prompt, max_tokens=1, seed=i) for i in range(600)]
    drawn = torch.tensor([response.token_ids[0] for response in generate(tested.engine, asked)])
    probabilities = distributions(tested.model, prompt, [STOP])[0].exp()
    top = probabilities.topk(8).indices
    expected = 600 * probabilities[top]
    counts = torch.stack([(drawn == token).sum() for token in top])
    assert float(((counts - expected) ** 2 / expected).sum()) < 26.1  # chi-squared, 8 degrees, 0.1 %


def test_a_seed_repeats_whatever_shares_its_batch(tested: Subject) -> None:
    asked = requests(prompts([5, 12, 40, 2]), max_tokens=16)
    together = generate(tested.engine, asked)
    alone = [generate(tested.engine, [request])[0] for request in asked]
    assert tested.same(alone, together)
    assert tested.same([generate(tested.engine, [request])[0] for request in asked], alone)
    other = dataclasses.replace(asked[2], seed=7)
    assert generate(tested.engine, [other])[0].token_ids != alone[2].token_ids


def test_replies_stop_or_reach_their_own_limit(tested: Subject) -> None:
    asked = [dataclasses.replace(r, max_tokens=1 + i) for i, r in enumerate(requests(prompts([4] * 40)))]
    responses = generate(tested.engine, asked)
    assert {r.finish_reason for r in responses} == {"stop", "length"}
    for request, response in zip(asked, responses, strict=True):
        stopped = response.finish_reason == "stop"
        assert (response.token_ids[-1] == STOP) == stopped
        assert STOP not in response.token_ids[:-1]
        assert len(response.token_ids) == len(response.logprobs)
        assert len(response.token_ids) == request.max_tokens or stopped
        assert response.text == tested.tokenizer.decode(
            [i for i in response.token_ids if i != STOP], skip_special_tokens=True
        )


def test_responses_come_as_they_finish(tested: Subject) -> None:
    asked = requests(prompts([4] * 8), max_tokens=200)
    lengths = [len(response.token_ids) for response in generate(tested.engine, asked)]
    long = asked[lengths.index(max(lengths))]
    responses = tested.engine.submit([long, dataclasses.replace(long, id="short", max_tokens=1)])
    assert next(responses).request_id == "short"
    tested.engine.cancel([long.id])
    (last,) = responses
    assert last.finish_reason == "cancelled"
    assert 1 <= len(last.token_ids) < max(lengths)
    assert len(last.token_ids) == len(last.logprobs)


def test_cancelled_before_the_start(tested: Subject) -> None:
    asked = requests(prompts([5] * 3))
    responses = tested.engine.submit(asked)
    tested.engine.cancel([*(r.id for r in asked), "unknown"])
    assert [(r.finish_reason, r.token_ids) for r in responses] == [("cancelled", ())] * 3
    assert generate(tested.engine, asked[:1])[0].finish_reason != "cancelled"


def test_calls_may_overlap_and_be_abandoned(tested: Subject) -> None:
    asked = requests(prompts([5, 7, 6]))
    expected = generate(tested.engine, asked)
    left = tested.engine.submit([dataclasses.replace(r, id=f"left-{r.id}", max_tokens=60) for r in asked])
    next(left)
    assert tested.same(generate(tested.engine, asked), expected)
    left.close()  # type: ignore[attr-defined]
    assert tested.same(generate(tested.engine, asked), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"prompt_ids": ()}, "empty prompt"), ({"max_tokens": 510}, "512 positions"), ({"top_p": 0.0}, "top_p")],
)
def test_bad_requests_fail_before_anything_runs(tested: Subject, changes: Any, message: str) -> None:
    (good,) = requests(prompts([5]))
    with pytest.raises(ResdError, match=message):
        tested.engine.submit([good, dataclasses.replace(good, id="bad", **changes)])
    with pytest.raises(ResdError, match="same id"):
        tested.engine.submit([good, good])


def test_no_requests(tested: Subject) -> None:
    assert list(tested.engine.submit([])) == []


def behind(tested: Subject, text: str) -> tuple[int, ...]:
    return (*prompts([6])[0], *tested.tokenizer.encode(text, add_special_tokens=False))


def document(text: str) -> Any:
    """What a reply says; but for escapes in strings, it is written as `json.dumps` does."""
    value = json.loads(text)
    assert STRING.sub("", text) == STRING.sub("", json.dumps(value))
    assert value["tag"] in ("helpful", "harmful")
    assert all(isinstance(note, str) and len(note) <= 12 for note in value["notes"])
    assert len(value["notes"]) <= 3
    return value


@pytest.mark.parametrize("limit", [SHORTEST, SHORTEST + 1, SHORTEST + 4, 48, 120])
def test_documents_close_before_the_limit(tested: Subject, limit: int) -> None:
    asked = requests([behind(tested, CLOSE)] * 12, max_tokens=limit, schema=SCHEMA)
    responses = generate(tested.engine, asked)
    for response in responses:
        document(response.text)
        assert response.finish_reason == "stop"
        assert len(response.token_ids) == len(response.logprobs) <= limit
    if limit > 2 * SHORTEST:
        assert len({response.text for response in responses}) > 6


def test_a_schema_that_cannot_fit_is_refused(tested: Subject) -> None:
    with pytest.raises(ResdError, match="cannot hold even the shortest"):
        tested.engine.submit(requests([behind(tested, CLOSE)], max_tokens=SHORTEST - 1, schema=SCHEMA))


def test_a_document_comes_behind_an_open_thought(tested: Subject) -> None:
    asked = requests([behind(tested, OPEN)] * 8, max_tokens=100, schema=SCHEMA)
    marker = tested.tokenizer.convert_tokens_to_ids(CLOSE)
    for response in generate(tested.engine, asked):
        assert response.token_ids.index(marker) <= 50
        document(response.text.partition(CLOSE)[2])
        assert STOP not in response.token_ids[:-1]
        assert len(response.token_ids) == len(response.logprobs) <= 100


def test_a_thought_may_be_opened_or_left_out(tested: Subject) -> None:
    asked = requests([behind(tested, "")] * 32, max_tokens=100, schema=SCHEMA)
    texts = [response.text for response in generate(tested.engine, asked)]
    opened = [text.startswith(OPEN) for text in texts]
    assert set(opened) == {True, False}
    for text in texts:
        document(text.partition(CLOSE)[2] if text.startswith(OPEN) else text)


def test_new_weights_change_what_is_generated(tested: Subject) -> None:
    before, trained = (
        {k: v.clone() for k, v in tested.model.named_parameters()},
        model_of(8).to(tested.model.device),
    )
    asked = requests(prompts([200, 20]), max_tokens=12)  # longer than a block of any prefix cache
    first = generate(tested.engine, asked)
    try:
        tested.engine.load_weights(trained.named_parameters())
        for request, response in zip(asked, generate(tested.engine, asked), strict=True):
            rows = distributions(trained, request.prompt_ids, response.token_ids)
            expected = rows.gather(-1, torch.tensor(response.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(
                torch.tensor(response.logprobs).double(), expected, atol=tested.tolerance, rtol=0
            )
    finally:
        tested.engine.load_weights(before.items())
    assert tested.same(generate(tested.engine, asked), first)


def test_unknown_weights_are_refused(tested: Subject) -> None:
    with pytest.raises(ResdError, match=r"model\.nothing"):
        tested.engine.load_weights([("model.nothing", torch.zeros(1))])
