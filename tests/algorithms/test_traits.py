"""What is said of an algorithm before it is made is true of it."""

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from resd.algorithms.make import make_algorithm
from resd.algorithms.traits import TRAITS
from resd.config import ContextConfig, RunConfig, SwitchConfig
from resd.learner.model import load_tokenizer
from resd.records import Attempt, Problem, Response, Verdict
from resd.training.setup import make_context


def attempt(sample: int, reward: float) -> Attempt:
    """One of two tries at a problem."""
    problem = Problem("p", ({"role": "user", "content": "?"},), {})
    verdict = Verdict(reward, passed=int(reward), total=1, feedback="1 failed")
    return Attempt(problem, sample, (1, 2), Response("", "no", (3,), (-1.0,), "stop"), verdict)


@pytest.mark.parametrize("name", TRAITS)
def test_traits(name: str) -> None:
    context = ContextConfig(student_playbook=True, use_trial=True)
    config = RunConfig.model_validate({"algorithm": name, "rollout": {"n": 2}, "context": context})
    tokenizer, traits = load_tokenizer("lab"), TRAITS[name]
    updater = make_context(config, None, tokenizer, None)  # type: ignore[arg-type]
    assert (updater is not None) == traits.keeps_playbook
    algorithm = make_algorithm(config, tokenizer, updater)
    update: Any = SimpleNamespace(reflections={}, solutions={})

    failures = [attempt(0, 0.0), attempt(1, 0.0)]
    prompts = algorithm.teacher_prompts(failures, update)
    assert any(prompts) == traits.has_teacher
    learns = [bool(e.teacher_prompt_ids and e.weight) for e in algorithm.examples(failures, prompts)]
    assert (all(learns) and algorithm.objective.distillation is not None) == traits.distils_failures

    mixed = [attempt(0, 0.0), attempt(1, 1.0)]
    examples = algorithm.examples(mixed, [None, None])
    assert any(example.advantage for example in examples) == traits.compares_tries


def test_every_algorithm_has_its_row() -> None:
    assert set(get_args(RunConfig.model_fields["algorithm"].annotation)) == set(TRAITS)
    later = get_args(get_args(SwitchConfig.model_fields["to"].annotation)[0])
    assert set(later) == {name for name, traits in TRAITS.items() if not traits.keeps_playbook}
