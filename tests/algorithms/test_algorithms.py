"""Who gets a teacher prompt, and with what in it; who gets an advantage."""

import statistics
from dataclasses import replace
from typing import Any

import pytest

from resd.algorithms.ace import ACE
from resd.algorithms.base import Algorithm, peer_solution
from resd.algorithms.grpo import GRPO
from resd.algorithms.resd import RESD
from resd.algorithms.rlsd import RLSD
from resd.algorithms.sdpo import SDPO
from resd.algorithms.srpo import SRPO
from resd.config import ContextConfig, DistillationConfig, PolicyConfig, RLSDConfig, SRPOConfig
from resd.context import prompts
from resd.context.playbook import Playbook
from resd.context.reflection import Reflection, Tags
from resd.context.teacher_prompt import TeacherPromptComposer
from resd.context.updater import ContextUpdate
from resd.objectives.objective import Objective
from resd.records import Attempt, Problem, Response, Verdict
from support import tiny_tokenizer

REFLECTION = Reflection("an error", "a fix", ("a lesson",), Tags(), "raw")
WORDS = ContextUpdate({"a#0": REFLECTION}, {"a#0": "buffered"}, {}, [])


def attempt(problem: str, sample: int, solved: bool) -> Attempt:
    verdict = Verdict(float(solved), int(solved), 1, "" if solved else "it was wrong")
    response = Response(f"{problem}#{sample}", f"try {sample}", (7, 1), (-0.5, -0.25), "stop")
    task = Problem(problem, ({"role": "user", "content": f"Task {problem}"},))
    return Attempt(task, sample, (2, 3), response, verdict)


def composer(**switches: Any) -> TeacherPromptComposer:
    config = ContextConfig(style="compact", **switches)
    return TeacherPromptComposer(config, prompts.style("compact"), tiny_tokenizer(), thinking=False)


def resd(distill_successes: bool = True, **switches: Any) -> RESD:
    playbook = Playbook()
    playbook.add("others", "Mind the start.")
    return RESD(
        composer(**switches), lambda problem: playbook.entries, DistillationConfig(), distill_successes
    )


def srpo(distillation: DistillationConfig | None = None, **switches: Any) -> SRPO:
    policy = PolicyConfig(normalize_by_std=False)
    return SRPO(composer(**switches), distillation or DistillationConfig(), policy, SRPOConfig(), 0)


def rlsd(**switches: Any) -> RLSD:
    return RLSD(composer(**switches), PolicyConfig(), RLSDConfig(), 0)


def sections(algorithm: Any, attempts: list[Attempt], context: ContextUpdate | None = None) -> list[Any]:
    found = algorithm.teacher_prompts(attempts, context)
    return [None if prompt is None else set(prompt.sections) for prompt in found]


def test_resd_shows_a_failure_everything() -> None:
    [prompt] = resd().teacher_prompts([attempt("a", 0, False)], WORDS)
    assert prompt is not None
    for part in ("Mind the start.", "Task a", "try 0", "it was wrong", "a fix", "buffered"):
        assert part in prompt.text


def test_resd_shows_a_success_its_own_solution_and_the_playbook() -> None:
    shown = sections(resd(), [attempt("a", 0, True)], WORDS)
    assert shown == [{"playbook", "problem", "solution"}]


@pytest.mark.parametrize("off", [resd(distill_successes=False), resd(use_solution=False)])
def test_resd_can_leave_successes_alone(off: RESD) -> None:
    shown = sections(off, [attempt("a", 0, True), attempt("a", 1, False)], WORDS)
    assert shown[0] is None
    assert shown[1] is not None


def test_sdpo_can_show_trial_and_feedback() -> None:
    shown = sections(SDPO(composer(), DistillationConfig(), 0), [attempt("a", 0, False)])
    assert shown == [{"problem", "trial", "feedback"}]


