"""Multiple choice: three kinds of rows, how letters are read, feedback."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments import load
from resd.environments.base import KnowsSolutions
from resd.environments.multiple_choice import MultipleChoice, read_letter
from resd.records import Problem, ResdError, Response

DATA = Path(__file__).resolve().parents[2] / "../shared/data/sciknoweval"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published rows are not here")

FOUR = {
    "prompt": "Which one?\n\nA: salt\nB: vitamin C\nC: D\nD: iron\nPlease reason step by step.",
    "answer": "B",
}
TWO = {"prompt": "True?\nReally?\n\nA: yes,\nfor sure\nB: no\nPlease reason step by step.", "answer": "A"}
MMLU_PRO = {"question": "Which?", "options": list("abcdefghij"), "answer": "I", "answer_index": 8}
GPQA = {"Question": "Why?", "Correct Answer": "right"} | {
    f"Incorrect Answer {i}": f"no {i}" for i in (1, 2, 3)
}
OPTIONS = ("salt", "vitamin C", "D", "iron")
PROBLEM = Problem("p", (), {"task": "multiple_choice", "options": OPTIONS, "target": "B"})


def written(folder, *rows):
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def problems(folder, *rows, **options):
    return load("multiple_choice", written(folder, *rows), **options).problems("train")


def grade(answer, **options):
    return MultipleChoice(**options).grade(PROBLEM, answer)


def test_rows_of_sciknoweval(tmp_path):
    four, two = problems(tmp_path, FOUR, TWO)
    assert four.question.startswith("Which one?\n\nA: salt\nB: vitamin C\nC: D\nD: iron\n\n")
    assert "A, B, C or D" in four.question
    assert "step by step" not in four.question
    assert four.metadata == {"task": "multiple_choice", "options": OPTIONS, "target": "B"}
    assert two.question.startswith("True?\nReally?\n\nA: yes,\nfor sure\nB: no\n\n")
    assert "your choice, A or B, and" in two.question
    assert two.id == "multiple_choice/train/00001"


def test_rows_of_mmlu_pro(tmp_path):
    index_only = {**{k: v for k, v in MMLU_PRO.items() if k != "answer"}, "answer_index": 0}
    ten, first = problems(tmp_path, MMLU_PRO, index_only)
    assert (ten.metadata["target"], first.metadata["target"]) == ("I", "A")
    assert "Which?\n\nA: a\nB: b\n" in ten.question
    assert "H, I or J" in ten.question


def test_rows_of_gpqa_are_shuffled_by_seed(tmp_path):
    def targets(**options):
        found = problems(tmp_path, *[GPQA] * 40, **options)
        for problem in found:
            options = problem.metadata["options"]
            assert sorted(options) == ["no 1", "no 2", "no 3", "right"]
            assert options["ABCD".index(problem.metadata["target"])] == "right"
        return [problem.metadata["target"] for problem in found]

    assert targets() == targets(seed=0) != targets(seed=1)
    assert set(Counter(targets())) == set("ABCD")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": 1}, "has the fields of no known set"),
        ({"prompt": "No options.", "answer": "A"}, "is not a question with options"),
        ({"prompt": "\n\nA: no\nB: question", "answer": "A"}, "is not a question with options"),
        ({**TWO, "answer": "C"}, "the answer 'C' is not one of its options A, B"),
        ({**TWO, "answer": None}, "'answer' contains no text"),
        ({**MMLU_PRO, "options": "abc"}, "is not a list of texts"),
        ({**MMLU_PRO, "options": ["a"]}, "has 1 options"),
        (
            {"question": "?", "options": ["a", "b"], "answer_index": 2},
            "'answer_index' 2 does not name an option",
        ),
        ({**GPQA, "Incorrect Answer 2": ""}, "'Incorrect Answer 2' contains no text"),
    ],
)
def test_rows_that_are_none(tmp_path, row, words):
    with pytest.raises(ResdError) as error:
        problems(tmp_path, TWO, row)
    assert words in str(error.value)
    assert "multiple_choice/train/00001" in str(error.value)


def test_domain(tmp_path):
    for domain in ("physics", "chemistry"):
        written(tmp_path / domain, FOUR)
    assert len(load("multiple_choice", tmp_path).problems("train")) == 2
    physics = load("multiple_choice", tmp_path, domain="physics")
    assert physics.name == "multiple_choice_physics"
    assert [problem.id for problem in physics.problems("train")] == ["multiple_choice/physics/train/00000"]
    with pytest.raises(ResdError, match="no folder 'biology' has rows of split train"):
        load("multiple_choice", tmp_path, domain="biology").problems("train")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *[(answer, "B") for answer in ("B", "b", "B.", "(B)", " B ", "**B**", "[b]", "B)", "_B_", "(B).")],
        *[(answer, "B") for answer in ("B: vitamin C", "B. Vitamin c", "(b) some other words", "B) see B.")],
        ("C: D", "C"),
        ("D.", "D"),
        *[
            (answer, None)
            for answer in ("", "E", "AB", "A, B", "A. or B.", "A duck", "salt", "éB", "\u017f", "1")
        ],
        ("A: salt, or B: vitamin C", None),
    ],
)
def test_letters(answer, letter):
    assert read_letter(answer, OPTIONS) == letter


def test_the_published_rule():
    """Nothing but the letter counts, and without an element the whole reply is the answer."""
    right = ["<answer>B</answer>", "<answer>\nB\n</answer>", "B", "<answer>A</answer><answer>B", "<answer>B"]
    assert all(grade(reply, strict=True).solved for reply in right)
    for answer in ("B.", "b", "(B)", "B: vitamin C", "BC", ""):
        verdict = grade(f"<answer>{answer}</answer>", strict=True)
        assert (verdict.reward, verdict.details["incorrect_format"]) == (0.0, True)
    assert not grade("<answer>A</answer>", strict=True).details["incorrect_format"]
    assert [grade(reply).solved for reply in right] == [True, True, False, False, False]


def test_feedback():
    assert grade("<answer>b</answer>").feedback == ""
    wrong = grade("<answer>(c)</answer>")
    assert wrong.feedback == "Wrong: C (D) is not the right option. The right option is B (vitamin C)."
    assert wrong.details == {"incorrect_format": False, "truncated": False, "answer": "C"}
    hidden = grade("<answer>(c)</answer>", reveal_answer=False).feedback
    assert hidden == "Wrong: C (D) is not the right option."
    form = "Give the letter of your choice, A, B, C or D, and nothing else, as <answer>letter</answer>."
    unread = grade(f"<answer>{'salt' * 99}</answer>").feedback
    assert unread.startswith('Wrong: "saltsalt')
    assert unread.endswith(f'..." is not the letter of one option. {form}')
    assert len(unread) < 300
    assert grade("B").feedback == f"No answer: the reply has no <answer>. {form}"
    cut = grade(Response("r", "<answer>B", (), (), "length"))
    assert cut.feedback.startswith("No answer: the reply was cut off")
    assert cut.details == {"incorrect_format": True, "truncated": True, "answer": None}


@needs_data
@pytest.mark.parametrize(
    ("domain", "split", "rows"),
    [
        ("chemistry", "train", 1890),
        ("chemistry", "test", 210),
        ("physics", "train", 720),
        ("physics", "test", 80),
    ],
)
def test_published_rows(domain, split, rows):
    environment = load("multiple_choice", DATA, domain=domain)
    found = environment.problems(split)
    assert len(found) == rows
    assert isinstance(environment, KnowsSolutions)
    published = [json.loads(line) for line in (DATA / domain / f"{split}.json").read_text().splitlines()]
    for problem, row in zip(found, published, strict=True):
        assert problem.question.startswith(row["prompt"].removesuffix("\nPlease reason step by step."))
        assert len(problem.metadata["options"]) == 4
        for strict in (True, False):
            verdict = MultipleChoice(strict=strict).grade(problem, environment.solution(problem))
            assert (verdict.reward, verdict.feedback, verdict.details["answer"]) == (1.0, "", row["answer"])


@given(st.lists(st.one_of(st.sampled_from(["<answer>", "</answer>", "<think>", "B", ": "]), st.text())))
def test_no_text_is_too_much(parts):
    for strict in (True, False):
        verdict = grade("".join(parts), strict=strict)
        assert (verdict.feedback == "") == verdict.solved == (verdict.reward == 1)


@given(st.text())
def test_letters_of_any_text(answer):
    assert read_letter(answer, OPTIONS) in (None, *"ABCD")
