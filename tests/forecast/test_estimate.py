"""The arithmetic of memory and time, against the program, the library and figures worked out by hand."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resd.forecast import estimate
from resd.forecast.estimate import Choices, Forecast, Wave, Workload, experts_read
from resd.forecast.hardware import GIB, GPUS, Hardware
from resd.forecast.model_shape import shape_of
from resd.generation import decoder, forward, vllm_runtime
from resd.learner import learner
from resd.objectives import chunked
from resd.training import setup
from shapes import EXPERTS, QWEN3_4B, SMALL

WORK = Workload(
    attempts=32,
    prompt=1024,
    reply=3072,
    longest=3072,
    teacher_prompt=5120,
    reflections=32,
    reflection=512,
    curations=8,
    curation=256,
    context_prompt=5120,
    samples=528,
    updates=92,
    evaluations=24,
    micro_batch_tokens=16384,
)
BIG = Forecast(shape_of(QWEN3_4B), GPUS["h200"], WORK, Choices(teacher_copy=True))
# A machine on which everything is easy to work out: one FLOP and one byte a nanosecond, nothing to start.
ABACUS = Hardware("abacus", GIB, 1e9, 1e9, 0.0, "cpu", bfloat16=False)
SHAPE = shape_of({**SMALL, "model_type": "qwen3", "tie_word_embeddings": True})


def changed(run: Forecast, **parts: Any) -> Forecast:
    return replace(run, workload=replace(run.workload, **parts))


def test_the_programs_constants() -> None:
    assert estimate.TILE_BYTES == chunked.TILE_BYTES
    assert estimate.ROW_UNIT == chunked.ROW_UNIT
    assert estimate.TILES_PER_PRODUCT == chunked.TILES_PER_PRODUCT
    assert estimate.MAX_BATCH == setup.MAX_BATCH
    assert estimate.PREFILL_TOKENS == forward.PREFILL_TOKENS
    assert estimate.LARGE == learner.LARGE
    given = inspect.signature(decoder.Decoder).parameters["cache_bytes"].default
    assert given == estimate.CACHE_BYTES
    assert int(vllm_runtime.DEFAULTS["VLLM_CPU_KVCACHE_SPACE"]) * GIB == estimate.VLLM_CPU_CACHE


def test_what_stands() -> None:
    """4,022,468,096 parameters: 4 bytes each, 8 for the moments, 4 for the teacher, 2 for the decoder."""
    assert BIG.standing == {
        "weights": 16_089_872_384,
        "optimizer": 32_179_744_768,
        "teacher": 16_089_872_384,
        "decoder": 8_044_936_192,
    }
    assert BIG.updating["gradients"] == 16_089_872_384
    lean = replace(BIG, choices=Choices(teacher_copy=False, decoders=2))
    assert (lean.standing["teacher"], lean.standing["decoder"]) == (0, 16_089_872_384)
    assert replace(BIG, hardware=ABACUS).standing["decoder"] == 0


def test_what_adamw_holds() -> None:
    weight = torch.nn.Parameter(torch.zeros(1000))
    adamw = torch.optim.AdamW([weight])
    weight.sum().backward()
    adamw.step()
    state = adamw.state[weight]
    held = sum(state[name].nbytes for name in ("exp_avg", "exp_avg_sq"))
    shape = SHAPE
    run = Forecast(shape, ABACUS, WORK, Choices(teacher_copy=True))
    assert run.standing["optimizer"] == held // 1000 * shape.parameters


@pytest.mark.parametrize("bfloat16", [True, False])
def test_what_a_layer_keeps_of_a_token(bfloat16: bool) -> None:
    """All that the library's layer saves for the backward pass, weights and their casts left out."""
    run = Forecast(SHAPE, ABACUS, WORK, Choices(teacher_copy=True, bfloat16=bfloat16))
    rows, columns = 2, 64
    one, two = (saved_bytes(layers, rows, columns, bfloat16) for layers in (1, 2))
    assert run.bytes_per_token == (two - one) / (rows * columns)


