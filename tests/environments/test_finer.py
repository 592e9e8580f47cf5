"""FiNER: rows, the published score, feedback."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments import load
from resd.environments.answers import unanswered
from resd.environments.base import KnowsSolutions
from resd.environments.finer import FiNER
from resd.records import Problem, ResdError, Response

DATA = Path(__file__).resolve().parents[2] / "../shared/data/finer"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published rows are not here")

TAGS = ["Goodwill", "SharePrice", "LineOfCredit", "Depreciation", "LongTermDebtFairValue"]
ASKED = [
    ("12", "Goodwill was $ 12 million in 2012 .", "Goodwill"),
    ("3.5", 'A "unit" sold for 3.5 dollars .', "SharePrice"),
    ("40", "The facility allows for 40 million .", "LineOfCredit"),
    ("12", "It was 12 .", "Depreciation"),
]


def finer_row(asked=ASKED, tags=TAGS):
    questions = "".join(
        f'\n{i}. What is best tag for entity "{entity}" in sentence: "{sentence}?"'
        for i, (entity, sentence, _) in enumerate(asked, start=1)
    )
    context = f"Some options: ,{','.join(tags)}. Answer the following.{questions}\nOutput US GAAP tags:"
    return {"context": context, "target": ",".join(tag for *_, tag in asked)}


def written(folder, *rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return load("finer", written(tmp_path_factory.mktemp("finer"), finer_row())).problems("test")[0]


def said(*tags):
    return f"Some thoughts. <answer>{', '.join(tags)}</answer>"


def cut_off(text):
    return Response("r", text, (), (), "length")


def reference_score(reply, target):
    """The published rule: thoughts off, last answer, split at commas, lower case, strip, cut or pad."""
    reply = re.sub("<think>.*?</think>", "", reply, flags=re.DOTALL).split("</think>")[-1]
    answers = [part.split("</answer>")[0] for part in reply.split("<answer>")[1:] if "</answer>" in part]
    if not answers:
        return 0.0
    found = [tag.lower().strip() for tag in answers[-1].split(",")]
    found = (found + [""] * len(target))[: len(target)]
    return sum(a == b.lower().strip() for a, b in zip(found, target, strict=True)) / len(target)


def synthetic(rng, target):
    """One answer such as models write, right and wrong in many ways."""
    tags = [rng.choice([tag, tag, tag, rng.choice(TAGS), tag.upper(), "", f"1. {tag}"]) for tag in target]
    if rng.random() < 0.3:
        tags = tags[: rng.randrange(5)] if rng.random() < 0.5 else [*tags, rng.choice(TAGS)]
    answer = rng.choice([", ", ",", ",\n", " ,\t", "; "]).join(tags)
    return rng.choice(
        [
            "<answer>{}</answer>",
            "<think>So <answer>Goodwill</answer>?</think>\n<answer>\n{}\n</answer>",
            "Goodwill first.</think><answer>{}</answer> Done.",
            "<answer>Goodwill, Goodwill</answer> No: <answer>{}</answer>",
            "<answer>Depreciation <answer>{}</answer></answer>",
            "<answer>{}</answer> and <answer>never closed",
            "{}",
            "<answer>{}",
            "</answer>{}<answer>",
        ]
    ).format(answer)


def test_score_is_the_published_one(problem):
    rng = random.Random(0)
    environment, target = FiNER(), problem.metadata["target"]
    replies = [synthetic(rng, target) for _ in range(1000)]
    wanted = [reference_score(reply, target) for reply in replies]
    assert [environment.grade(problem, reply).reward for reply in replies] == wanted
    assert set(wanted) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_answers_in_thoughts_do_not_count(problem):
    """Two wanted differences: a thought that never ends, and one after the answer."""
    right = FiNER().solution(problem)
    for reply in (f"<think>Perhaps {right}", f"{right}<think>Or not.</think>"):
        assert reference_score(reply, problem.metadata["target"]) == 1
        assert FiNER().grade(problem, reply).reward == 0


def test_row_to_problem(problem):
    assert problem.id == "finer/rows/00000"
    assert problem.metadata["entities"] == ("12", "3.5", "40", "12")
    assert problem.metadata["sentences"][1] == 'A "unit" sold for 3.5 dollars .'
    assert problem.metadata["options"] == tuple(TAGS)
    assert '2. "3.5" in: A "unit" sold for 3.5 dollars .\n' in problem.question
    assert "<answer>tag 1, tag 2, tag 3, tag 4</answer>" in problem.question


def test_feedback_names_wrong_positions(problem):
    verdict = FiNER().grade(problem, said("goodwill", "Price", "LineOfCredit", "SharePrice"))
    assert (verdict.reward, verdict.passed, verdict.total) == (0.5, 2, 4)
    assert verdict.feedback == (
        "2 of 4 tags are right. Wrong: 2, 4.\n"
        '2. "3.5" in "A "unit" sold for 3.5 dollars .": Price is none of the tags to choose from; '
        "the right tag is SharePrice.\n"
        '4. "12" in "It was 12 .": SharePrice is wrong; the right tag is Depreciation.'
    )
    assert verdict.details == {
        "incorrect_format": False,
        "truncated": False,
        "answer": "goodwill, Price, LineOfCredit, SharePrice",
    }


def test_feedback_can_keep_the_answer_back(problem):
    feedback = FiNER(reveal_answer=False).grade(problem, said("Goodwill", "Goodwill")).feedback
    assert feedback.splitlines()[:2] == [
        "1 of 4 tags are right. Wrong: 2, 3, 4.",
        "Wrong count: the answer, split at its commas, has 2 and not 4 tags.",
    ]
    assert "no tag is given" in feedback
    assert not any(tag in feedback for tag in ("SharePrice", "LineOfCredit", "Depreciation"))


def test_feedback_has_a_line_for_each_position(problem):
    """Lists with numbers and line breaks, and no list at all."""
    lines = FiNER().grade(problem, "<answer>1. Goodwill\n2. SharePrice</answer>").feedback.splitlines()
    assert [line[:2] for line in lines[2:]] == ["1.", "2.", "3.", "4."]
    assert "1. Goodwill 2. SharePrice is none of the tags" in lines[2]
    assert FiNER().grade(problem, "<answer> </answer>").feedback.splitlines()[1] == (
        "Wrong count: the answer, split at its commas, has 0 and not 4 tags."
    )


def test_all_or_nothing(problem):
    environment = FiNER(reward="all_or_nothing")
    verdict = environment.grade(problem, said("Goodwill", "Goodwill", "LineOfCredit", "Depreciation"))
    assert (verdict.reward, verdict.passed) == (0.0, 3)
    assert environment.grade(problem, environment.solution(problem)).reward == 1.0


def test_why_there_is_no_answer(problem):
    def grade(reply):
        verdict = FiNER().grade(problem, reply)
        assert (verdict.reward, verdict.passed, verdict.total) == (0.0, 0, 4)
        assert verdict.details["incorrect_format"]
        assert verdict.feedback.endswith("with commas between them.")
        return verdict.feedback.split(".")[0]

    replies = ["Goodwill", "<think>a</think>b", "<answer>Goodwill", "<think><answer>a</answer>"]
    sentences = [grade(reply) for reply in replies] + [grade(cut_off(reply)) for reply in replies[2:]]
    assert sentences == [
        "No answer: the reply has no <answer>",
        "No answer: after the thinking there is no <answer>",
        "No answer: <answer> was opened and never closed",
        "No answer: the thought never ended; what is written inside it does not count",
        "No answer: the reply was cut off at the length limit before its answer was complete",
        "No answer: the length limit came before the thought ended; what is written inside it does not count",
    ]
    assert unanswered(cut_off("x"), 1, "form").details["truncated"]


def test_feedback_is_bounded(problem):
    long = FiNER().grade(problem, said(*["x" * 9000] * 9))
    assert len(long.feedback) < 3000
    assert len(long.details["answer"]) == 500


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"context": "Hello", "target": "Goodwill"}, "is not a FiNER question"),
        ({"context": 3, "target": "Goodwill"}, "'context' contains no text"),
        ({**finer_row(), "target": "Goodwill,Goodwill"}, "4 questions and 2 tags"),
        ({**finer_row(), "target": "Goodwill,Goodwill,Goodwill,Cash"}, "'Cash' of 'target' is not one of"),
    ],
)
def test_rows_that_are_none(tmp_path, row, words):
    environment = FiNER(path=written(tmp_path, finer_row(), row))
    with pytest.raises(ResdError) as error:
        environment.problems("train")
    assert words in str(error.value)
    assert "finer/rows/00001" in str(error.value)


def test_mistakes():
    with pytest.raises(ResdError, match="reward 'some' is not known; choose one of pass_rate"):
        load("finer", reward="some")
    with pytest.raises(ResdError, match="does not belong to finer"):
        FiNER().grade(Problem("p", (), {"task": "formula"}), "")


@needs_data
@pytest.mark.parametrize(("split", "rows"), [("train", 441), ("test", 500)])
def test_published_rows(split, rows):
    environment = load("finer", DATA)
    problems = environment.problems(split)
    assert len(problems) == rows
    assert isinstance(environment, KnowsSolutions)
    for problem in problems:
        verdict = environment.grade(problem, environment.solution(problem))
        assert (verdict.reward, verdict.feedback) == (1.0, "")
        assert verdict.solved


@needs_data
def test_published_finer_questions():
    problems = [p for split in ("train", "test") for p in load("finer", DATA).problems(split)]
    for problem in problems:
        assert len(set(problem.metadata["options"])) == 139
        assert len(problem.metadata["target"]) == 4
        pairs = zip(problem.metadata["entities"], problem.metadata["sentences"], strict=True)
        assert all(entity in sentence for entity, sentence in pairs)
    (outlier,) = [p for p in problems if len(p.question) > 12_000]
    assert outlier.id == "finer/finer_val_batched_500_samples/00160"


PARTS = ["<answer>", "</answer>", "<think>", "</think>", ",", "Goodwill", "1.", "\n", "\0"]


@given(st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=5))).map("".join))
def test_no_text_is_too_much(problem, reply):
    verdict = FiNER().grade(problem, reply)
    assert 0 <= verdict.passed <= verdict.total
    assert (verdict.feedback == "") == verdict.solved
    json.dumps(verdict.details)
