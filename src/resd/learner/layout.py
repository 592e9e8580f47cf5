"""From examples to padded micro-batches, for the student and, aligned token for token, for the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resd.records import ResdError, TrainingExample


@dataclass(frozen=True, slots=True)
class Layout:
    """One right-padded forward. `tokens` are all response tokens, example after example.

    Rows are padded on the right and positions count from 0 at the first column: a causal model needs no mask.
    """

    input_ids: Tensor  # [rows, columns]
    position_ids: Tensor  # [rows, columns]
    positions: Tensor  # [tokens]: row * columns + column of the hidden state that predicts each token
    targets: Tensor  # [tokens]: the token
    example: Tensor  # [tokens]: its example's index in the global batch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The same responses after the student's prompts and, if asked for, after the teacher's."""

    student: Layout
    teacher: Layout | None
    rollout_logprobs: Tensor  # [tokens]


def build_micro_batches(
    examples: Sequence[TrainingExample],
    indices: Sequence[int],
    *,
    with_teacher: bool,
    micro_batch_tokens: int,
    device: torch.device | str = "cpu",
) -> list[MicroBatch]:
    """Micro-batches over `examples[i] for i in indices`, similar lengths together.

    Rows times longest row of neither side exceeds `micro_batch_tokens`, but for a single row that is longer.
    Raises ResdError for an example that cannot be trained on.
    """
    for index in indices:
        _check(examples[index], index, with_teacher)
    lengths = {index: _length(examples[index], with_teacher) for index in indices}
    groups = bucket(lengths, micro_batch_tokens)
    return [_micro_batch(examples, group, with_teacher, device) for group in groups]


def bucket(lengths: dict[int, int], limit: int) -> list[list[int]]:
    """Group indices by length, longest first, with `rows * longest <= limit` where more than one row is in.

    Longest first: what does not fit into memory shows in the first micro-batch, not in the last.
    """
    groups: list[list[int]] = []
    for index in sorted(lengths, key=lambda i: (-lengths[i], i)):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def build_layout(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    indices: Sequence[int],
    device: torch.device | str = "cpu",
) -> Layout:
    """Lay out `prompts[i] + responses[i]`, which are example `indices[i]`. The last response token predicts
    nothing here and is left out of the forward."""
    rows = [[*prompt, *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    columns = max(map(len, rows))
    starts = [row * columns + len(prompt) - 1 for row, prompt in enumerate(prompts)]
    counts = [len(response) for response in responses]
    return Layout(
        input_ids=torch.tensor([row + [0] * (columns - len(row)) for row in rows]).to(device),
        position_ids=torch.arange(columns).expand(len(rows), columns).to(device),
        positions=torch.cat([torch.arange(s, s + n) for s, n in zip(starts, counts, strict=True)]).to(device),
        targets=torch.tensor([token for response in responses for token in response]).to(device),
        example=torch.repeat_interleave(torch.tensor(indices), torch.tensor(counts)).to(device),
    )


def _micro_batch(
    examples: Sequence[TrainingExample], group: list[int], with_teacher: bool, device: torch.device | str
) -> MicroBatch:
    members = [examples[index] for index in group]
    responses = [example.response_ids for example in members]
    teacher_prompts = [example.teacher_prompt_ids or () for example in members]
    logprobs = [logprob for example in members for logprob in example.rollout_logprobs]
    return MicroBatch(
        student=build_layout([example.prompt_ids for example in members], responses, group, device),
        teacher=build_layout(teacher_prompts, responses, group, device) if with_teacher else None,
        rollout_logprobs=torch.tensor(logprobs, dtype=torch.float32).to(device),
    )


def _length(example: TrainingExample, with_teacher: bool) -> int:
    """Of the longer side's row."""
    prompts = [example.prompt_ids, (example.teacher_prompt_ids or ()) if with_teacher else ()]
    return max(map(len, prompts)) + len(example.response_ids) - 1


def _check(example: TrainingExample, index: int, with_teacher: bool) -> None:
    if not example.prompt_ids or (with_teacher and not example.teacher_prompt_ids):
        raise ResdError(
            f"training example {index}: its prompt is empty; nothing predicts the first response token"
        )
    if len(example.rollout_logprobs) != len(example.response_ids):
        raise ResdError(
            f"training example {index}: {len(example.response_ids)} response tokens but "
            f"{len(example.rollout_logprobs)} rollout_logprobs; give one for each token"
        )
