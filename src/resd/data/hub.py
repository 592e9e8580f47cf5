"""Data sets from the hub, as rows that the environments read.

Revisions are pinned if published work pins one, or else by `--revision`. Either way the fetched commit is
recorded in source.json. Nothing from the hub is executed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from resd.data.origins import Origin, Part
from resd.data.split import by_question
from resd.environments.rows import Row
from resd.records import ResdError

Files = dict[str, list[Row]]  # rows by the file they go to, without its suffix
Load = Callable[[Part, str | None], tuple[Iterable[Row], str]]

_SEED = 42
_HELD_OUT = 0.1
_IFEVAL_TEST = 100
_LCB_FROM, _LCB_TO = "2025-02-01", "2025-05-01"


def fetch(
    origin: Origin, revisions: Sequence[str] = (), load: Load | None = None
) -> tuple[Files, dict[str, str]]:
    """(rows by file, commit by repository). `load` returns the rows of a part and their commit.

    `revisions` are as on the command line: a commit, or repository=commit if a set has several.

    Raises ResdError, saying what to do instead, if the hub cannot be reached.
    """
    load = load or load_part
    rows: Files = defaultdict(list)
    commits: dict[str, str] = {}
    chosen = _chosen(origin, revisions)
    for part in origin.parts:
        found, commits[part.repository] = load(part, chosen.get(part.repository) or part.revision)
        rows[part.goes_to] += found
    shape = _SHAPES.get(origin.set)
    return (shape(rows) if shape else dict(rows)), commits


def _chosen(origin: Origin, revisions: Sequence[str]) -> dict[str, str]:
    """Revision by repository."""
    names = list(dict.fromkeys(part.repository for part in origin.parts))
    pairs = [revision.rpartition("=")[::2] for revision in revisions]
    found = {(name or names[0]): commit for name, commit in pairs}
    if not found.keys() <= set(names) or (len(names) > 1 and any(not name for name, _ in pairs)):
        raise ResdError(
            f"--revision {' '.join(revisions)}: {origin.task} is read from {', '.join(names)}; write "
            f"{names[0]}=COMMIT"
        )
    return found


def load_part(part: Part, revision: str | None) -> tuple[Iterable[Row], str]:
    """Load rows and commit with the library `datasets`. Raises ResdError for any failure."""
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ResdError(
            f"{part.repository}: the hub is read with the library datasets; pip install 'resd[tasks]'"
        ) from error
    try:
        commit = str(HfApi().dataset_info(part.repository, revision=revision).sha)
        if part.files:
            places = [f"hf://datasets/{part.repository}@{commit}/{file}" for file in part.files]
            return datasets.load_dataset("json", data_files=places, split="train"), commit
        return datasets.load_dataset(part.repository, part.config, split=part.split, revision=commit), commit
    except Exception as error:  # of a dozen libraries
        said = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ResdError(
            f"{part.repository}: cannot be fetched from the hub ({said:.300}); fetch it elsewhere and give "
            "its files as --source PATH"
        ) from error


def _sciknoweval(files: Files) -> Files:
    """Multiple choice of level L3, each science in a folder of its own."""
    sciences: Files = defaultdict(list)
    for row in files["all"]:
        if row["details"]["level"] == "L3" and str(row["type"]).startswith("mcq"):
            sciences[str(row["domain"]).lower()].append(row)
    shaped: Files = {}
    for science, rows in sorted(sciences.items()):
        train, test = by_question(rows, _HELD_OUT, _SEED)
        shaped[f"{science}/train"] = [_science_row(row) for row in train]
        shaped[f"{science}/test"] = [_science_row(row) for row in test]
    return shaped


def _science_row(row: Row) -> Row:
    options = "\n".join(
        f"{label}: {text}"
        for label, text in zip(row["choices"]["label"], row["choices"]["text"], strict=True)
    )
    return {"dataset": "sciknoweval", "prompt": f"{row['question']}\n\n{options}", "answer": row["answerKey"]}


def _ifeval(files: Files) -> Files:
    return {"test": files["all"][:_IFEVAL_TEST], "train": files["all"][_IFEVAL_TEST:]}


def _livecodebench(files: Files) -> Files:
    """Problems of the contests that SDPO uses. Their tests stay packed: the environment reads them."""
    dates = [str(row["contest_date"])[:10] for row in files["test"]]
    chosen = zip(files["test"], dates, strict=True)
    return {"test": [{**row, "contest_date": date} for row, date in chosen if _LCB_FROM <= date < _LCB_TO]}


_SHAPES: dict[str, Callable[[Files], Files]] = {
    "sciknoweval": _sciknoweval,
    "ifeval": _ifeval,
    "livecodebench": _livecodebench,
}
