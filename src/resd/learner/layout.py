"""Building micro-batches from examples, for the student and, aligned token by token, for the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resd.learner.attention import Sequences
from resd.learner.prefix import SharedPrefix
from resd.records import ResdError, TrainingExample


@dataclass(frozen=True, slots=True)
class Layout:
    """The inputs of one forward. `tokens` are all response tokens, example after example.

    Either one row per example, padded on the right, with positions from 0 at the first column: a causal model
    needs no mask. Or all examples packed into one row, with positions that restart for each example, and
    `sequences`, which attention needs to separate them.
    """

    input_ids: Tensor  # [rows, columns]
    position_ids: Tensor  # [rows, columns]
    positions: Tensor  # [tokens]: row * columns + column of the hidden state that predicts each token
    targets: Tensor  # [tokens]: the token
    example: Tensor  # [tokens]: its example's index in the global batch
    sequences: Sequences | None = None  # None: padded rows


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The same responses after the student's prompts and, optionally, after the teacher's."""

    student: Layout
    teacher: Layout | None
    rollout_logprobs: Tensor  # [tokens]


def build_micro_batches(
    examples: Sequence[TrainingExample],
    indices: Sequence[int],
    *,
    with_teacher: bool,
    micro_batch_tokens: int,
    packed: bool = False,
    prefix: SharedPrefix | None = None,
    device: torch.device | str = "cpu",
) -> list[MicroBatch]:
    """Micro-batches over `examples[i] for i in indices`, grouped by similar length.

    Neither side exceeds `micro_batch_tokens`, including padding, except for a single longer example.
    `prefix` is the common prefix of the teacher's prompts (`teacher_prefix`); it requires packing. Raises
    ResdError for an example that cannot be trained on.
    """
    for index in indices:
        _check(examples[index], index, with_teacher)
    lengths = {index: _length(examples[index], with_teacher, prefix) for index in indices}
    groups = pack(lengths, micro_batch_tokens) if packed else bucket(lengths, micro_batch_tokens)
    return [_micro_batch(examples, group, with_teacher, packed, prefix, device) for group in groups]


def bucket(lengths: dict[int, int], limit: int) -> list[list[int]]:
    """Group indices by length, longest first, with `rows * longest <= limit` in groups of more than one row.

    Longest first, so that running out of memory happens in the first micro-batch, not in the last.
    """
    groups: list[list[int]] = []
    for index in _longest_first(lengths):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pack(lengths: dict[int, int], limit: int) -> list[list[int]]:
    """Group indices into sums of at most `limit` by first-fit decreasing."""
    groups: list[list[int]] = []
    room: list[int] = []
    for index in _longest_first(lengths):
        place = next((i for i, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            groups.append([index])
            room.append(limit - lengths[index])
        else:
            groups[place].append(index)
            room[place] -= lengths[index]
    return groups


def build_layout(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    indices: Sequence[int],
    device: torch.device | str = "cpu",
    *,
    packed: bool = False,
    prefix: SharedPrefix | None = None,
) -> Layout:
    """Lay out `prompts[i] + responses[i]` of example `indices[i]`. The last response token predicts nothing
    and is left out of the forward, as is the shared prefix of all prompts."""
    skipped = 0 if prefix is None else len(prefix)
    prompts = [prompt[skipped:] for prompt in prompts]
    rows = [[*prompt, *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    lengths, counts = [len(row) for row in rows], [len(response) for response in responses]
    columns = max(lengths)
    firsts = [sum(lengths[:i]) if packed else i * columns for i in range(len(rows))]
    starts = [first + len(prompt) - 1 for first, prompt in zip(firsts, prompts, strict=True)]
    if packed:
        input_ids = torch.tensor([[token for row in rows for token in row]])
        position_ids = skipped + torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    else:
        input_ids = torch.tensor([row + [0] * (columns - len(row)) for row in rows])
        position_ids = torch.arange(columns).expand(len(rows), columns)
    return Layout(
        input_ids=input_ids.to(device),
        position_ids=position_ids.to(device),
        positions=torch.cat([torch.arange(s, s + n) for s, n in zip(starts, counts, strict=True)]).to(device),
        targets=torch.tensor([token for response in responses for token in response]).to(device),
        example=torch.repeat_interleave(torch.tensor(indices), torch.tensor(counts)).to(device),
        sequences=Sequences.of(lengths, device, prefix) if packed else None,
    )


def _longest_first(lengths: dict[int, int]) -> list[int]:
    return sorted(lengths, key=lambda i: (-lengths[i], i))


def _micro_batch(
    examples: Sequence[TrainingExample],
    group: list[int],
    with_teacher: bool,
    packed: bool,
    prefix: SharedPrefix | None,
    device: torch.device | str,
) -> MicroBatch:
    members = [examples[index] for index in group]
    responses = [example.response_ids for example in members]
    teacher_prompts = [example.teacher_prompt_ids or () for example in members]
    logprobs = [logprob for example in members for logprob in example.rollout_logprobs]

    def layout(prompts: Sequence[Sequence[int]], prefix: SharedPrefix | None) -> Layout:
        return build_layout(prompts, responses, group, device, packed=packed, prefix=prefix)

    return MicroBatch(
        student=layout([example.prompt_ids for example in members], None),
        teacher=layout(teacher_prompts, prefix) if with_teacher else None,
        rollout_logprobs=torch.tensor(logprobs, dtype=torch.float32).to(device),
    )


def _length(example: TrainingExample, with_teacher: bool, prefix: SharedPrefix | None) -> int:
    """The row length of the longer side."""
    shown = example.teacher_prompt_ids if with_teacher else None
    prompts = len(example.prompt_ids), len(shown or ()) - (0 if prefix is None else len(prefix))
    return max(prompts) + len(example.response_ids) - 1


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
