"""One update of a tiny learner: configurations, examples, and the gradients that it hands over."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from resd.config import (
    DistillationConfig,
    OptimizerConfig,
    PolicyConfig,
    RLSDConfig,
    RolloutConfig,
    RunConfig,
    SRPOConfig,
    TeacherConfig,
)
from resd.learner.learner import Learner
from resd.learner.lora import add_adapters, own_parameters
from resd.learner.teacher import make_teacher
from resd.objectives.objective import Objective
from resd.records import TrainingExample
from support import tiny_model

DISTILLATION = Objective(distillation=DistillationConfig(topk=10))
POLICY = Objective(policy=PolicyConfig())
JSD = Objective(distillation=DistillationConfig(alpha=0.5, topk=None))
SRPO = Objective(DistillationConfig(topk=10), PolicyConfig(is_level="sequence"), srpo=SRPOConfig())
RLSD = Objective(policy=PolicyConfig(is_level="sequence"), rlsd=RLSDConfig())
NAMES = ["distillation", "policy", "jsd", "srpo", "rlsd"]


def config(micro_batch_tokens: int = 200, temperature: float = 1.0, **changes: Any) -> RunConfig:
    return RunConfig(
        device="cpu",
        optimizer=OptimizerConfig(learning_rate=1e-3, micro_batch_tokens=micro_batch_tokens),
        rollout=RolloutConfig(temperature=temperature),
        teacher=TeacherConfig(update_rate=0.1),
        **{"compute_dtype": "float32", **changes},
    )


def build(run: RunConfig, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Learner:
    model = tiny_model(seed).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2  # away from a uniform prediction
    if run.lora.rank:
        adapt(model, run, seed)
    model = model.to(device)
    return Learner(model, make_teacher(run.teacher, model), run, total_updates=100)


def adapt(model: Any, run: RunConfig, seed: int = 0) -> None:
    """Adapters that have learned something."""
    add_adapters(model, run.lora, seed=seed, base="tiny")
    torch.manual_seed(seed)
    for name, parameter in own_parameters(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)


def examples(count: int = 7, seed: int = 1) -> list[TrainingExample]:
    """Every third has no teacher prompt, one has no advantage, one has no response."""
    source = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(source.randrange(5, 100) for _ in range(source.randint(low, high)))

    made = []
    for index in range(count):
        response = () if index == 4 else ids(1, 12)
        made.append(
            TrainingExample(
                prompt_ids=ids(2, 9),
                response_ids=response,
                rollout_logprobs=tuple(source.uniform(-6, -3) for _ in response),
                teacher_prompt_ids=None if index % 3 == 2 else ids(5, 20),
                weight=source.uniform(0.5, 2),
                advantage=0.0 if index == 1 else source.uniform(-2, 2),
            )
        )
    return made


def gradients(
    learner: Learner, batch: Sequence[TrainingExample], objective: Objective
) -> tuple[torch.Tensor, Any]:
    """What `update` hands to the optimizer."""
    caught: list[torch.Tensor] = []
    step = learner.optimizer.step

    def spy() -> Any:
        caught.append(
            torch.cat([p.grad.flatten() for p in learner.optimizer.parameters if p.grad is not None])
        )
        return step()

    learner.optimizer.step = spy  # type: ignore[method-assign]
    metrics = learner.update(batch, objective)
    return caught[0].clone(), metrics


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


def sequence_logits(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : -1]
