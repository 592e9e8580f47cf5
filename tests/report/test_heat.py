"""Token values: which responses are shown, and how dark their tokens are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resd.records import ResdError
from resd.report.heat import LEVELS, MOST_RESPONSES, MOST_TOKENS, heat, level, spaced
from resd.report.runs import load_run

MakeRun = Callable[..., Path]


def write(folder: Path, step: int, *rows: dict[str, Any], end: str = "\n") -> None:
    path = folder / f"tokens/{step}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + end)


def row(key: str = "p#0", **more: Any) -> dict[str, Any]:
    return {"key": key, "tokens": ["a", "\n", "b"], "divergence": [0.0, 1.0, 2.0], "text": "a\nb", **more}


def test_no_file_no_heat(make_run: MakeRun) -> None:
    assert heat(load_run(make_run(), "run")) is None


def test_the_first_responses_of_a_few_updates(make_run: MakeRun) -> None:
    folder = make_run()
    for step in (1, 2, 3, 4, 9):  # the last is of no update that is in the metrics
        write(folder, step, *(row(f"p#{i}") for i in range(MOST_RESPONSES + 2)))
    found = heat(load_run(folder, "run"))
    assert found is not None
    assert found.steps == 4
    assert [(r.step, r.key) for r in found.responses] == [
        (step, f"p#{i}") for step in (1, 3, 4) for i in range(MOST_RESPONSES)
    ]
    assert [r.first for r in found.responses[:3]] == [True, False, False]
    tokens = found.responses[0].divergence
    assert [(t.shown, t.value, t.kind) for t in tokens] == [
        ("a", 0.0, "h0"),
        ("↵\n", 1.0, "h5"),
        ("b", 2.0, "h10"),
    ]
    assert found.responses[0].advantage == []


def test_long_responses_are_cut_and_signs_kept(make_run: MakeRun) -> None:
    folder = make_run()
    count = MOST_TOKENS + 7
    values = {
        "tokens": ["x"] * count,
        "divergence": [None] * count,
        "advantage": [-1.0, *[1.0] * (count - 1)],
    }
    write(folder, 1, row(**values))
    found = heat(load_run(folder, "run"))
    assert found is not None
    (response,) = found.responses
    assert (len(response.divergence), response.total) == (MOST_TOKENS, count)
    assert response.divergence[0].kind == "h0"
    assert [token.kind for token in response.advantage[:2]] == ["n10", "h10"]


def test_one_outlier_does_not_pale_the_rest(make_run: MakeRun) -> None:
    folder = make_run()
    write(folder, 1, row(tokens=["x"] * 100, divergence=[1.0] * 99 + [1000.0]))
    found = heat(load_run(folder, "run"))
    assert found is not None
    assert found.top == 1.0
    assert {token.level for token in found.responses[0].divergence} == {LEVELS}


def test_a_line_that_is_being_written_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    write(folder, 1, row("whole"), row("torn"), end="")
    found = heat(load_run(folder, "run"))
    assert found is not None
    assert [r.key for r in found.responses] == ["whole"]


@pytest.mark.parametrize("bad", [row(divergence=[1.0]), row(advantage=[1.0]), {"key": "p#0"}, []])
def test_damage_is_one_sentence(make_run: MakeRun, bad: Any) -> None:
    folder = make_run()
    write(folder, 1, bad)
    with pytest.raises(ResdError, match=r"tokens/1.jsonl does not hold what it should"):
        heat(load_run(folder, "run"))


def test_levels() -> None:
    assert [level(value, 2.0) for value in (None, 0.0, 0.05, 1.0, 2.0, 50.0, -1.0)] == [
        0,
        0,
        0,
        5,
        10,
        10,
        -5,
    ]
    assert level(1.0, 0.0) == 0


def test_spaced() -> None:
    assert spaced([1, 2], 3) == [1, 2]
    assert spaced(list(range(101)), 3) == [0, 50, 100]
    assert spaced(list(range(10)), 4) == [0, 3, 6, 9]
