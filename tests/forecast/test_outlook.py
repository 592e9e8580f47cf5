"""The forecast of a configured run: its tables, its refusals, and how it is held against measurements."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from resd.config import RunConfig, check_config
from resd.forecast import outlook
from resd.forecast.estimate import Forecast
from resd.forecast.outlook import PEAK, Outlook, choices, look_ahead, prompt_tokens, workload
from resd.records import Problem, ResdError
from resd.training import run_folder
from resd.training.plan import make_plan
from shapes import EXPERTS, QWEN3_4B

PROBLEMS = [Problem(str(size), ({"role": "user", "content": "x" * size},)) for size in (10, 401, 300)]


def folder_of(path: Path, **changes: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**QWEN3_4B, **changes}))
    return str(path)


def configured(tmp_path: Path, **changes: Any) -> RunConfig:
    """Qwen3-4B on 64 problems, two updates for each batch of 32."""
    data = {
        "model": folder_of(tmp_path / "model"),
        "output": str(tmp_path / "run"),
        "rollout": {"max_tokens": 2000},
        "stream": {"updates_per_batch": 2},
        "context": {"max_prompt_tokens": 4000},
    }
    return check_config(data | changes, "test")


def ahead(config: RunConfig, hardware: str = "h200") -> Outlook:
    return look_ahead(config, make_plan(config, 64, 10), PROBLEMS, hardware)


def forecast_of(config: RunConfig, hardware: str = "h200") -> Forecast:
    forecast = ahead(config, hardware).forecast
    assert forecast is not None
    return forecast


def test_the_workload_of_a_configuration(tmp_path: Path) -> None:
    config = configured(tmp_path)
    run = forecast_of(config)
    work = run.workload
    assert prompt_tokens(PROBLEMS) == 201
    assert (work.attempts, work.prompt, work.reply, work.longest) == (32, 201, 2000, 2000)
    assert (work.teacher_prompt, work.context_prompt) == (4000, 4000)
    assert (work.reflections, work.reflection, work.curations, work.curation) == (32, 1024, 8, 512)
    assert (work.samples, work.updates, work.evaluations) == (40, 4, 3)
    plan = make_plan(config, 64, 10)
    small = workload(config, plan, 201, run.shape.__class__(**{**vars(run.shape), "positions": 3000}))
    assert (small.context_prompt, small.teacher_prompt) == (3000 - 1024, 3000 - 2000)


@pytest.mark.parametrize(
    ("changes", "teacher", "engine", "copy", "decoders"),
    [
        ({"algorithm": "resd"}, True, True, True, 1),
        ({"algorithm": "resd", "context": {"author": "teacher"}}, True, True, True, 2),
        ({"algorithm": "sdpo"}, True, False, True, 1),
        ({"algorithm": "sdpo", "teacher": {"kind": "live"}}, True, False, False, 1),
        ({"algorithm": "grpo", "rollout": {"n": 2}}, False, False, False, 1),
    ],
)
def test_what_an_algorithm_needs(
    tmp_path: Path, changes: dict[str, Any], teacher: bool, engine: bool, copy: bool, decoders: int
) -> None:
    run = forecast_of(configured(tmp_path, **changes))
    assert (run.workload.teacher_prompt > 0, run.workload.reflections > 0) == (teacher, engine)
    assert (run.choices.teacher_copy, run.choices.decoders) == (copy, decoders)


def test_what_a_configuration_says_of_memory(tmp_path: Path) -> None:
    said = choices(
        configured(tmp_path, compute_dtype="float32", optimizer={"activation_checkpointing": False})
    )
    assert (said.bfloat16, said.checkpointing) == (False, False)
    assert choices(configured(tmp_path, compute_dtype="bfloat16")).bfloat16 is True
    assert (choices(configured(tmp_path)).bfloat16, choices(configured(tmp_path)).checkpointing) == (
        None,
        None,
    )


def test_tables(tmp_path: Path) -> None:
    found = ahead(configured(tmp_path))
    text = "\n".join(found.lines())
    assert all(len(line) <= 100 for line in found.lines())
    assert "4.02 billion parameters" in text
    # 4,022,468,096 x 4 bytes and x 8, in GiB
    assert any(line.split()[:3] == ["always", "weights", "15.0"] for line in found.lines())
    assert any(line.split()[:2] == ["optimizer", "30.0"] for line in found.lines())
    assert "checkpointed" in text
    assert "fits into 140.0" in text
    for phase in ("rollouts", "reflections and curations", "teacher scoring", "student update", "evaluation"):
        assert phase in text
    found.check()


def test_prompts_longer_than_the_model_takes_are_told(tmp_path: Path) -> None:
    words = "the model has 2,100 positions, too few for the longest"
    for positions, told in ((2100, True), (2201, False)):
        config = configured(tmp_path, model=folder_of(tmp_path / "short", max_position_embeddings=positions))
        assert (words in " ".join(" ".join(ahead(config).lines()).split())) == told


def test_the_whole_run_is_its_updates_and_evaluations(tmp_path: Path) -> None:
    run = forecast_of(configured(tmp_path))
    once = dict(run.phases)
    evaluation = once.pop("evaluation")
    assert run.run_seconds == pytest.approx(4 * sum(once.values()) + 3 * evaluation)


@pytest.mark.parametrize("hardware", ["h100", "rtx4090"])
def test_what_never_fits(tmp_path: Path, hardware: str) -> None:
    """Weights, gradients, moments, teacher and decoder: 22 bytes a parameter, 82 GiB in all."""
    found = ahead(configured(tmp_path), hardware)
    assert "does not fit" in "\n".join(found.lines())
    for check in (found.check, found.check_standing):
        with pytest.raises(ResdError) as refused:
            check()
        said = str(refused.value)
        assert said.startswith("memory: the update may take ")
        assert said.endswith("; use a smaller model, or hardware with more memory")
        assert "of which optimizer 30.0" in said
        assert "\n" not in said


def test_experts_that_never_fit(tmp_path: Path) -> None:
    sizes = {**EXPERTS, "num_experts": 128, "moe_intermediate_size": 768, "model_type": "qwen3_moe"}
    config = configured(tmp_path, model=folder_of(tmp_path / "moe", **sizes))
    assert "for each token" in ahead(config).lines()[0]
    with pytest.raises(ResdError, match="use a smaller model"):
        ahead(config).check_standing()


def test_experts_without_adapters_are_told(tmp_path: Path) -> None:
    sizes = {**EXPERTS, "num_experts": 128, "moe_intermediate_size": 768, "model_type": "qwen3_moe"}
    folder, told = folder_of(tmp_path / "moe", **sizes), []
    for lora in ({"rank": 8}, {"rank": 8, "target_modules": ["q_proj"]}, {}):
        lines = ahead(configured(tmp_path, model=folder, lora=lora)).lines()
        told.append([line for line in lines if "parameters of experts and MLPs" in line])
    count = 36 * 128 * 3 * 2560 * 768 / 1e9
    assert told == [[f"adapters     none for the {count:.3g} billion parameters of experts and MLPs"], [], []]


@pytest.mark.parametrize(
    ("optimizer", "mend"),
    [
        (
            {"micro_batch_tokens": 60_000, "activation_checkpointing": False},
            "set optimizer.activation_checkpointing to true",
        ),
        (
            {"micro_batch_tokens": 10**6},
            "set optimizer.micro_batch_tokens to 6000, the longest row",
        ),
        (
            {"micro_batch_tokens": 10**6, "activation_checkpointing": False},
            "set optimizer.micro_batch_tokens to 6000, the longest row",
        ),
    ],
)
def test_what_fits_after_a_change(tmp_path: Path, optimizer: dict[str, Any], mend: str) -> None:
    """The advice holds: what it says is tried."""
    stream = {"batch_size": 512, "updates_per_batch": 1}
    config = configured(tmp_path, optimizer=optimizer, stream=stream)
    found = look_ahead(config, make_plan(config, 1024, 10), PROBLEMS, "h200")
    found.check_standing()  # a run may still fit, with shorter replies
    with pytest.raises(ResdError, match=mend):
        found.check()
    key, value = mend.removeprefix("set optimizer.").removesuffix(", the longest row").split(" to ")
    changed = {**optimizer, key: json.loads(value)}
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update=changed)})
    look_ahead(config, make_plan(config, 1024, 10), PROBLEMS, "h200").check()


def test_an_engine_without_room(tmp_path: Path) -> None:
    """0.05 of 140 GiB are less than the weights; 0.06 leave 0.9 GiB, and 4,000 + 1,024 tokens take 0.7."""
    engine = {"engine": "vllm", "gpu_memory_utilization": 0.05}
    with pytest.raises(
        ResdError, match=r"gpu_memory_utilization 0\.05 .* leaves 0\.00 GiB .* 5,024 tokens needs"
    ):
        ahead(configured(tmp_path, generation=engine)).check()
    ahead(configured(tmp_path, generation={**engine, "gpu_memory_utilization": 0.06})).check()
    assert choices(configured(tmp_path, generation={"engine": "vllm"})).vllm == 0.4


def test_rows_that_are_too_long_by_themselves(tmp_path: Path) -> None:
    config = configured(tmp_path, rollout={"max_tokens": 200_000})
    with pytest.raises(ResdError, match=r"lower rollout\.max_tokens and context\.max_prompt_tokens"):
        ahead(config).check()


def test_a_hub_name(tmp_path: Path) -> None:
    found = ahead(configured(tmp_path, model="some/model"))
    assert found.forecast is None
    assert "some/model has not been fetched from the hub" in " ".join(found.lines())
    found.check()
    found.check_standing()


def test_a_hub_name_whose_shape_has_been_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's library lays out its cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    fetched = tmp_path / "hub/models--some--model"
    (fetched / "refs").mkdir(parents=True)
    (fetched / "refs/main").write_text("abc")
    expected = ahead(configured(tmp_path), "h200")
    (fetched / "snapshots/abc").mkdir(parents=True)
    shutil.copy(tmp_path / "model/config.json", fetched / "snapshots/abc")
    found = ahead(configured(tmp_path, model="some/model"), "h200")
    assert found.forecast == expected.forecast is not None
    assert ahead(configured(tmp_path, model="-/no-name-of-the-hub")).forecast is None


def test_a_folder_of_adapters_has_the_shape_of_its_model(tmp_path: Path) -> None:
    expected = ahead(configured(tmp_path)).forecast
    (tmp_path / "adapters").mkdir()
    settings = {"base_model_name_or_path": str(tmp_path / "model")}
    (tmp_path / "adapters/adapter_config.json").write_text(json.dumps(settings))
    assert ahead(configured(tmp_path, model=str(tmp_path / "adapters"))).forecast == expected


def test_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit on one device may be sharded over several."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = ahead(configured(tmp_path), "rtx4090")
    assert "several processes" in " ".join(found.lines())
    found.check_standing()


def test_a_folder_that_says_too_little(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "model/config.json").write_text("{}")
    assert "only tokens are counted" in ahead(config).lines()[0]
    assert "hidden_size" in " ".join(ahead(config).lines())


def test_hardware_that_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResdError, match="choose one of"):
        ahead(configured(tmp_path), "abacus")
    with pytest.raises(ResdError, match="choose one of"):
        ahead(configured(tmp_path, model="some/model"), "abacus")

    def unknown(device: str) -> Any:
        raise ResdError(f"a GPU for {device} is not in the table")

    monkeypatch.setattr(outlook, "this_machine", unknown)
    config = configured(tmp_path, device="cuda")
    found = look_ahead(config, make_plan(config, 64, 10), PROBLEMS)
    assert "a GPU for cuda is not in the table" in " ".join(found.lines())


def measured(config: RunConfig, metrics: list[dict[str, Any]], timing: list[dict[str, Any]]) -> list[str]:
    """What the tables say of a run folder with these lines."""
    folder = Path(config.output)
    folder.mkdir()
    (folder / "config.yaml").write_text(run_folder.to_yaml(config))
    for name, rows in (("metrics", metrics), ("timing", timing)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ahead(config).lines()
    assert all(len(line) <= 100 for line in lines)
    end = next(i for i, line in enumerate(lines) if "the run, at most" in line)
    return lines[end + 2 :]


def test_how_far_it_was_off(tmp_path: Path) -> None:
    """Three updates that took twice the forecast for their lengths, but for the first, and one evaluation."""
    config = configured(tmp_path)
    limits = forecast_of(config)
    lengths = {
        "prompt_length/mean": 100,
        "response_length/mean": 500,
        "response_length/max": 900,
        "self_distillation/reprompt_len_mean": 1000,
        "context/curations": 4,
    }
    metrics = [{"kind": "update", "step": step, **lengths} for step in (1, 2, 3)]
    work = outlook.lengths_of(limits.workload, metrics)
    assert (work.prompt, work.reply, work.longest) == (100, 500, 900)
    assert (work.teacher_prompt, work.context_prompt, work.curations) == (1000, 1000, 4)
    expected = Forecast(limits.shape, limits.hardware, work, limits.choices).phases
    update = expected["teacher scoring"] + expected["student update"]
    timing: list[dict[str, Any]] = [
        {"timing_s/generate": factor * expected["rollouts"], "timing_s/update": factor * update}
        for factor in (50, 2, 2)
    ]
    timing.append({"timing_s/evaluation": 0.5 * expected["evaluation"]})
    *title, _, rollouts, learned, evaluation = measured(config, metrics, timing)
    assert "medians of 3 updates and 1 evaluations" in title[0]
    assert rollouts.split()[0] == "rollouts"
    assert rollouts.endswith("2.00x")
    assert learned.strip().startswith("teacher scoring and student update")
    assert learned.endswith("2.00x")
    assert evaluation.endswith("0.50x")


def test_memory_that_was_logged(tmp_path: Path) -> None:
    config = configured(tmp_path)
    half = forecast_of(config).peak / 2**31
    last = measured(config, [], [{PEAK: half / 2}, {PEAK: half}])[-1]
    assert last == f"memory       peak {half:.1f} GiB measured, 0.50 of the forecast"


def test_measurements_of_another_configuration(tmp_path: Path) -> None:
    config = configured(tmp_path)
    measured(config, [], [{"timing_s/update": 1.0}])
    lines = ahead(config.model_copy(update={"seed": 7})).lines()
    assert "not compared: seed" in "\n".join(lines)
    assert not any("off" in line.split() for line in lines)


def test_a_folder_without_measurements(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert "measured" not in "\n".join(ahead(config).lines())


def test_durations() -> None:
    said = {0.25: "0.25 s", 42: "42 s", 300: "5.0 min", 7200: "2.0 h", 200_000: "2.3 days"}
    assert {seconds: outlook._duration(seconds) for seconds in said} == said
