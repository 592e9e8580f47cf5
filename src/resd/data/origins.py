"""Where the data of each task comes from, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass

from resd.environments.rows import ACE, TOOLUSE
from resd.records import ResdError

GENERATOR = "generator"
HUB = "hub"


@dataclass(frozen=True, slots=True)
class Part:
    """One split of a set on the hub, and where its rows go.

    `revision` is a commit, or None if no published work pins one: the fetched one is then recorded. `files`
    are read directly from the repository, for sets that the hub's own loader no longer reads.
    """

    repository: str
    split: str
    goes_to: str
    config: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """A set of a task. `formats` describes the rows that a path may contain, besides verl's and TRL's."""

    task: str
    set: str
    where: str
    licence: str
    formats: str
    parts: tuple[Part, ...] = ()
    generated: bool = False
    note: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The named values of `--source`, the default first; a path is always possible."""
        return (*([GENERATOR] if self.generated else []), *([HUB] if self.parts else []))


_SDPO = "https://github.com/lasgroup/SDPO, folder datasets"
_DELTA = "https://github.com/sunblaze-ucb/delta-code"
_GENERATED = "generated here; facts, free to use"
_SCIENCE = Part("hicai-zju/SciKnowEval", "test", "all")

ORIGINS = (
    Origin(
        "manufactoria",
        "has",
        f"own generator; the published rows: {_DELTA}, hub manufactoria/has_train and has_test",
        _GENERATED + "; the published rows name no licence",
        "problem_family, name, test_cases [{input, expected_accepted, ...}]",
        parts=(
            Part(
                "manufactoria/has_train",
                "train",
                "train",
                revision="c4be8c1715810b7e5afd68869e23cf04e9dca7d6",
            ),
            Part(
                "manufactoria/has_test",
                "train",
                "test",
                revision="13d4b794afe41f34ffed126c34faacf00c445349",
            ),
        ),
        generated=True,
        note="the environment makes the same problems without any data; only tapes differ from the hub's",
    ),
    *(
        Origin(
            "bouncingsim",
            level,
            f"own generator; the published scenes: {_DELTA}",
            _GENERATED,
            "id, split, difficulty, container, balls, timestamps, positions, tolerance",
            generated=True,
            note="the environment draws the same scenes without any data",
        )
        for level in ("easy", "medium")
    ),
    Origin(
        "finer",
        "finer",
        f"{ACE}; from nlpaueb/finer-139 by way of FinLoRA",
        "CC-BY-SA-4.0 (FiNER-139): name the source, share alike",
        "context, target",
        note="without the file of 1,000 training rows, the test file serves to train on",
    ),
    Origin("formula", "formula", ACE, "Apache-2.0 (ACE); OpenMDW-1.0 (FinLoRA)", "context, target"),
    Origin(
        "multiple_choice",
        "sciknoweval",
        "hub hicai-zju/SciKnowEval, level L3, by science",
        "MIT",
        "prompt with options A: ..., answer",
        parts=(_SCIENCE,),
        note=f"split 90/10 by question; for the papers' split give the files of {_SDPO}/sciknoweval",
    ),
    Origin(
        "multiple_choice",
        "gpqa",
        "hub Idavidrein/gpqa, gpqa_diamond",
        "CC-BY-4.0; its authors ask not to show the questions on the web",
        "Question, Correct Answer, Incorrect Answer 1 to 3",
        parts=(Part("Idavidrein/gpqa", "train", "test", config="gpqa_diamond"),),
        note="for testing only; the hub wants its terms accepted, and `hf auth login`",
    ),
    Origin(
        "multiple_choice",
        "mmlu_pro",
        "hub TIGER-Lab/MMLU-Pro",
        "MIT",
        "question, options, answer",
        parts=(
            Part("TIGER-Lab/MMLU-Pro", "validation", "validation"),
            Part("TIGER-Lab/MMLU-Pro", "test", "test"),
        ),
        note="for testing; to train on a share of it, use `resd data split-tasks`",
    ),
    Origin(
        "math",
        "math",
        "hub DigitalLearningGmbH/MATH-lighteval (train) and HuggingFaceH4/MATH-500 (test)",
        "MIT (MATH)",
        "problem, answer or solution",
        parts=(
            Part("DigitalLearningGmbH/MATH-lighteval", "train", "train", config="default"),
            Part("HuggingFaceH4/MATH-500", "test", "test"),
        ),
        note="the 7,500 training problems of MATH, and the 500 test problems of PRM800K",
    ),
    Origin(
        "tool_use",
        "tooluse",
        f"{TOOLUSE}; from ToolAlpaca",
        "Apache-2.0",
        "prompt, answer [{Action, Action_Input}]",
    ),
    Origin(
        "ifeval",
        "ifeval",
        "hub google/IFEval",
        "Apache-2.0",
        "prompt, instruction_id_list, kwargs",
        parts=(Part("google/IFEval", "train", "all"),),
        note="the first 100 prompts are for testing, as in RESD",
    ),
    Origin(
        "code",
        "livecodebench",
        "hub livecodebench/code_generation_lite, release v6, contests of 2025-02-01 to 2025-05-01",
        "MIT; problems belong to their contests' sites",
        "prompt, tests {inputs, outputs, testtype, fn_name, time_limit}; or the hub's columns",
        parts=(Part("livecodebench/code_generation_lite", "test", "test", files=("test6.jsonl",)),),
        note="one split, of all private tests; `resd data split-tests` makes the two of SDPO",
    ),
    Origin(
        "code",
        "humaneval",
        "hub openai/openai_humaneval",
        "MIT",
        "prompt, test, entry_point",
        parts=(Part("openai/openai_humaneval", "test", "test"),),
        note="for testing only",
    ),
)
TASKS = tuple(dict.fromkeys(origin.task for origin in ORIGINS))


def origins_of(task: str) -> tuple[Origin, ...]:
    """The sets of a task, the default first. Raises ResdError for an unknown task."""
    if found := tuple(origin for origin in ORIGINS if origin.task == task):
        return found
    raise ResdError(f"data: task {task!r} is not known; choose one of {', '.join(TASKS)}")


def find_origin(task: str, set_: str | None) -> Origin:
    """The set of that name, or the first. Raises ResdError for one that the task does not have."""
    sets = origins_of(task)
    for origin in sets:
        if set_ in (None, origin.set):
            return origin
    known = ", ".join(origin.set for origin in sets)
    raise ResdError(f"data: {task} has no set {set_!r}; choose one of {known}")