def test_sdpo_by_default_does_not_distil_a_lone_success() -> None:
    attempts = [attempt("a", 0, True), attempt("a", 1, False), attempt("b", 0, True), attempt("b", 1, True)]
    plain = sections(SDPO(composer(), DistillationConfig(), 0), attempts)
    assert plain[0] is None
    assert plain[1] == {"problem", "trial", "feedback", "solution"}
    assert plain[2] == plain[3] == {"problem", "solution"}  # each is shown the other
    with_own = SDPO(composer(), DistillationConfig(), 0, distill_successes=True)
    prompt = with_own.teacher_prompts(attempts)[3]
    assert prompt is not None
    assert "try 1" in prompt.text


def test_a_peer_is_any_other_success_at_the_same_problem() -> None:
    attempts = [attempt("b", 0, True), *(attempt("a", i, i < 4) for i in range(5))]
    drawn = [[peer_solution(a, attempts, seed) for a in attempts] for seed in range(400)]
    assert drawn == [[peer_solution(a, attempts, seed) for a in attempts] for seed in range(400)]
    lone, first, *_, failed = zip(*drawn, strict=True)
    assert set(lone) == {""}
    assert set(first) == {"try 1", "try 2", "try 3"}
    counts = [failed.count(f"try {i}") for i in range(4)]
    assert sum(counts) == 400
    assert min(counts) > 70  # 100 expected, standard deviation 8.7


