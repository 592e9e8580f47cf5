"""`resd data`: what it prints, and how it exits."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resd.cli import main
from resd.data.origins import TASKS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESD_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["data", *words])
    return capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["data", *words])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("resd: ")
    assert message.count("\n") == 1
    return message


def test_the_list_has_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    listed = said(capsys, "list")
    assert {line.split()[0] for line in listed.splitlines() if not line.startswith(" ")} == set(TASKS)
    assert said(capsys, "list", "finer").count("licence:") == 1


def test_prepare_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": f"What is {n} + 1?", "answer": str(n + 1), "split": "test"} for n in range(3)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    printed = said(capsys, "prepare", "math", "--source", "sums.jsonl")
    assert printed.splitlines()[:2] == ["math (math): 3 test", f"in: {tmp_path / 'home/math'}"]
    (tmp_path / "reply.txt").write_text(r"So \boxed{4}.")
    shown = said(
        capsys, "show", "math", "--index", "1", "--reply", "reply.txt", "--option", "reveal_answer=true"
    )
    sections = [line.rstrip(" ─") for line in shown.splitlines() if line.endswith("─")]
    assert sections == [
        "user",
        "a reply that solves it",
        "verdict on this reply",
        "verdict on an empty reply",
        "reply of reply.txt",
        "verdict on reply.txt",
    ]
    assert "What is 1 + 1?" in shown
    assert re.findall(r"reward (\S+), (\d) of (\d) tests passed", shown) == [
        ("1", "1", "1"),
        ("0", "0", "1"),
        ("0", "0", "1"),
    ]
    assert "4 is not the right answer" in shown
    for place in (["--path", "sums.jsonl"], ["--option", "path=sums.jsonl"]):
        assert "problem 2 of 3" in said(capsys, "show", "math", "--index", "2", *place)


def test_long_lines_are_not_broken_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "show", "manufactoria", "--option", "family=has")
    assert max(map(len, shown.splitlines())) > 150
    assert "reward 1, " in shown


def test_split_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"{n}?", "tests": {"inputs": ["1"] * n, "outputs": ["1"] * n}} for n in range(1, 11)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    printed = said(capsys, "split-tasks", "rows.json", "--test-ratio", "0.2", "--out", "tasks")
    assert printed == "8 rows to train and 2 to test on, in tasks\n"
    printed = said(capsys, "split-tests", "rows.json", "--out", "tests")
    assert printed == "9 tasks to train and 10 to test on, in tests; 1 tasks have too few tests to train on\n"


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "chess" in fails(capsys, "prepare", "chess")
    assert "manufactoria has problems 0 to 131 in split test" in fails(
        capsys, "show", "manufactoria", "--index", "500"
    )
    assert "key=value" in fails(capsys, "show", "manufactoria", "--option", "family")
    assert "is not YAML" in fails(capsys, "show", "manufactoria", "--option", "family=[")
    assert "cannot be read" in fails(capsys, "show", "manufactoria", "--reply", "nowhere.txt")
    said = fails(capsys, "show", "finer")
    assert "get the files of https://github.com/ace-agent/ace, folder finance/data" in said
    assert "run `resd data prepare finer --source FOLDER`" in said
    assert "; run `resd data prepare math`" in fails(capsys, "show", "math")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom resd.cli import main\nmain(['data', 'show', 'manufactoria'])\n"
        "print('heavy:', [m for m in ('torch', 'transformers', 'datasets', 'pyarrow') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
