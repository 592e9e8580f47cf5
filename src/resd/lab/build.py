"""The recipe that makes the lab model: `resd lab build`. Minutes on one GPU; runs on CPUs as well."""

from __future__ import annotations

import json
import math
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from resd.context.prompts import COMPACT
from resd.lab.batches import KINDS, MAX_LENGTH, Batch, BatchStream, loader
from resd.lab.pool import make_corpus
from resd.lab.tokenizer import END, PAD, build_tokenizer, vocabulary
from resd.records import ResdError


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights; the number of workers decides the order of batches."""

    steps: int = 14_500
    tokens_per_step: int = 65_536  # padded
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    hidden: int = 256
    layers: int = 8
    seed: int = 0
    workers: int = 14


def add_arguments(parser: ArgumentParser) -> None:
    """Options of `resd lab build`."""
    parser.add_argument("--output", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="compile the layers (worth it on a GPU)")
    parser.add_argument("--save-every", type=int, default=2000, help="steps between resumable states")
    for name, default in asdict(Recipe()).items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"default {default}")


def build(args: Namespace) -> None:
    """Pre-train, resuming from `<output>/state.pt` where it exists, and save the model folder.

    Raises ResdError for steps that cannot hold the longest documents: those would pile up and never be seen.
    """
    recipe = Recipe(**{name: getattr(args, name) for name in asdict(Recipe())})
    if recipe.tokens_per_step < MAX_LENGTH:
        raise ResdError(
            f"--tokens-per-step {recipe.tokens_per_step}: one document may have {MAX_LENGTH} tokens; "
            f"give at least {MAX_LENGTH}"
        )
    device = torch.device(
        args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    )
    args.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    trainer = Pretrainer(make_model(recipe).to(device), recipe, args.output / "state.pt", args.save_every)
    trainer.run(compiled=args.compile)
    save(trainer.model, recipe, args.output)
    trainer.state_path.unlink(missing_ok=True)


def make_model(recipe: Recipe) -> Any:
    """A Qwen3 of about 6 M parameters, freshly initialised, in float32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokens = vocabulary()
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokens),
            hidden_size=recipe.hidden,
            intermediate_size=3 * recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.hidden // 32,
            num_key_value_heads=recipe.hidden // 64,
            head_dim=32,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            pad_token_id=tokens.index(PAD),
            eos_token_id=tokens.index(END),
            bos_token_id=None,
        )
    )


class Pretrainer:
    """Next-token training on responses only: AdamW, warm-up, cosine to zero."""

    def __init__(self, model: Any, recipe: Recipe, state_path: Path, save_every: int) -> None:
        self.model, self.recipe = model, recipe
        self.state_path, self.save_every = state_path, save_every
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay, fused=True,
        )  # fmt: skip
        if state_path.exists():
            self._load()

    def run(self, compiled: bool) -> None:
        if compiled:
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)
        log = _Log(self.recipe)
        for batch in islice(self._batches(), self.recipe.steps - self.step):
            losses = self._train(batch)
            self.step += 1
            log.add(self.step, losses, batch)
            if self.step % self.save_every == 0:
                self._save()

    def _batches(self) -> Iterator[Batch]:
        """A resumed run draws a new stream: data is never repeated."""
        stream = BatchStream(make_corpus, self.recipe.seed + self.step, self.recipe.tokens_per_step)
        return iter(loader(stream, self.recipe.workers))

    def _train(self, batch: Batch) -> torch.Tensor:
        device = self.model.device
        rows, index, targets, kinds = (
            tensor.to(device, non_blocking=True)
            for tensor in (batch.rows, batch.index, batch.targets, batch.kinds)
        )
        with torch.autocast(device.type, torch.bfloat16):
            hidden = self.model.model(input_ids=rows, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden.flatten(0, 1)[index])
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        losses.mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.zeros(len(KINDS), device=device).index_add_(0, kinds, losses.detach())

    def _learning_rate(self) -> float:
        r = self.recipe
        warm = min(1.0, (self.step + 1) / r.warmup_steps)
        return r.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.step / r.steps))

    def _save(self) -> None:
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        state = {"step": self.step, "model": model, "optimizer": optimizer}
        temporary = self.state_path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.state_path)

    def _load(self) -> None:
        state = torch.load(self.state_path, map_location=self.model.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


class _Log:
    """One line every hundred steps: speed and nats per document of each kind."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._start, self._tokens = recipe, time.perf_counter(), 0
        self._sums: torch.Tensor | None = None
        self._documents = [0] * len(KINDS)

    def add(self, step: int, losses: torch.Tensor, batch: Batch) -> None:
        self._sums = losses if self._sums is None else self._sums + losses
        self._documents = [a + b for a, b in zip(self._documents, batch.documents, strict=True)]
        self._tokens += batch.rows.numel()
        if step % 100 == 0 or step == self._recipe.steps:
            self._print(step)

    def _print(self, step: int) -> None:
        assert self._sums is not None
        seconds = time.perf_counter() - self._start
        pairs = zip(KINDS, self._sums.tolist(), self._documents, strict=True)
        nats = "  ".join(f"{kind} {total / max(n, 1):.3f}" for kind, total, n in pairs)
        speed = f"{self._tokens / seconds / 1e6:.2f} M tokens/s"
        print(f"step {step}/{self._recipe.steps}  {seconds:.0f} s  {speed}  nats: {nats}", flush=True)
        self._sums, self._documents = None, [0] * len(KINDS)


def save(model: Any, recipe: Recipe, folder: Path) -> None:
    """A folder that `AutoModelForCausalLM.from_pretrained` loads: bf16 weights, tokenizer, and `lab.json`."""
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors keeps it to its owner; it is to be shipped
    build_tokenizer().save_pretrained(folder)
    about = {"prompts": COMPACT.fingerprint(), "recipe": asdict(recipe)}
    (folder / "lab.json").write_text(json.dumps(about, indent=2) + "\n")
