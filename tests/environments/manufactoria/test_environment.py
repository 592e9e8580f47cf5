"""Answers, verdicts, feedback and prompts."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.environments import load
from resd.environments.manufactoria import Manufactoria, extract_program, parse_program, solve_has
from resd.environments.manufactoria.families import SETS
from resd.environments.manufactoria.feedback import MAX_CHARACTERS
from resd.records import Problem, ResdError, Response

COMPACT = Manufactoria(prompt="compact")
FULL = Manufactoria(prompt="full")
BRBR = 378
REJECT_ALL = "START start:\n    NEXT NONE\nEND end"
ACCEPT_ALL = "START start:\n    NEXT end\nEND end"


def fenced(text, tag="manufactoria"):
    return f"Some words.\n```{tag}\n{text}\n```\nMore words."


def problem_of(environment, family, **params):
    everything = [*environment.problems("train"), *environment.problems("test")]
    return next(
        p
        for p in everything
        if p.metadata["family"] == f"contains_{family}" and p.metadata["params"] == params
    )


def test_problems():
    train = COMPACT.problems("train")
    assert COMPACT.name == "manufactoria_has"
    assert train[BRBR].id == "has/train/0378"
    assert train[BRBR].metadata["params"] == {"sequence": "BRBR"}
    assert load("manufactoria", family="has", prompt="compact") == COMPACT


def test_compact_questions():
    assert problem_of(COMPACT, "substring", sequence="RBY").question == "Accept tapes with RBY in a row."
    assert problem_of(COMPACT, "ordered", sequence="RBY").question == "Accept tapes with RBY in order."
    count = problem_of(COMPACT, "count", requirements=[["R", 2], ["B", 1]])
    assert count.question == "Accept tapes with at least 2 R and 1 B."


def test_compact_feedback():
    problem = COMPACT.problems("train")[BRBR]
    total = len(COMPACT.cases(problem))
    rejects = COMPACT.grade(problem, fenced(ACCEPT_ALL))
    assert rejects.feedback == (
        f"{total - rejects.passed} of {total} tapes fail.\n"
        "Tape (empty): want reject, got accept.\nTape R: want reject, got accept."
    )
    accepts = COMPACT.grade(problem, fenced(REJECT_ALL))
    assert accepts.feedback.splitlines()[1] == "Tape BRBR: want accept, got reject."
    assert accepts.passed + rejects.passed == total
    assert COMPACT.grade(problem, "no fence").feedback == "No program found."
    missing = COMPACT.grade(problem, fenced("START start:\n    NEXT end"))
    assert missing.feedback == "Parse error: no END node"
    undeclared = COMPACT.grade(problem, fenced("START start:\n    NEXT t1\nEND end"))
    assert undeclared.feedback == "Parse error: t1 is not declared"
    assert (undeclared.reward, undeclared.passed, undeclared.total) == (0.0, 0, total)
    assert undeclared.details["incorrect_format"]


def test_compact_feedback_names_the_tape_wanted():
    environment = Manufactoria(family="append_sequence", prompt="compact")
    problem = environment.problems("test")[0]
    wanted = problem.metadata["params"]["sequence"]
    lines = environment.grade(problem, fenced(ACCEPT_ALL)).feedback.splitlines()
    assert lines[1] == f"Tape (empty): want {wanted}, got (empty)."
    lines = environment.grade(problem, fenced(REJECT_ALL)).feedback.splitlines()
    assert lines[1] == f"Tape (empty): want {wanted}, got reject."


def test_rewards():
    pays = Manufactoria(prompt="compact", reward="pass_rate")
    train, test = pays.problems("train")[0], pays.problems("test")[0]
    verdict = pays.grade(train, fenced(REJECT_ALL))
    assert verdict.reward == verdict.pass_rate == verdict.passed / verdict.total > 0
    assert pays.grade(test, fenced(REJECT_ALL)).reward == 0.0
    assert COMPACT.grade(train, fenced(REJECT_ALL)).reward == 0.0
    assert COMPACT.grade(train, fenced(solve_has(train))).reward == 1.0


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        (fenced("A"), "A"),
        (fenced("A", tag=""), "A"),
        (fenced("A") + fenced("B"), "B"),
        (fenced("A", tag="python"), "python\nA"),
        ("```manufactoria A```", "A"),
        (f"<think>{fenced('A')}</think>{fenced('B')}", "B"),
        (f"{fenced('A')}</think>{fenced('B')}", "B"),
        (f"<think>{fenced('A')}", None),
        (f"<think>{fenced('A')}</think>nothing", None),
        ("```manufactoria\nA", None),
        ("", None),
    ],
)
def test_extraction(reply, program):
    found = extract_program(reply)
    assert (found and found.strip()) == program


def test_responses_are_graded_by_their_text():
    problem = COMPACT.problems("test")[3]
    response = Response("r", fenced(solve_has(problem)), (1,), (0.0,), "stop")
    assert COMPACT.grade(problem, response).solved


def test_full_feedback_says_the_verdict_first_and_the_path_last():
    problem = FULL.problems("train")[BRBR]
    text = (
        "START start:\n    NEXT a\nPULLER_RB a:\n    [B] a\n    [R] NONE\n    [EMPTY] b\n"
        "PULLER_YG b:\n    [Y] a\n    [G] END\nEND end"
    )
    title, *blocks = FULL.grade(problem, fenced(text)).feedback.split("\n\n")
    assert "tapes fail" in title
    assert len(blocks) == 2
    for block in blocks:
        lines = block.splitlines()
        assert "wanted accept, got reject" in lines[0]
        assert lines[1].startswith("Reason: a (PULLER_RB) sent the robot to NONE")
        assert lines[2].startswith("Final tape: ")
        assert lines[-1].startswith("Path (")
        assert lines[-1].endswith("-> a -> a -> NONE")
    assert "in line 1:" in FULL.grade(problem, fenced("START start\nEND end")).feedback
    assert "fenced block" in FULL.grade(problem, "START start:").feedback


def test_full_feedback_on_a_wrong_final_tape():
    environment = Manufactoria(family="append_sequence")
    problem = environment.problems("test")[0]
    block = environment.grade(problem, fenced(ACCEPT_ALL)).feedback.split("\n\n")[1]
    assert block.splitlines() == [
        "Tape (empty): wanted accept, got accept with the wrong final tape.",
        "Reason: the robot reached end.",
        f"Final tape: (empty). Expected tape: {problem.metadata['params']['sequence']}.",
        "Path (2 visits): start -> end",
    ]


def test_full_feedback_for_loops_and_unknown_nodes():
    problem = FULL.problems("train")[BRBR]
    loop = "START start:\n    NEXT a\nPULLER_RB a:\n    [EMPTY] a\n    [R] a\n    [B] a\nEND end"
    assert "within 1000 visits; the last was to a (PULLER_RB)" in FULL.grade(problem, fenced(loop)).feedback
    unknown = "START start:\n    NEXT END\nEND end"
    assert "no node has that name" in FULL.grade(problem, fenced(unknown)).feedback


def test_full_feedback_is_bounded_and_keeps_the_verdicts():
    environment = Manufactoria(family="append_sequence")
    problem = environment.problems("test")[0]
    names = ["n" * 4000 + str(i) for i in range(24)]
    chain = [line for a, b in pairwise(names) for line in (f"PAINTER_RED {a}:", f"    NEXT {b}")]
    text = "\n".join(
        [
            "START start:",
            f"    NEXT {names[0]}",
            *chain,
            f"PAINTER_RED {names[-1]}:",
            f"    NEXT {names[0]}",
            "END end",
        ]
    )
    assert parse_program(text).run("").reason == "limit"
    feedback = environment.grade(problem, fenced(text)).feedback
    assert len(feedback) <= MAX_CHARACTERS
    assert feedback.count("wanted accept, got reject") == 2


@pytest.mark.parametrize("family", SETS)
def test_full_prompts(family):
    environment = Manufactoria(family=family)
    problem = environment.problems("test")[0]
    assert "```manufactoria" in problem.question
    example = extract_program(problem.question)
    parse_program(example)
    graded = [environment.grade(p, fenced(example)) for p in environment.problems("test")]
    assert not any(verdict.solved for verdict in graded)


@pytest.mark.parametrize("options", [{"family": "hats"}, {"prompt": "long"}, {"reward": "sum"}])
def test_unknown_options(options):
    with pytest.raises(ResdError, match="is not known; choose one of"):
        Manufactoria(**options)


def test_unknown_split_and_foreign_problem():
    with pytest.raises(ResdError, match="train, test"):
        COMPACT.problems("dev")
    with pytest.raises(ResdError, match="no Manufactoria family"):
        COMPACT.grade(Problem("x", ({"role": "user", "content": "?"},)), "")


PIECES = [
    "```",
    "```manufactoria\n",
    ACCEPT_ALL,
    REJECT_ALL,
    "\n",
    "<think>",
    "</think>",
    "PULLER_RB a:\n",
    "    [R] a\n",
    "\x00",
    "é",
]


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)),
    st.sampled_from([COMPACT, FULL]),
)
def test_grading_never_raises(reply, environment):
    verdict = environment.grade(PROBLEM, reply)
    assert 0 <= verdict.passed <= verdict.total
    assert (verdict.feedback == "") == verdict.solved


PROBLEM = COMPACT.problems("train")[BRBR]


@pytest.mark.parametrize(
    "unit", ["```", "x", "\n", "PULLER_RB a:\n", "PULLER_RB a\n    [EMPTY] a\n", " ", "#"]
)
def test_huge_replies(unit):
    verdict = COMPACT.grade(PROBLEM, "```" + unit * (3_000_000 // len(unit)) + "```")
    assert verdict.reward == 0.0
    assert len(verdict.feedback) < 300