@pytest.mark.parametrize(
    ("rebalance", "resd_weights", "sdpo_weights"),
    [
        (None, [2, 2 / 3, 2 / 3, 2 / 3], [1, 1, 1, 1]),
        (True, [2, 2 / 3, 2 / 3, 2 / 3], [2, 2 / 3, 2 / 3, 2 / 3]),
        (False, [1, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_rebalancing_is_resds_own_and_over_the_whole_batch(
    rebalance: bool | None, resd_weights: list[float], sdpo_weights: list[float]
) -> None:
    objective = DistillationConfig(rebalance=rebalance)
    attempts = [attempt("a", 0, True), *(attempt("b", i, False) for i in range(3))]
    for algorithm, expected in (
        (RESD(composer(), lambda problem: (), objective), resd_weights),
        (SDPO(composer(), objective, 0), sdpo_weights),
    ):
        examples = algorithm.examples(attempts, [None] * 4)
        assert [example.weight for example in examples] == pytest.approx(expected)


def test_examples_keep_attempts_without_a_teacher_prompt() -> None:
    attempts = [attempt("a", 0, True), attempt("a", 1, False)]
    algorithm = SDPO(composer(), DistillationConfig(), 0)
    prompts_shown = algorithm.teacher_prompts(attempts)
    first, second = algorithm.examples(attempts, prompts_shown)
    assert first.teacher_prompt_ids is None
    assert prompts_shown[1] is not None
    assert second.teacher_prompt_ids == prompts_shown[1].ids
    assert (second.prompt_ids, second.response_ids, second.rollout_logprobs) == (
        (2, 3),
        (7, 1),
        (-0.5, -0.25),
    )


def test_grpo_compares_tries_at_one_problem() -> None:
    solved = (True, False, False, False)
    attempts = [attempt("a", i, value) for i, value in enumerate(solved)]
    attempts += [attempt("b", i, False) for i in range(2)]
    normalised = GRPO(PolicyConfig())
    examples = normalised.examples(attempts, normalised.teacher_prompts(attempts))
    expected = [1.499997, -0.499999, -0.499999, -0.499999, 0, 0]  # golden vector V9
    assert [example.advantage for example in examples] == pytest.approx(expected, abs=1e-6)
    assert all(example.teacher_prompt_ids is None for example in examples)
    centred = GRPO(PolicyConfig(normalize_by_std=False)).examples(attempts, [None] * 6)
    assert [example.advantage for example in centred] == pytest.approx([0.75, -0.25, -0.25, -0.25, 0, 0])


def mixed_attempts() -> list[Attempt]:
    """Problem a: one of three solved; b: two of two; c: none of two, of which one earned half the reward."""
    solved = {"a": (True, False, False), "b": (True, True), "c": (False, False)}
    found = [attempt(name, i, value) for name, values in solved.items() for i, value in enumerate(values)]
    last = found[-1]
    return [*found[:-1], replace(last, verdict=replace(last.verdict, reward=0.5))]


def centred(attempts: list[Attempt]) -> list[float]:
    return [
        a.verdict.reward - statistics.fmean(b.verdict.reward for b in attempts if b.problem == a.problem)
        for a in attempts
    ]


def test_srpo_distils_failures_as_sdpo_does_and_compares_the_rest() -> None:
    attempts, algorithm = mixed_attempts(), srpo()
    shown = algorithm.teacher_prompts(attempts)
    as_sdpo = SDPO(composer(), DistillationConfig(), 0).teacher_prompts(attempts)
    assert shown == [
        None if a.verdict.solved else prompt for a, prompt in zip(attempts, as_sdpo, strict=True)
    ]
    assert None not in [prompt for a, prompt in zip(attempts, shown, strict=True) if not a.verdict.solved]
    examples = algorithm.examples(attempts, shown)
    assert [example.teacher_prompt_ids for example in examples] == [p.ids if p else None for p in shown]
    advantages = [2 / 3, 0, 0, 0, 0, 0, 0]  # against the failures, which have none themselves
    assert [example.advantage for example in examples] == pytest.approx(advantages)
    assert [example.weight for example in examples] == [1] * 7


def test_srpo_compares_a_failure_that_nothing_can_be_shown_of() -> None:
    attempts, algorithm = mixed_attempts(), srpo(use_trial=False, use_feedback=False)
    shown = algorithm.teacher_prompts(attempts)
    assert [prompt is not None for prompt in shown] == [False, True, True, False, False, False, False]
    expected = centred(attempts)
    expected[1] = expected[2] = 0.0
    examples = algorithm.examples(attempts, shown)
    assert [example.advantage for example in examples] == pytest.approx(expected)
    assert expected[-1] == 0.25


def test_srpo_can_rebalance_all_attempts() -> None:
    attempts, algorithm = mixed_attempts(), srpo(DistillationConfig(rebalance=True))
    weights = [e.weight for e in algorithm.examples(attempts, algorithm.teacher_prompts(attempts))]
    solved, failed = weights[0], weights[1]
    assert statistics.fmean(weights) == pytest.approx(1)
    assert solved / failed == pytest.approx((4 / 7) / (3 / 7))


def test_rlsd_gives_all_an_advantage_and_shows_the_teacher_what_there_is() -> None:
    attempts, algorithm = mixed_attempts(), rlsd(distill_successes=True)
    shown = sections(algorithm, attempts)
    failure = {"problem", "trial", "feedback"}
    with_peer, success = failure | {"solution"}, {"problem", "solution"}
    assert shown == [None, with_peer, with_peer, success, success, failure, failure]
    prompts_shown = algorithm.teacher_prompts(attempts)
    examples = algorithm.examples(attempts, prompts_shown)
    as_grpo = GRPO(PolicyConfig()).examples(attempts, [None] * 7)
    assert [example.advantage for example in examples] == [example.advantage for example in as_grpo]
    assert [e.teacher_prompt_ids for e in examples] == [p.ids if p else None for p in prompts_shown]


DISTILLATION, POLICY = DistillationConfig(alpha=0.5), PolicyConfig(clip_low=0.1)


@pytest.mark.parametrize(
    ("algorithm", "objective"),
    [
        (RESD(composer(), lambda problem: (), DISTILLATION), Objective(distillation=DISTILLATION)),
        (SDPO(composer(), DISTILLATION, 0), Objective(distillation=DISTILLATION)),
        (GRPO(POLICY), Objective(policy=POLICY)),
        (ACE(), Objective()),
        (
            SRPO(composer(), DISTILLATION, POLICY, SRPOConfig(entropy_beta=2), 0),
            Objective(distillation=DISTILLATION, policy=POLICY, srpo=SRPOConfig(entropy_beta=2)),
        ),
        (
            RLSD(composer(), POLICY, RLSDConfig(mixing=0.3), 0),
            Objective(policy=POLICY, rlsd=RLSDConfig(mixing=0.3)),
        ),
    ],
    ids=["resd", "sdpo", "grpo", "ace", "srpo", "rlsd"],
)
def test_what_the_learner_is_asked_for(algorithm: Algorithm, objective: Objective) -> None:
    assert algorithm.objective == objective
