"""What goes wrong on purpose, and how often."""

import json
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from resd.context.curation import parse_curation
from resd.experiments.faults import Faults, FaultyEngine, with_wrong_tags, wrong_curation
from resd.experiments.lives import is_wrong
from resd.records import Request, Response

TAGS = [{"id": "sai-00001", "tag": "helpful"}, {"id": "sai-00002", "tag": "harmful"}]
REPLY = json.dumps({"tags": [*TAGS, {"id": "sai-00003", "tag": "neutral"}], "error": "x"})


class Echo:
    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        return (Response(request.id, REPLY, (1,), (0.0,), "stop") for request in requests)


def replies(faults: Faults, role: str, seed: int = 0, count: int = 400) -> list[str]:
    requests = [Request(f"{role}/1/{i}", (1,), 8) for i in range(count)]
    return [response.text for response in FaultyEngine(Echo(), faults, seed).submit(requests)]  # type: ignore[arg-type]


def test_a_wrong_curation_is_one_that_the_curator_could_have_written() -> None:
    for seed in range(20):
        (addition,) = parse_curation(wrong_curation(Random(seed))).additions
        assert is_wrong(addition.content)


def test_a_share_of_the_curations_and_nothing_else_is_replaced() -> None:
    curated = replies(Faults(wrong_lessons=0.1), "curate")
    wrong = [text for text in curated if text != REPLY]
    assert 20 < len(wrong) < 65  # 40 expected, 6 the standard deviation
    assert all(is_wrong(json.loads(text)["operations"][0]["content"]) for text in wrong)
    assert set(replies(Faults(wrong_lessons=1.0), "reflect")) == {REPLY}
    assert curated == replies(Faults(wrong_lessons=0.1), "curate")
    assert curated != replies(Faults(wrong_lessons=0.1), "curate", seed=1)


def test_tags_are_turned_round() -> None:
    turned = json.loads(with_wrong_tags(REPLY, 1.0, Random(0)))
    assert [tag["tag"] for tag in turned["tags"]] == ["harmful", "helpful", "neutral"]
    assert turned["error"] == "x"
    assert with_wrong_tags(REPLY, 0.0, Random(0)) == REPLY
    half = [json.loads(text)["tags"] for text in replies(Faults(wrong_tags=0.5), "reflect")]
    assert 150 < sum(tags[0]["tag"] == "harmful" for tags in half) < 250
    assert any(tags[0]["tag"] == tags[1]["tag"] for tags in half), "each tag is drawn for itself"


@pytest.mark.parametrize("text", ["", "no JSON", '{"tags": 3}', '{"tags": [1, {"tag": "odd"}]}'])
def test_what_cannot_be_read_stays(text: str) -> None:
    found = with_wrong_tags(text, 1.0, Random(0))
    assert found == text or json.loads(found) == json.loads(text)
