"""Rows of every task from files, generators and a stand-in for the hub, checked and put in place."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import REPOSITORY
from resd import environments
from resd.config import load_config
from resd.data import ORIGINS, prepare
from resd.data.hub import load_part
from resd.data.origins import Part
from resd.data.sources import named_split
from resd.data.split import all_rows
from resd.environments.adapters import verl
from resd.environments.rows import read_rows
from resd.records import ResdError

SHARED = {
    ("manufactoria", "has"): ("manufactoria", {"train": 742, "test": 132}),
    ("bouncingsim", "medium"): ("bouncingsim/multiobj_medium.jsonl", {"train": 211, "test": 69}),
    ("finer", "finer"): ("finer", {"train": 441, "test": 500}),
    ("formula", "formula"): ("finer", {"test": 200}),
    ("multiple_choice", "sciknoweval"): ("sciknoweval", {"train": 2610, "test": 290}),
    ("code", "humaneval"): ("humaneval", {"test": 100}),
    ("tool_use", "tooluse"): ("tooluse", {"test": 68}),
    ("ifeval", "ifeval"): ("ifeval/test.parquet", {"test": 100}),
}
SUMS = [
    {"problem": f"What is {n} + 1?", "answer": f"{n + 1}", "split": split}
    for n, split in enumerate(["train", "train", "test"])
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESD_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("task", "set_"), SHARED)
def test_files_become_what_the_environment_reads(shared: Path, home: Path, task: str, set_: str) -> None:
    source, counts = SHARED[task, set_]
    prepared = prepare(task, set_=set_, source=str(shared / "data" / source))
    assert prepared.problems == counts
    options = {"level": "medium"} if task == "bouncingsim" else {}
    # What can be generated is read only where that is asked for.
    place = home / task if task in ("bouncingsim", "manufactoria") else None
    environment = environments.load(task, place, **options)
    given = shared / "data" / source
    # Whose name would make it a validation file in a folder.
    given = given / "HumanEval.jsonl" if task == "code" else given
    direct = environments.load(task, given, **options)
    for split, count in counts.items():
        found = environment.problems(split)
        assert len(found) == count
        assert [p.messages for p in found] == [p.messages for p in direct.problems(split)]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("has_test.jsonl", "test"),
        ("test6.jsonl", "test"),
        ("val-00000-of-00001.parquet", "validation"),
        ("HumanEval.jsonl", None),
        ("contested.jsonl", None),
        ("train_and_test.jsonl", None),
    ],
)
def test_the_split_that_a_name_says(name: str, split: str | None) -> None:
    assert named_split(Path(name)) == split


def test_a_science_alone(shared: Path) -> None:
    prepare("multiple_choice", source=str(shared / "data/sciknoweval"))
    assert len(environments.load("multiple_choice", domain="physics").problems("train")) == 720


def test_manufactoria_of_its_own_making(home: Path) -> None:
    prepared = prepare("manufactoria", options={"seed": 3})
    assert prepared.problems == {"train": 742, "test": 132}
    read = environments.load("manufactoria", path=home / "manufactoria", seed=9)
    made = environments.load("manufactoria", seed=3)
    for split in ("train", "test"):
        for one, other in zip(read.problems(split), made.problems(split), strict=True):
            assert read.tapes(one) == made.tapes(other)  # type: ignore[attr-defined]


def test_what_was_written_is_recorded(tmp_path: Path, home: Path) -> None:
    source = write(tmp_path / "sums.jsonl", SUMS)
    prepared = prepare("math", source=str(source), command="resd data prepare math")
    record = json.loads((home / "math/source.json").read_text())
    assert record["source"] == str(source)
    assert record["problems"] == {"train": 2, "test": 1}
    assert record["command"] == "resd data prepare math"
    assert record["origin"]["licence"].startswith("MIT")
    assert prepared.lines()[0] == "math (math): 2 train, 1 test"
    assert prepared.lines()[-1] == "use: 'environment={name: math}'"
    assert len(environments.load("math").problems("train")) == 2


def test_what_was_written_can_be_read_again(tmp_path: Path) -> None:
    """The record beside the rows is none of them."""
    rows = [{"question": f"{n}?", "options": ["1", "2"], "answer": "A"} for n in range(3)]
    source = str(write(tmp_path / "test.jsonl", rows))
    folder = prepare("multiple_choice", set_="mmlu_pro", source=source).folder
    assert all_rows(folder) == rows
    again = prepare("multiple_choice", set_="mmlu_pro", source=str(folder), out=tmp_path / "again")
    assert again.problems == {"test": 3}


def test_how_it_is_used(shared: Path, tmp_path: Path) -> None:
    """As an override, which reads what was written."""
    source = str(shared / "data/bouncingsim/multiobj_medium.jsonl")
    prepared = prepare("bouncingsim", set_="medium", source=source)
    override = prepared.lines()[-1].removeprefix("use: '").removesuffix("'")
    chosen = load_config(REPOSITORY / "examples/lab.yaml", [override]).environment
    assert len(environments.load(chosen.name, **chosen.options).problems("train")) == 211
    exported = prepare("bouncingsim", set_="medium", source=source, format_="trl", out=tmp_path / "out")
    assert "use: " not in "\n".join(exported.lines())


def test_a_folder_is_replaced_at_once_or_not_at_all(tmp_path: Path, home: Path) -> None:
    prepare("math", source=str(write(tmp_path / "one.jsonl", SUMS)))
    prepare("math", source=str(write(tmp_path / "two.jsonl", SUMS[1:])))
    assert len(environments.load("math").problems("train")) == 1
    bad = write(tmp_path / "bad.jsonl", [*SUMS, {"problem": "?", "answer": [], "split": "test"}])
    with pytest.raises(ResdError):
        prepare("math", source=str(bad))
    assert len(environments.load("math").problems("train")) == 1
    assert [path.name for path in home.iterdir()] == ["math"]  # nothing half done beside it


VERL = {
    "finer": ({"others": {"original_context": "CONTEXT"}}, "A,B", {"context": "CONTEXT", "target": "A,B"}),
    "tool_use": ({}, "[]", {"prompt": "Ask.", "answer": "[]"}),
    "math": ({"extra_info": {"question": "1 + 1?"}}, "2", {"problem": "1 + 1?", "answer": "2"}),
    "code": (
        {"extra_info": {"problem": "Add."}},
        '{"inputs": []}',
        {"prompt": "Add.", "tests": '{"inputs": []}'},
    ),
}


@pytest.mark.parametrize("task", VERL)
def test_columns_of_verl(task: str) -> None:
    from resd.data.convert import as_row

    more, truth, expected = VERL[task]
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Ask."}]
    row = {
        "data_source": "x",
        "prompt": prompt,
        "reward_model": {"style": "rule", "ground_truth": truth},
        **more,
    }
    assert as_row(task, row, "row") == expected


TRL = [
    ({"prompt": "1 + 1?", "solution": "2"}, {"problem": "1 + 1?", "answer": "2"}),
    (
        {
            "prompt": [{"role": "user", "content": "1 + 1?"}],
            "completion": [{"role": "assistant", "content": "2"}],
        },
        {"problem": "1 + 1?", "answer": "2"},
    ),
    ({"prompt": "1 + 1?", "answer": 2}, {"problem": "1 + 1?", "answer": "2"}),
    ({"problem": "1 + 1?", "solution": "2"}, {"problem": "1 + 1?", "solution": "2"}),
]


@pytest.mark.parametrize(("row", "expected"), TRL)
def test_columns_of_trl(row: dict[str, Any], expected: dict[str, Any]) -> None:
    from resd.data.convert import as_row

    assert as_row("math", row, "row") == expected


def test_the_trainers_parquet_of_a_task_that_reads_it(shared: Path) -> None:
    published = pq.read_table(shared / "data/ifeval/test.parquet").to_pylist()
    prepare("ifeval", source=str(shared / "data/ifeval"))
    problems = environments.load("ifeval").problems("test")
    assert [p.question for p in problems] == [row["prompt"][-1]["content"] for row in published]


def right_letter(solution_str: str, ground_truth: str) -> float:
    return float(f"<answer>{ground_truth}</answer>" == solution_str)


def test_parquet_for_verl(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/sciknoweval/physics"
    prepare("multiple_choice", source=str(source), out=tmp_path / "verl", format_="verl")
    assert sorted(f.name for f in (tmp_path / "verl").iterdir()) == [
        "source.json",
        "test.parquet",
        "train.parquet",
    ]
    rows = read_rows(tmp_path / "verl/test.parquet")
    columns = ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert [list(row) for row in rows] == [columns] * 80
    ours = environments.load("multiple_choice", path=source)
    theirs = verl(right_letter, tmp_path / "verl")
    for one, other in zip(ours.problems("test"), theirs.problems("test"), strict=True):
        assert one.messages == other.messages
        assert theirs.grade(other, ours.solution(one)).solved  # type: ignore[attr-defined]


def test_parquet_for_trl(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/finer"
    prepare("finer", source=str(source), out=tmp_path / "trl", format_="trl")
    ours = environments.load("finer", path=source)
    problems = ours.problems("test")
    rows = read_rows(tmp_path / "trl/test.parquet")
    assert [tuple(row["prompt"]) for row in rows] == [p.messages for p in problems]
    assert all(ours.grade(p, row["solution"]).solved for p, row in zip(problems, rows, strict=True))
    assert json.loads(rows[0]["metadata"])["target"] == list(problems[0].metadata["target"])


SCIENCE = [
    {
        "question": f"Is {n // 2} even?",
        "choices": {"label": ["A", "B"], "text": ["yes", "no"]},
        "answerKey": "AB"[n // 2 % 2],
        "domain": "Physics" if n % 3 else "Biology",
        "type": "mcq-2-choices" if n % 7 else "true_or_false",
        "details": {"level": "L3" if n % 5 else "L1"},
    }
    for n in range(200)
]
IFEVAL = [
    {
        "key": n,
        "prompt": f"Say {n} without commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    for n in range(541)
]


class Hub:
    """Stands in for the hub: what was asked for, and rows."""

    def __init__(self, *rows: list[dict[str, Any]]) -> None:
        self.rows = list(rows)
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, part: Part, revision: str | None) -> tuple[list[dict[str, Any]], str]:
        self.asked.append((part.repository, revision))
        return self.rows.pop(0), f"commit of {part.repository}"


def test_sciknoweval_from_the_hub(home: Path) -> None:
    hub = Hub(SCIENCE)
    prepared = prepare("multiple_choice", source="hub", revisions=["abc"], load=hub)
    assert hub.asked == [("hicai-zju/SciKnowEval", "abc")]
    chosen = [r for r in SCIENCE if r["type"] == "mcq-2-choices" and r["details"]["level"] == "L3"]
    assert sum(prepared.problems.values()) == len(chosen)
    record = json.loads((home / "multiple_choice/sciknoweval/source.json").read_text())
    assert record["revisions"] == {"hicai-zju/SciKnowEval": "commit of hicai-zju/SciKnowEval"}
    for science in ("physics", "biology"):
        environment = environments.load("multiple_choice", domain=science)
        questions = {split: {p.question for p in environment.problems(split)} for split in ("train", "test")}
        assert questions["train"]
        assert questions["test"]
        assert not questions["train"] & questions["test"]


CONTESTS = [
    {
        "question_title": "Negate",
        "question_content": f"Print -n, {date}.",
        "question_id": date,
        "contest_date": f"{date}T00:00:00",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1", "output": "-1", "testtype": "stdin"}]),
        "private_test_cases": json.dumps(
            [{"input": f"{n}", "output": f"-{n}", "testtype": "stdin"} for n in (2, 3)]
        ),
        "metadata": "{}",
    }
    for date in ("2025-01-31", "2025-02-01", "2025-04-30", "2025-05-01")
]


def test_livecodebench_from_the_hub(tmp_path: Path) -> None:
    assert prepare("code", load=Hub(CONTESTS)).problems == {"test": 2}
    problems = environments.load("code").problems("test")
    assert ["2025-02-01" in problems[0].question, "2025-04-30" in problems[1].question] == [True, True]
    prepare("code", load=Hub(CONTESTS), out=tmp_path / "verl", format_="verl")
    truth = json.loads(read_rows(tmp_path / "verl/test.parquet")[0]["reward_model"]["ground_truth"])
    assert (truth["inputs"], truth["outputs"]) == (["1", "2", "3"], ["-1", "-2", "-3"])
    assert (truth["testtype"], truth["time_limit"]) == ("stdin", 6.0)


def test_ifeval_from_the_hub() -> None:
    prepared = prepare("ifeval", load=Hub(IFEVAL))
    assert prepared.problems == {"train": 441, "test": 100}
    assert environments.load("ifeval").problems("test")[99].question == "Say 99 without commas."


def test_published_revisions_are_pinned(shared: Path) -> None:
    rows = [read_rows(shared / f"data/manufactoria/has_{split}.jsonl") for split in ("train", "test")]
    hub = Hub(*rows)
    prepare("manufactoria", source="hub", load=hub)
    assert [(name, str(commit)[:8]) for name, commit in hub.asked] == [
        ("manufactoria/has_train", "c4be8c17"),
        ("manufactoria/has_test", "13d4b794"),
    ]


def test_a_revision_for_each_of_several_repositories() -> None:
    hub = Hub([{"problem": "1?", "answer": "1"}], [{"problem": "2?", "answer": "2"}])
    prepare("math", revisions=["HuggingFaceH4/MATH-500=abc"], load=hub)
    assert hub.asked == [("DigitalLearningGmbH/MATH-lighteval", None), ("HuggingFaceH4/MATH-500", "abc")]


def test_every_set_says_where_it_is_from() -> None:
    assert len({(origin.task, origin.set) for origin in ORIGINS}) == len(ORIGINS)
    tasks = {origin.task for origin in ORIGINS}
    assert tasks == set(environments.KNOWN) - {"trl", "verl", "verifiers"}
    for origin in ORIGINS:
        assert origin.where
        assert origin.licence
        assert all(len(part.revision) == 40 for part in origin.parts if part.revision)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": "chess"}, "task 'chess' is not known; choose one of manufactoria"),
        ({"task": "math", "set_": "gsm8k"}, "math has no set 'gsm8k'"),
        ({"task": "finer"}, "get its files from https://github.com/ace-agent/ace"),
        ({"task": "finer", "source": "hub"}, "has no such source; choose PATH"),
        ({"task": "manufactoria", "source": "/no/such/file"}, "does not exist; give a file or folder"),
        ({"task": "manufactoria", "revisions": ["main"]}, "is for --source hub"),
        ({"task": "math", "revisions": ["abc"]}, "write DigitalLearningGmbH/MATH-lighteval=COMMIT"),
        ({"task": "ifeval", "revisions": ["a/b=abc"]}, "write google/IFEval=COMMIT"),
        ({"task": "manufactoria", "options": {"path": "x"}}, "--option path"),
        ({"task": "manufactoria", "format_": "csv"}, "choose one of rows, verl, trl"),
        ({"task": "manufactoria", "format_": "trl"}, "give their folder with --out DIR"),
        ({"task": "math", "source": "{tmp}/some.jsonl"}, "resd data split-tasks"),
        ({"task": "math", "source": "{tmp}/empty"}, "holds no file of a split"),
        ({"task": "math", "source": "{tmp}/empty.jsonl"}, "holds no"),
        ({"task": "math", "source": "{tmp}/foreign/train.jsonl"}, "row 0: its columns (colour) are neither"),
        ({"task": "math", "source": "{tmp}/odd/train.jsonl"}, "row 0: reward_model is not an object"),
        ({"task": "manufactoria", "source": "{tmp}/tapes/train.jsonl"}, "ground_truth is not JSON"),
        ({"task": "finer", "source": "{tmp}/finer_train.jsonl"}, "finer_train.jsonl: row finer/train/00000"),
        ({"task": "bouncingsim", "source": "{tmp}/foreign"}, "has no file multiobj_easy.jsonl"),
        ({"task": "math", "source": "{tmp}/sums.jsonl", "out": "{tmp}/foreign"}, "was not written by"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    write(tmp_path / "some.jsonl", [{"problem": "?", "answer": "1"}])
    write(tmp_path / "sums.jsonl", SUMS)
    write(tmp_path / "finer_train.jsonl", [{"prompt": "1 + 1 = ?", "answer": "2"}])
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "odd/train.jsonl", [{"prompt": "?", "reward_model": "rule"}])
    write(tmp_path / "tapes/train.jsonl", [{"prompt": "?", "reward_model": {"ground_truth": "RY"}}])
    (tmp_path / "empty").mkdir()
    write(tmp_path / "foreign/train.jsonl", [{"colour": "red"}])
    filled = {
        key: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    if "out" in filled:
        filled["out"] = Path(filled["out"])  # type: ignore[assignment]
    with pytest.raises(ResdError) as error:
        prepare(**filled)  # type: ignore[arg-type]
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked: list[tuple[Any, ...]] = []

    def dataset_info(self: Any, repository: str, revision: str | None) -> SimpleNamespace:
        asked.append((repository, revision))
        return SimpleNamespace(sha="f" * 40)

    def load_dataset(*place: str | None, **options: Any) -> list[dict[str, Any]]:
        asked.append((*place, options))
        return []

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_part(Part("a/b", "train", "train", config="c"), "main") == ([], "f" * 40)
    assert load_part(Part("a/b", "test", "test", files=("x.jsonl",)), None) == ([], "f" * 40)
    place = f"hf://datasets/a/b@{'f' * 40}/x.jsonl"
    assert asked == [
        ("a/b", "main"),
        ("a/b", "c", {"split": "train", "revision": "f" * 40}),
        ("a/b", None),
        ("json", {"data_files": [place], "split": "train"}),
    ]


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def dataset_info(self: Any, repository: str, revision: str | None) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(ResdError) as error:
        prepare("math")
    assert "fetch it elsewhere and give its files as --source PATH" in str(error.value)
    assert "no route" in str(error.value)
    assert "\n" not in str(error.value)
