"""`resd solve` from the outside."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import toy
from resd.cli import main
from resd.records import Attempt, Problem, Response, Verdict
from resd.solve.commands import round_line
from resd.solve.effort import Effort
from resd.solve.work import Round
from support import save_tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("solve")
    data = toy.toy_config(save_tiny(folder / "model"), folder / "unused").model_dump(mode="json")
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run(*words: object) -> int:
    """The exit status."""
    with toy.in_place():
        try:
            main(["solve", *map(str, words)])
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(path)]


def test_rounds_then_the_solution_and_a_trace(config: Path, tmp_path: Path, capsys: Any) -> None:
    trace = tmp_path / "trace.jsonl"
    words = [config, "--problem", "1", "--split", "train", "--budget", "400", "--batch", "8"]
    assert run(*words, "--output", trace) == 0
    *attempts, summary = rows(trace)
    assert {row["kind"] for row in attempts} == {"attempt"}
    solution = next(row for row in attempts if row["reward"] == 1)
    assert summary["kind"] == "summary"
    assert (summary["solved"], summary["first"]) == (True, solution["attempt"])
    assert (summary["attempts"], summary["problem"]) == (len(attempts), "train/t")
    said = capsys.readouterr().out
    assert said.startswith("self_distill on train/t: Write t.\nround   1  attempts   8/400  tests ")
    assert said.count("round") == summary["rounds"]
    assert f"solved by attempt {summary['first']}: {summary['attempts']} attempts" in said
    assert solution["text"] in said
    first = without_seconds(trace)
    assert run(*words, "--output", trace) == 2, "a trace is not written over"
    assert without_seconds(trace) == first
    trace.unlink()
    assert run(*words, "--output", trace) == 0
    assert without_seconds(trace) == first, "the same seed gives the same trace, bit for bit"
    trace.unlink()
    assert run(*words, "--output", trace, "--seed", "1") == 0
    assert without_seconds(trace) != first


@pytest.mark.parametrize("method", ["best_of", "multi_turn"])
def test_several_problems_one_unsolved(config: Path, tmp_path: Path, capsys: Any, method: str) -> None:
    trace = tmp_path / "trace.jsonl"
    words = [
        "--split",
        "train",
        "--problem",
        "train/e",
        "--problem",
        "2",
        "--method",
        method,
        "--budget",
        "2",
    ]
    assert run(config, *words, "--output", trace) == 1
    summaries = [row for row in rows(trace) if row["kind"] == "summary"]
    assert [row["problem"] for row in summaries] == ["train/e", "train/a"]
    assert "not solved: 2 attempts" in capsys.readouterr().out


def test_the_best_so_far_stays_in_sight() -> None:
    def made(number: int, passed: int) -> Round:
        response = Response("r", "x", (1, 2), (0.0, 0.0), "stop")
        verdict = Verdict(0.0, passed, 10, "No.")
        return Round(number, number, [Attempt(Problem("p", (), {}), 0, (), response, verdict)], 3, 1.0)

    effort = Effort("multi_turn", budget=8)
    assert round_line([made(1, 4), made(2, 1)], effort) == (
        "round 2  attempts 2/8  tests 0.100  best 0.400  tokens       5  1.0 s"
    )


def test_attempts_alone_take_the_configuration_of_any_algorithm(config: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    words = ["--problem", "0", "--method", "multi_turn", "--memory", "dialogue", "--budget", "3"]
    assert run(config, *words, "--output", trace, "algorithm=grpo", "rollout.n=8") in (0, 1)
    assert [row["kind"] for row in rows(trace)][-1] == "summary"
    assert [row["round"] for row in rows(trace)[:-1]] == list(range(1, len(rows(trace))))


def test_mistakes(config: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    def says(*words: object) -> str:
        assert run(config, *words) == 2
        return str(capsys.readouterr().err)

    assert "--problem 9: split test of letters has 3 problems, test/h to test/d" in says("--problem", "9")
    assert "split 'dev'" in says("--problem", "0", "--split", "dev")
    assert "leave --batch out" in says("--problem", "0", "--method", "multi_turn", "--batch", "4")
    assert "algorithm grpo" in says("--problem", "0", "algorithm=grpo")
    assert "cannot be written" in says("--problem", "0", "--output", tmp_path / "no/trace.jsonl")
    assert "cannot be written" in says("--problem", "0", "--output", tmp_path)
    assert "no such folder" in says("--problem", "0", "model=/no/such/folder")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in says("--problem", "0")


def test_an_unknown_problem_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    data = {
        "model": str(tmp_path),
        "environment": {"name": "manufactoria", "options": {"family": "has", "prompt": "compact"}},
        "context": {"style": "compact"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    code = (
        "import sys\nfrom resd.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    words = ["solve", str(tmp_path / "run.yaml"), "--problem", "has/test/0132"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "resd: --problem has/test/0132: split test of manufactoria_has has 132 problems, has/test/0000 to "
        "has/test/0131; give one of their ids, or an index from 0 to 131\n"
    )
    assert done.stdout == "[]\n"
