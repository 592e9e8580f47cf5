import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resd.learner.layout import bucket, build_layout, build_micro_batches
from resd.learner.model import body, projection, response_hidden
from resd.objectives.chunked import LogitTiles
from resd.records import ResdError, TrainingExample
from support import tiny_model


def example(prompt: int, response: int, teacher: int | None = None) -> TrainingExample:
    def ids(count: int, start: int) -> tuple[int, ...]:
        return tuple(5 + (start + 7 * i) % 90 for i in range(count))

    return TrainingExample(
        prompt_ids=ids(prompt, 1),
        response_ids=ids(response, 3 + prompt),
        rollout_logprobs=tuple(-0.1 * i for i in range(response)),
        teacher_prompt_ids=None if teacher is None else ids(teacher, 2),
    )


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
def test_buckets_hold_everything_once_within_the_limit(lengths: list[int], limit: int) -> None:
    groups = bucket(dict(enumerate(lengths)), limit)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= limit


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=8),
    st.integers(10, 100),
)
def test_student_and_teacher_align(shapes: list[tuple[int, int, int]], limit: int) -> None:
    examples = [example(*shape) for shape in shapes]
    batches = build_micro_batches(examples, range(len(examples)), with_teacher=True, micro_batch_tokens=limit)
    seen = []
    for batch in batches:
        assert batch.teacher is not None
        assert torch.equal(batch.student.targets, batch.teacher.targets)
        assert torch.equal(batch.student.example, batch.teacher.example)
        for layout in (batch.student, batch.teacher):
            rows, columns = layout.input_ids.shape
            assert rows == 1 or rows * columns <= limit
            assert (layout.position_ids == torch.arange(columns)).all()
        seen += list(zip(batch.student.example.tolist(), batch.student.targets.tolist(), strict=True))
    assert sorted(i for i, _ in seen) == sorted(i for i, e in enumerate(examples) for _ in e.response_ids)
    for index, one in enumerate(examples):
        assert tuple(token for i, token in seen if i == index) == one.response_ids


def test_logits_equal_those_of_each_sequence_alone() -> None:
    """Padding, batching and the missing attention mask change nothing."""
    model, examples = tiny_model(), [example(4, 6), example(9, 2), example(1, 1), example(3, 12)]
    layout = build_layout([e.prompt_ids for e in examples], [e.response_ids for e in examples], range(4))
    with torch.no_grad():
        hidden = response_hidden(body(model), layout)
        ours = LogitTiles([projection(model.get_output_embeddings(), hidden)])(slice(0, len(hidden)))
        for index, one in enumerate(examples):
            whole = model(input_ids=torch.tensor([one.prompt_ids + one.response_ids])).logits[0]
            expected = whole[len(one.prompt_ids) - 1 : -1]
            torch.testing.assert_close(ours[layout.example == index], expected, atol=1e-5, rtol=1e-5)


def test_rollout_logprobs_follow_their_tokens() -> None:
    examples = [example(2, 3, 4), example(2, 5, 9)]
    (batch,) = build_micro_batches(examples, [0, 1], with_teacher=True, micro_batch_tokens=999)
    assert batch.student.example.tolist() == [1] * 5 + [0] * 3
    expected = [*examples[1].rollout_logprobs, *examples[0].rollout_logprobs]
    assert batch.rollout_logprobs.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("teacher", [None, 0])
def test_an_empty_prompt_is_refused(teacher: int | None) -> None:
    with pytest.raises(ResdError, match="training example 0: its prompt is empty"):
        build_micro_batches([example(3, 2, teacher)], [0], with_teacher=True, micro_batch_tokens=9)


def test_every_token_needs_its_logprob() -> None:
    with pytest.raises(ResdError, match="2 response tokens but 1 rollout_logprobs"):
        build_micro_batches(
            [TrainingExample((5,), (6, 7), (-0.1,))], [0], with_teacher=False, micro_batch_tokens=9
        )