def saved_bytes(
    layers: int, rows: int, columns: int, bfloat16: bool, change: Callable[[Any], Any] = lambda model: model
) -> int:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    settings = {**SMALL, "num_hidden_layers": layers, "tie_word_embeddings": True}
    body = change(Qwen3ForCausalLM(Qwen3Config(**settings)).eval()).base_model
    own = {parameter.data_ptr() for parameter in body.parameters()}
    casts = {tuple(p.shape) for p in body.parameters()} | {tuple(p.shape)[::-1] for p in body.parameters()}
    sizes: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tuple(tensor.shape) not in casts:
            sizes[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # no storage may be given away to the next
        return tensor

    ids = torch.zeros(rows, columns, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        body(input_ids=ids, position_ids=torch.arange(columns).expand(rows, columns), use_cache=False)
    return sum(sizes.values())


def test_activations_of_a_real_size() -> None:
    """By hand: 26 x 2560 + 10 x (4096 + 1024) + 8 x 9728 + 8 + 256 + 32 bytes a token and layer."""
    assert BIG.bytes_per_token == 195_880
    ends = 12 * 2560
    run = changed(BIG, teacher_prompt=1024)
    assert run.student_tokens == 4 * 4096
    assert run.activations(False) == 16384 * (36 * 195_880 + ends)
    assert run.activations(True) == 16384 * (36 * 4 * 2560 + 195_880 + ends)
    assert run.updating["activations"] == run.activations(True)
    assert replace(run, choices=Choices(True, checkpointing=False)).updating[
        "activations"
    ] == run.activations(False)


def test_rows_of_a_micro_batch() -> None:
    """The teacher's row is the longer one: 8,192 tokens, two of them in 16,384."""
    assert (BIG.rows, BIG.student_tokens) == (2, 2 * 4096)
    assert changed(BIG, micro_batch_tokens=4000).rows == 1
    assert changed(BIG, attempts=1).rows == 1


def test_tiles_of_the_loss() -> None:
    """Two tiles of 512 rows, gradients of 2,048 rows in bfloat16, the head's gradient, two rounded heads.

    Measured on an H200 with a bfloat16 head: 1.9 GiB beyond inputs and gradients, which is without the
    rounded heads and without the half of the float32 gradient that is handed over.
    """
    vocab, head = 151_936, 151_936 * 2560
    tiles = 2 * 512 * vocab * 4 + 2048 * vocab * 2
    assert BIG.loss_bytes == tiles + 4 * head + 2 * 2 * head
    assert (tiles + 4 * head - 2 * head) / GIB == pytest.approx(1.9, abs=0.05)


def test_the_cache() -> None:
    """144 KiB a token: 4 GiB hold 7 rows of 4,096 columns, and one row where that is longer than all."""
    assert BIG.cache_bytes_per_token == 147_456
    assert BIG._rollouts.rows(BIG) == 4 * GIB // 147_456 // 4096 == 7
    assert BIG.generating["KV cache"] <= 4 * GIB
    long = changed(BIG, prompt=1000, longest=99_000)
    assert long._rollouts.rows(long) == 1
    assert long.generating["KV cache"] == 100_000 * 147_456


def test_vllm_takes_its_share_while_it_is_awake() -> None:
    """0.4 of 140 GiB are 56, of which 7.5 hold weights. Asleep there is nothing of it."""
    run = replace(BIG, choices=Choices(True, vllm=0.4))
    assert run.standing["decoder"] == 0
    held = run.generating["decoder"] + run.generating["KV cache"]
    assert held == pytest.approx(0.4 * 140 * GIB)
    assert run.generating["decoder"] == BIG.standing["decoder"]
    assert run._rollouts.rows(run) == 32
    assert run.peaks["update"] == BIG.peaks["update"] - BIG.standing["decoder"]
    two = replace(BIG, choices=Choices(True, vllm=0.4, decoders=2))
    assert two.generating["KV cache"] == 2 * run.generating["KV cache"]


def test_vllm_on_a_cpu_never_sleeps() -> None:
    run = replace(BIG, hardware=ABACUS, choices=Choices(True, vllm=0.4))
    assert run.standing["decoder"] == 4 * run.shape.parameters
    assert run.generating["KV cache"] == estimate.VLLM_CPU_CACHE


@pytest.mark.parametrize(("rows", "rate"), [(32, 5_900), (256, 14_500)])
def test_what_vllm_was_measured_at(rows: int, rate: float) -> None:
    """Tokens a second of Qwen3-4B on one H200, from prompts of a few tokens."""
    run = replace(BIG, choices=Choices(True, vllm=0.9))
    assert rows * 512 / Wave(rows, 16, 512, 512).seconds(run) == pytest.approx(rate, rel=0.15)


def test_vllm_fills_the_place_of_a_reply_that_ends() -> None:
    """512 requests in 256 rows: where replies are a quarter of the longest, that one is the time."""
    run = replace(BIG, choices=Choices(True, vllm=0.9))
    even, uneven = Wave(512, 16, 512, 512), Wave(512, 16, 128, 512)
    assert even.seconds(run) > 1.9 * 512 * uneven._step(run)
    assert uneven.seconds(run) < 1.1 * 512 * uneven._step(run)


def test_the_mask_of_a_long_prompt() -> None:
    """Of 50,000 tokens, each of which may see 50,000 columns: 4 bytes for each pair."""
    grown = changed(BIG, context_prompt=50_000).generating["workspace"]
    before = changed(BIG, context_prompt=16_384).generating["workspace"]
    more = 50_000 - 16_384
    assert grown - before == 4 * (50_000**2 - 16_384**2) + 3 * more * 9728 * 2


@given(st.integers(1, 300), st.integers(1, 5000), st.integers(0, 9000), st.integers(1, 40_000))
def test_a_micro_batch_keeps_its_limit(attempts: int, prompt: int, teacher: int, limit: int) -> None:
    run = changed(
        BIG, attempts=attempts, prompt=prompt, teacher_prompt=teacher, micro_batch_tokens=limit, reply=100
    )
    longer = max(prompt, teacher) + 100
    assert 1 <= run.rows <= attempts
    assert run.rows == 1 or run.rows * longer <= limit
    assert run.rows == attempts or (run.rows + 1) * longer > limit


def test_peaks_are_sums() -> None:
    standing = sum(BIG.standing.values())
    assert BIG.peaks == {
        "decoding": standing + sum(BIG.generating.values()),
        "update": standing + sum(BIG.updating.values()),
    }
    assert BIG.peak == BIG.peaks["update"]


def test_time_by_hand() -> None:
    """One attempt of 6 + 4 tokens, a teacher's row of 16, at 1 FLOP and 1 byte a nanosecond."""
    work = replace(
        WORK,
        attempts=1,
        prompt=6,
        reply=4,
        longest=4,
        teacher_prompt=12,
        reflections=0,
        curations=0,
        samples=2,
    )
    run = Forecast(SHAPE, ABACUS, work, Choices(teacher_copy=True))
    head = 48 * 101
    layer = 48 * 60 * 2 + 48 * 20 * 2 + 20 + 3 * 48 * 80 + 2 * 48
    body = 3 * layer + 48
    teacher = 16 * (2 * body + 2 * 3 * 60 * 16)
    assert run.phases["teacher scoring"] == pytest.approx(teacher * 1e-9)
    student = 3 * 10 * (2 * body + 2 * 3 * 60 * 10) + 1.35 * 4 * 2 * 4 * head + 58 * (body + head)
    assert run.phases["student update"] == pytest.approx(student * 1e-9)
    # Reading a weight (4 bytes) takes longer than its two operations. 4 steps, on average 8 tokens cached.
    prefill, cached = 2 * (body + head) * 6, 8 * 2 * 3 * 20 * 4
    rollouts = prefill + 4 * (4 * (body + head) + cached)
    assert run.phases["rollouts"] == pytest.approx(rollouts * 1e-9)
    evaluation = 2 * prefill + 4 * (4 * (body + head) + 2 * cached)
    assert run.phases["evaluation"] == pytest.approx(evaluation * 1e-9)
    assert run.phases["reflections and curations"] == 0
    assert run.run_seconds == pytest.approx(
        92 * (teacher + student + rollouts) * 1e-9 + 24 * evaluation * 1e-9
    )


def test_training_costs_six_operations_per_parameter_and_token() -> None:
    run = changed(replace(BIG, hardware=replace(GPUS["h200"], bandwidth=1e30, launch=0)), teacher_prompt=0)
    kept = replace(run, choices=Choices(False, checkpointing=False)).phases["student update"]
    redone = replace(run, choices=Choices(False, checkpointing=True)).phases["student update"]
    tokens, body = 32 * 4096, run.shape.body(0)
    attention = 12 * 36 * 4096 * 4096 / 2  # forward and backward, of the half of a row that causal tokens see
    loss = 1.35 * 6 * 32 * 3072 * run.shape.head
    assert kept == pytest.approx((tokens * (6 * body + attention) / 0.66 + loss) / 680e12)
    assert redone - kept == pytest.approx((kept - loss / 680e12) / 3)


@pytest.mark.parametrize(("prompt", "reply", "teacher", "seconds"), [(2069, 20_480, 16_383, (5.78, 13.18))])
def test_the_measured_update(prompt: int, reply: int, teacher: int, seconds: tuple[float, float]) -> None:
    """Four rows, one at a time, with four billion parameters on an H200: teacher's and student's seconds."""
    run = changed(
        BIG, attempts=4, prompt=prompt, reply=reply, teacher_prompt=teacher, micro_batch_tokens=32_768
    )
    run = replace(run, choices=Choices(True, checkpointing=True))
    found = run.phases["teacher scoring"], run.phases["student update"]
    assert found == pytest.approx(seconds, rel=0.15)


def test_the_measured_loss() -> None:
    """126 ms for 20,480 tokens on an H200, of which all but the body's."""
    run = Forecast(
        replace(BIG.shape, layers=1, intermediate=1, heads=1, kv_heads=1, head_dim=1),
        replace(GPUS["h200"], bandwidth=1e30, launch=0),
        replace(WORK, attempts=1, prompt=1, reply=20_480, teacher_prompt=1),
        Choices(True, checkpointing=False),
    )
    assert run.phases["student update"] == pytest.approx(0.126, rel=0.03)


def test_float32_is_slower_where_bfloat16_is_native() -> None:
    exact = replace(BIG, choices=Choices(True, bfloat16=False))
    assert exact.phases["teacher scoring"] > 4 * BIG.phases["teacher scoring"]
    assert exact.phases["rollouts"] == BIG.phases["rollouts"]  # decoded in bfloat16 all the same


def test_more_work_takes_longer() -> None:
    longer = changed(BIG, reply=6144, longest=6144)
    for name in ("rollouts", "teacher scoring", "student update", "evaluation"):
        assert longer.phases[name] > BIG.phases[name]
    assert (
        changed(BIG, curations=16).phases["reflections and curations"]
        > BIG.phases["reflections and curations"]
    )
    early = changed(BIG, reply=300)
    assert BIG.phases["rollouts"] / 5 < early.phases["rollouts"] < BIG.phases["rollouts"]


def test_nothing_is_asked_for() -> None:
    assert Wave(0, 100, 10, 10).seconds(BIG) == 0.0
    alone = changed(BIG, teacher_prompt=0, reflections=0, curations=0, context_prompt=0)
    assert alone.phases["teacher scoring"] == 0.0
    assert alone.loss_bytes < BIG.loss_bytes


def test_experts() -> None:
    """Two of five: a row reads two, two rows 5 (1 - 0.6^2) on average, many rows all."""
    settings = {**SMALL, **EXPERTS, "model_type": "qwen3_moe", "tie_word_embeddings": False}
    shape = shape_of(settings)
    assert [experts_read(shape, rows) for rows in (1, 2)] == pytest.approx([2, 3.2])
    assert experts_read(shape, 100) == pytest.approx(5)
    assert experts_read(SHAPE, 8) == 0
    sparse = Forecast(shape, ABACUS, WORK, Choices(True))
    assert sparse.standing["weights"] == 4 * shape.parameters
    dense = Forecast(replace(SHAPE, tied=False), ABACUS, WORK, Choices(True))
    assert sparse.bytes_per_token - dense.bytes_per_token == 4 * (2 * (4 * 24 + 3 * 48) - 4 * 80)


def test_what_is_parked_is_not_there_while_replies_are_decoded() -> None:
    parked = replace(BIG, choices=Choices(True, offload=True))
    moved = BIG.standing["optimizer"] + BIG.standing["teacher"]
    assert parked.peaks["decoding"] == BIG.peaks["decoding"] - moved
    assert parked.peaks["update"] == BIG.peaks["update"]
    for busy in (Choices(True, decoders=2, offload=True), Choices(True, offload=True, measured=True)):
        run = replace(BIG, choices=busy)
        assert run.learning["optimizer"] == BIG.standing["optimizer"]
        assert "teacher" in run.always
