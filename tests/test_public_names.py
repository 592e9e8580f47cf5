"""The names that others build on, used from the outside as documentation promises them."""

import json
from pathlib import Path

import pytest
import torch

import toy
from resd import environments
from resd.context.playbook import Entry, Playbook
from resd.environments.manufactoria import Outcome, Program, ProgramError, parse_program
from resd.objectives.divergence import token_divergence
from resd.objectives.weighting import success_rate_weights
from resd.records import Problem, Response, Verdict
from support import save_tiny

ACCEPTS_R = """START start:
    NEXT p
PULLER_RB p:
    [R] end
    [EMPTY] NONE
END end
"""
FAMILIES = (
    "has",
    "starts_with",
    "ends_with",
    "contains_substring",
    "contains_ordered",
    "contains_count",
    "exact_sequence",
    "append_sequence",
    "prepend_sequence",
    "numerical_comparison",
    "numerical_operations",
    "numerical_max_min",
    "regex_pattern",
    "regex_same_num",
)


def test_a_program_runs_on_a_tape() -> None:
    program = parse_program(ACCEPTS_R)
    assert isinstance(program, Program)
    accepted = program.run("RB")
    assert isinstance(accepted, Outcome)
    assert (accepted.accepted, accepted.tape, accepted.visits, accepted.reason) == (True, "B", 3, None)
    assert program.run("B").reason == "none"
    assert not program.run("").accepted


def test_runs_end_for_a_reason() -> None:
    loop = parse_program("START start:\n    NEXT a\nPAINTER_RED a:\n    NEXT a\nEND end\n")
    assert (loop.run("").accepted, loop.run("").reason, loop.run("").visits) == (False, "limit", 1000)
    upper_case = parse_program("START start:\n    NEXT END\nEND end\n").run("R")
    assert (upper_case.accepted, upper_case.reason) == (False, "unknown_node")
    with pytest.raises(ProgramError) as caught:
        parse_program("START start:\n    NEXT nowhere\nEND end\n")
    assert caught.value.line is None or caught.value.line >= 1


@pytest.mark.parametrize("text", ["", "hello", "START start:\n    NEXT\n"])
def test_what_is_no_program_says_so(text: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    assert caught.value.line is None or isinstance(caught.value.line, int)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_problems(family: str) -> None:
    environment = environments.load("manufactoria", family=family)
    problems = [*environment.problems("train"), *environment.problems("test")]
    assert problems
    assert len({problem.id for problem in problems}) == len(problems)
    for problem in problems[:3]:
        assert isinstance(problem, Problem)
        assert problem.messages[-1]["role"] == "user"
        assert problem.metadata["params"]


def test_has_keeps_its_published_order_and_grades() -> None:
    environment = environments.load("manufactoria", family="has")
    train, test = environment.problems("train"), environment.problems("test")
    assert [p.id for p in environment.problems("train")] == [p.id for p in train]
    assert (len(train), len(test)) == (742, 132)
    problem = train[0]
    for reply in ("no program", "", "```\nnonsense\n```"):
        verdict = environment.grade(problem, reply)
        assert isinstance(verdict, Verdict)
        assert (verdict.reward, verdict.passed) == (0.0, 0)
        assert verdict.total > 0
        assert verdict.feedback
    text = f"```manufactoria\n{ACCEPTS_R}```"
    response = Response("r", text, (1,), (0.0,), "stop")
    verdict = environment.grade(problem, response)
    assert verdict == environment.grade(problem, text)
    assert (verdict.feedback == "") == (verdict.passed == verdict.total)
    assert isinstance(dict(verdict.details), dict)


def test_token_divergence_of_one_pair() -> None:
    student, teacher = torch.tensor([[2.0, 1, 0, -1]]), torch.tensor([[1.0, 2, -1, 0]])
    p, q = student.double().softmax(-1), teacher.double().softmax(-1)
    expected = (p * (p / q).log()).sum(-1).float()
    torch.testing.assert_close(token_divergence(student, teacher, alpha=1.0), expected)
    every = token_divergence(
        student,
        teacher,
        alpha=0.5,
        topk=2,
        add_tail=True,
        selector="student",
        min_ratio=0.2,
        max_ratio=None,
    )
    assert every.shape == (1,)


def test_success_rate_weights_of_one_batch() -> None:
    weights = success_rate_weights(torch.tensor([1.0, 0.0, 0.0, 0.0]), alpha=1.0, beta=1.0)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([2.0, 2 / 3, 2 / 3, 2 / 3]))
    assert success_rate_weights(torch.zeros(4)).tolist() == [1.0] * 4


def test_a_playbook_from_the_outside(tmp_path: Path) -> None:
    playbook = Playbook()
    assert isinstance(playbook.render(), str)
    first = playbook.add("common mistakes to avoid", "Mind the empty tape.")
    second = playbook.add("strategies & insights", "Pull before you paint.")
    for tag in ("helpful", "harmful", "neutral"):
        playbook.tag(first, tag)
    playbook.tag(second, "helpful")
    text = playbook.render()
    assert "Mind the empty tape." in text
    assert first in text
    entry = playbook.entries[0]
    assert isinstance(entry, Entry)
    assert entry == Entry(first, "common_mistakes_to_avoid", "Mind the empty tape.", 1, 1, 0, 0)
    assert (entry.helpful, entry.harmful, entry.created, entry.last_used) == (1, 1, 0, 0)
    playbook.save(tmp_path / "playbook.jsonl")
    assert Playbook.load(tmp_path / "playbook.jsonl").entries == playbook.entries
    for method in ("staleness", "prioritized", "reset"):
        copy = Playbook.load(tmp_path / "playbook.jsonl")
        copy.concise(method, 1)
        assert [e.id for e in copy.entries] == ([] if method == "reset" else [second])


@pytest.mark.parametrize("algorithm", ["resd", "grpo"])
def test_what_a_run_folder_holds(tmp_path: Path, algorithm: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stream = {"batch_size": 2, "updates_per_batch": 2, "max_updates": 2}
    config = toy.toy_config(
        save_tiny(tmp_path / "model"), tmp_path / "run", algorithm=algorithm, stream=stream
    )
    run = toy.build_toy(config)
    run.train()
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "rollouts", "checkpoints"}
    assert ("playbook.jsonl" in names) == (algorithm == "resd")
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["evaluation", "update", "update", "evaluation"]
    for checkpoint in (run.folder / "checkpoints").iterdir():
        assert int(checkpoint.name) == 2
        assert AutoModelForCausalLM.from_pretrained(checkpoint).num_parameters() > 0
        assert AutoTokenizer.from_pretrained(checkpoint).eos_token
