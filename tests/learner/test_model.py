from pathlib import Path
from typing import Any

import pytest
import torch

from resd.learner.model import (
    autocast,
    head_logits,
    last_hidden,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from resd.records import ResdError
from support import save_tiny, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_a_saved_model_comes_back(folder: Path) -> None:
    model, tokenizer = load_model(str(folder), "cpu"), load_tokenizer(str(folder))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    for name, expected in tiny_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], expected)
    assert tokenizer.decode(tokenizer("move").input_ids) == "move"


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_what_is_no_model_is_one_sentence(load: Any, tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="no such folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ResdError, match="could be loaded"):
        load(str(tmp_path))


def test_a_model_that_scales_its_logits_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "resd.learner.model.head_logits", lambda model, hidden: 2 * head_logits(model, hidden)
    )
    with pytest.raises(ResdError, match="not a linear map"):
        load_model(str(folder))


def test_body_and_head_are_the_model() -> None:
    model, ids = tiny_model(), torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        ours, expected = head_logits(model, last_hidden(model, ids)), model(input_ids=ids).logits
    torch.testing.assert_close(ours, expected)


def test_the_head_sums_in_float32_from_bfloat16_inputs() -> None:
    model, hidden = tiny_model(), torch.randn(3, 32)
    with autocast(torch.device("cpu"), torch.bfloat16):
        ours = head_logits(model, hidden)
    weight = model.get_output_embeddings().weight.detach()
    expected = hidden.bfloat16().double() @ weight.bfloat16().double().T
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=1e-5)
    assert head_logits(model.double(), hidden.double()).dtype == torch.float64


def test_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cpu = resolve_device("auto")
    assert cpu == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ResdError, match="no CUDA device"):
        resolve_device("cuda")
    assert resolve_dtype("float32", cpu) == torch.float32
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert resolve_dtype("auto", cpu) == (torch.bfloat16 if fast else torch.float32)
