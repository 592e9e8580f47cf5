"""Token values: which responses are shown, and how dark their tokens are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resd.records import ResdError
from resd.report.heat import LEVELS, MOST_RESPONSES, MOST_TOKENS, Heats, heats, level, spaced
from resd.report.runs import load_run, load_runs

MakeRun = Callable[..., Path]


def write(folder: Path, step: int, *rows: dict[str, Any], end: str = "\n") -> None:
    path = folder / f"tokens/{step}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + end)


def row(key: str = "p#0", **more: Any) -> dict[str, Any]:
    return {"key": key, "tokens": ["a", "\n", "b"], "divergence": [0.0, 1.0, 2.0], "text": "a\nb", **more}


def all_of(*folders: Path) -> Heats:
    found = heats(load_runs(folders))
    assert found is not None
    return found


def test_no_file_no_heat(make_run: MakeRun) -> None:
    assert heats([load_run(make_run(), "run")]) is None


def test_the_first_responses_of_a_few_updates(make_run: MakeRun) -> None:
    folder = make_run()
    for step in (1, 2, 3, 4, 9):  # the last is of no update that is in the metrics
        write(folder, step, *(row(f"p#{i}") for i in range(MOST_RESPONSES + 2)))
    (found,) = all_of(folder).runs
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
    (found,) = all_of(folder).runs
    (response,) = found.responses
    assert (len(response.divergence), response.total) == (MOST_TOKENS, count)
    assert response.divergence[0].kind == "h0"
    assert [token.kind for token in response.advantage[:2]] == ["n10", "h10"]


def test_one_outlier_does_not_pale_the_rest(make_run: MakeRun) -> None:
    folder = make_run()
    write(folder, 1, row(tokens=["x"] * 100, divergence=[1.0] * 99 + [1000.0]))
    found = all_of(folder)
    assert found.top == 1.0
    assert {token.level for token in found.runs[0].responses[0].divergence} == {LEVELS}


def test_colours_mean_the_same_in_all_runs(make_run: MakeRun) -> None:
    strong, weak = make_run("strong"), make_run("weak", algorithm="sdpo")
    write(strong, 1, row(advantage=[0.0, 0.0, 5.0]))
    write(weak, 1, row(divergence=[0.0, 0.1, 0.2]))
    found = all_of(strong, weak)
    assert (found.top, found.advantage_top) == (2.0, 5.0)
    assert [heat.quantile for heat in found.runs] == [2.0, 0.2]
    first, second = (heat.responses[0].divergence for heat in found.runs)
    assert [token.level for token in first] == [0, 5, LEVELS]
    assert [token.level for token in second] == [0, 0, 1]


def test_a_line_that_is_being_written_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    write(folder, 1, row("whole"), row("torn"), end="")
    (found,) = all_of(folder).runs
    assert [r.key for r in found.responses] == ["whole"]


@pytest.mark.parametrize("bad", [row(divergence=[1.0]), row(advantage=[1.0]), {"key": "p#0"}, []])
def test_damage_is_one_sentence(make_run: MakeRun, bad: Any) -> None:
    folder = make_run()
    write(folder, 1, bad)
    with pytest.raises(ResdError, match=r"tokens/1.jsonl does not hold what it should"):
        heats([load_run(folder, "run")])


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
