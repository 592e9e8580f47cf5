"""Memory and time of adapters, against the program, the library and figures worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forecast.test_estimate import ABACUS, BIG, SHAPE, WORK, saved_bytes
from resd.cli import main
from resd.config import LoRAConfig, check_config
from resd.forecast.estimate import Choices
from resd.forecast.hardware import GIB, GPUS
from resd.forecast.lora import LoRAForecast
from resd.forecast.model_shape import shape_of
from resd.forecast.outlook import choices, make_forecast
from resd.learner.lora import add_adapters, own_parameters
from shapes import QWEN3_4B, SMALL

LORA = LoRAForecast(BIG.shape, GPUS["h200"], WORK, Choices(teacher_copy=True), rank=32)
RECIPE = Path(__file__).parents[2] / "examples/manufactoria-4b-lora.yaml"


@pytest.mark.parametrize("names", [None, ("q_proj", "down_proj")])
def test_what_is_trained(names: tuple[str, ...] | None) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(Qwen3Config(**SMALL, tie_word_embeddings=True))
    add_adapters(model, LoRAConfig(rank=3, target_modules=names or "all-linear"), seed=0, base="small")
    assert SHAPE.adapters(3, names) == sum(parameter.numel() for _, parameter in own_parameters(model))


def test_what_stands() -> None:
    """Inputs and outputs of the seven linear layers of Qwen3-4B, 32 times, in 36 layers."""
    layer = (2560 + 4096) * 2 + (2560 + 1024) * 2 + (2560 + 9728) * 3
    assert LORA.adapters == 36 * 32 * layer == 66_060_288
    assert LORA.standing == {
        "weights": 2 * 4_022_468_096,
        "adapters": 4 * 66_060_288,
        "optimizer": 8 * 66_060_288,
        "teacher": 4 * 66_060_288,
        "decoder": 2 * (4_022_468_096 - 151_936 * 2560),
    }
    assert LORA.updating["gradients"] == 4 * 66_060_288
    asleep = replace(LORA, choices=Choices(False, vllm=0.4))
    assert (asleep.standing["decoder"], asleep.standing["teacher"]) == (0, 0)
    assert asleep.generating["decoder"] == 2 * 4_022_468_096
    on_cpu = replace(LORA, hardware=ABACUS)
    assert on_cpu.standing["weights"] == 4 * 4_022_468_096
    assert on_cpu.standing["decoder"] == 4 * (4_022_468_096 - 151_936 * 2560)


@pytest.mark.parametrize(("bfloat16", "device"), [(True, "cuda"), (True, "cpu"), (False, "cpu")])
def test_what_a_layer_keeps_of_a_token(bfloat16: bool, device: str) -> None:
    """As for all weights; on a GPU weights and residual stream are bfloat16."""
    hardware = replace(ABACUS, device=device)
    run = LoRAForecast(SHAPE, hardware, WORK, Choices(teacher_copy=True, bfloat16=bfloat16), rank=5)

    def adapted(model: Any) -> Any:
        model = model.bfloat16() if device == "cuda" else model
        add_adapters(model, LoRAConfig(rank=5), seed=0, base="small")
        return model

    one, two = (saved_bytes(layers, 2, 64, bfloat16, adapted) for layers in (1, 2))
    assert run.bytes_per_token == (two - one) / (2 * 64)


def test_tiles_of_the_loss() -> None:
    """Two tiles of 512 rows, gradients of 2,048 rows in bfloat16: nothing of the head."""
    assert LORA.loss_bytes == 2 * 512 * 151_936 * 4 + 2048 * 151_936 * 2
    assert LORA.updating["workspace"] - LORA._transient == GIB + 2 * 66_060_288


def test_the_backward_pass_is_one_pass_less() -> None:
    """Neither the body's weights nor the head's have gradients."""
    fast = replace(GPUS["h200"], bandwidth=1e30, launch=0)
    bare = Choices(True, checkpointing=False)
    whole, ours = (replace(run, hardware=fast, choices=bare).phases["student update"] for run in (BIG, LORA))
    head = 1.35 * 2 * 32 * 3072 * BIG.shape.head / 680e12
    assert ours - 3 * head == pytest.approx((whole - 4 * head) * 2 / 3)
    assert LORA.phases["teacher scoring"] < 1.2 * BIG.phases["teacher scoring"]


def test_a_configuration_with_adapters() -> None:
    made = make_forecast(check_config({"lora": {"rank": 8}}, "here"), BIG.shape, GPUS["h200"], WORK)
    assert isinstance(made, LoRAForecast)
    assert (made.rank, made.targets) == (8, None)
    few = check_config({"lora": {"rank": 8, "target_modules": ["self_attn.q_proj"]}}, "here")
    made = make_forecast(few, BIG.shape, GPUS["h200"], WORK)
    assert made.standing["adapters"] == 4 * 8 * 36 * (2560 + 4096)
    assert made.bytes_per_token == LORA.bytes_per_token - 2 * (7 * 32 - 8)
    for kind, copied in (("ema", True), ("frozen", False), ("trust_region", False), ("live", False)):
        config = check_config({"lora": {"rank": 8}, "teacher": {"kind": kind}}, "here")
        assert choices(config).teacher_copy == copied


def test_the_recipe_fits_into_24_gb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(QWEN3_4B))
    words = ["train", str(RECIPE), "--dry-run", "--hardware", "RTX4090", f"model={tmp_path / 'model'}"]
    main(words)  # what does not fit would be refused
    said = capsys.readouterr().out
    assert "fits into 23.0" in said
    assert "66.1 million parameters" in said
    assert "bfloat16" in next(line for line in said.splitlines() if line.startswith("always"))
    with pytest.raises(SystemExit):
        main([*words, "lora.rank=null"])


def test_adapters_of_shapes_with_experts() -> None:
    """Experts have none: attention, and the MLPs of dense layers."""
    sparse = shape_of({**SMALL, "num_experts": 4, "num_experts_per_tok": 2})
    attention = sparse.adapters(1, ("q_proj", "k_proj", "v_proj", "o_proj"))
    assert sparse.adapters(1) == attention < SHAPE.adapters(1)
