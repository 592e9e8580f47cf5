"""Building a run from its configuration, either a new one or a resumed one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from resd.algorithms.make import make_algorithm, make_successor
from resd.chat import THINK_CLOSE
from resd.config import RunConfig
from resd.context import prompts
from resd.context.credit import Score
from resd.context.updater import ContextUpdater
from resd.environments.base import Environment
from resd.environments.checks import problems_of
from resd.generation.decoder import Decoder
from resd.generation.engine import GenerationEngine
from resd.generation.rotary import pin
from resd.generation.vllm import Reference, VLLMEngine, forward_logprobs
from resd.generation.vllm_runtime import check_vllm
from resd.learner.learner import Learner
from resd.learner.model import (
    autocast,
    load_tokenizer,
    load_unmerged,
    resolve_device,
    resolve_dtype,
    weights_dtype,
)
from resd.learner.parallel import ALONE, Ranks
from resd.learner.shell import blank
from resd.records import Problem, ResdError
from resd.training import checkpoint, journal
from resd.training.evaluation import Evaluation, evaluate
from resd.training.leader import DistributedEngine, Leader, Start, Whose
from resd.training.lengths import check_lengths, check_teacher_prompts, fit_prompts, fit_teacher_prompts
from resd.training.plan import check_evaluation, check_run
from resd.training.progress import make_batches
from resd.training.run_folder import check_folder, hold, open_folder
from resd.training.sinks import Sink, make_sinks
from resd.training.stream import Stream
from resd.writing import RESUME, writing

# Requests decoded at once. A CPU is saturated long before a GPU is.
MAX_BATCH = {"cpu": 64, "cuda": 512}


def build(
    config: RunConfig, *, resume: bool = False, watch: Sink | None = None, ranks: Ranks = ALONE
) -> Stream:
    """Check everything, load the model and open the run folder. `watch` is an additional sink for people.

    With `resume`, the run continues from its newest checkpoint, or from the start if it has none yet. With
    several `ranks` this is rank 0's part, and the others `follow`. Raises ResdError for errors users can fix.
    """
    environment, plan = check_run(config)
    find_device(config)
    folder = Path(config.output)
    check_folder(folder, config, resume=resume)
    lock = hold(folder)
    with writing(f"output {folder}", RESUME):
        checkpoint.sweep(folder / "checkpoints")
    found = checkpoint.latest(folder / "checkpoints")
    state = checkpoint.load_state(found) if found else checkpoint.RunState()
    tokenizer = load_tokenizer(config.model)
    start = Start(config, found, plan.updates)
    if ranks.shared:
        ranks.broadcast(start)
    own, model, teacher = make_learner(start, ranks)
    batches = make_batches(problems_of(environment, "train"), config.stream.batch_size)
    _check_problems(environment, batches[: plan.updates], config, model, tokenizer)
    learner = Leader(own, ranks) if ranks.shared else own
    engine = _spread(make_engine(model, tokenizer, config, learner.logprobs), "weights", config, ranks)
    written = make_author(teacher, tokenizer, config)
    author = _spread(written, "teacher_weights", config, ranks) if written else None
    context = make_context(fit_prompts(config, model), author or engine, tokenizer, learner.score)
    taught = fit_teacher_prompts(config, model)
    if context and state.context:
        context.load_state_dict(state.context)
    open_folder(folder, config)
    journal.cut_back(folder, state.journals, state.progress.step)
    if context:
        journal.append(folder / journal.PLAYBOOK, [])
    stream = Stream(
        config=config,
        folder=folder,
        batches=batches,
        environment=environment,
        tokenizer=tokenizer,
        engine=engine,
        author=author,
        context=context,
        algorithm=make_algorithm(taught, tokenizer, context),
        successor=make_successor(taught, tokenizer),
        learner=learner,
        sinks=[
            *make_sinks(folder, config.logging, config.model_dump(mode="json")),
            *([watch] if watch else []),
        ],
        progress=state.progress,
        lock=lock,
    )
    stream.load_weights()
    return stream


def _check_problems(
    environment: Environment,
    batches: Sequence[Sequence[Problem]],
    config: RunConfig,
    model: Any,
    tokenizer: Any,
) -> None:
    """Raises ResdError for problems that leave no room for a reply, or none of which does for its teacher."""
    used = [problem for batch in batches for problem in batch]
    held_out = problems_of(environment, config.evaluation.split)[: config.evaluation.limit]
    check_lengths(used, config, model, tokenizer)
    check_lengths(held_out, config, model, tokenizer)
    check_teacher_prompts(used, config, model, tokenizer)


def evaluate_model(config: RunConfig) -> Evaluation:
    """Evaluate `config.model` on held-out problems, as a run with this configuration would."""
    environment, _ = check_evaluation(config)
    tokenizer = load_tokenizer(config.model)
    device = find_device(config)
    model = pin(load_unmerged(config.model, device, dtype=weights_dtype(config, device)), config)
    engine = make_engine(model, tokenizer, config)
    context = saved_context(config, engine, tokenizer, model)
    prompt_ids = context.held_out_prompt if context else None
    with engine.awake():
        return evaluate(engine, environment, tokenizer, config.evaluation, config.rollout, prompt_ids)


def saved_context(
    config: RunConfig, engine: GenerationEngine, tokenizer: Any, model: Any
) -> ContextUpdater | None:
    """The context engine of the checkpoint `config.model`, if evaluation shows its playbook.

    Raises ResdError if there is none.
    """
    if not config.evaluation.playbook:
        return None
    votes = config.context.model_copy(update={"credit": "votes"})  # nothing is measured
    fitted = fit_prompts(config.model_copy(update={"context": votes}), model)
    context, found = make_context(fitted, engine, tokenizer, None), Path(config.model)
    saved = checkpoint.load_state(found).context if checkpoint.holds_run(found) else None
    if context is None or saved is None:
        raise ResdError(
            f"evaluation.playbook: model {config.model} has no playbook; give a checkpoint of a run "
            "of algorithm resd or ace, or set it to false"
        )
    context.load_state_dict(saved)
    return context


def make_learner(start: Start, ranks: Ranks) -> tuple[Learner, Any, Any]:
    """A rank's learner, and the student and teacher models that its engines decode with.

    These are the learner's own modules or, if it holds only shards, uninitialised copies; vLLM, which has its
    own copy, reads shards.
    """
    model, weights = start.load_model(ranks)
    if weights is None or start.config.generation.engine == "vllm":
        learner = start.learner(model, ranks, weights)
        return learner, model, learner.teacher.model
    dtype = resolve_dtype("auto", weights.device)
    student = blank(model, dtype, weights.device)
    teacher = blank(model, dtype, weights.device) if _has_author(start.config) else None
    return start.learner(model, ranks, weights), student, teacher


def find_device(config: RunConfig) -> torch.device:
    """The device of the run. Raises ResdError if its engine cannot run there."""
    device = resolve_device(config.device)
    if config.generation.engine == "vllm":
        check_vllm(config.generation, device.type)
    return device


def make_engine(
    model: Any, tokenizer: Any, config: RunConfig, reference: Reference | None = None
) -> GenerationEngine:
    """The embedded decoder on the trainer's own module, or vLLM with a copy of it.

    They compute in `compute_dtype` if given. Schemas apply after the thinking. vLLM's log-probs are checked
    against `reference`, by default a plain forward of `model`.
    """
    thinks = config.rollout.thinking and THINK_CLOSE in str(tokenizer.chat_template)
    grammar_after = THINK_CLOSE if thinks else None
    dtype: torch.dtype | Literal["auto"] = "auto"
    if config.compute_dtype != "auto":
        dtype = resolve_dtype(config.compute_dtype, model.device)
    if config.generation.engine == "vllm":
        return VLLMEngine(
            model,
            tokenizer,
            config.generation,
            compute_dtype=dtype,
            grammar_after=grammar_after,
            reference=reference or make_reference(model, config),
        )
    width = MAX_BATCH[model.device.type]
    return Decoder(model, tokenizer, compute_dtype=dtype, max_batch=width, grammar_after=grammar_after)


def make_reference(model: Any, config: RunConfig) -> Reference:
    """A reference that computes the trainer's log-probs in its compute dtype."""
    dtype = resolve_dtype(config.compute_dtype, model.device)

    def logprobs(prompt: Sequence[int], reply: Sequence[int]) -> torch.Tensor:
        with autocast(model.device, dtype):
            return forward_logprobs(model, prompt, reply)

    return logprobs


def make_author(teacher: Any, tokenizer: Any, config: RunConfig) -> GenerationEngine | None:
    """The engine for reflections and curations on the teacher's weights; None if the student writes them."""
    return make_engine(teacher, tokenizer, config) if _has_author(config) else None


def make_context(
    config: RunConfig, engine: GenerationEngine, tokenizer: Any, score: Score | None
) -> ContextUpdater | None:
    """The context engine, for algorithms that have one."""
    if not config.keeps_playbook:
        return None
    style = prompts.configured(config.context)
    thinking = config.rollout.thinking
    return ContextUpdater(config.context, style, engine, tokenizer, config.seed, thinking, score)


def _spread(engine: GenerationEngine, whose: Whose, config: RunConfig, ranks: Ranks) -> GenerationEngine:
    vllm = config.generation.engine == "vllm"
    parts = config.generation.tensor_parallel_size if vllm else 1
    return DistributedEngine(engine, whose, ranks, parts) if ranks.shared else engine


def _has_author(config: RunConfig) -> bool:
    """Whether the teacher writes reflections and curations."""
    return config.keeps_playbook and config.context.author == "teacher"
