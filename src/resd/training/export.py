"""Exporting a checkpoint as a plain model folder, with adapters merged and in a chosen dtype."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from resd.records import ResdError
from resd.training import checkpoint, journal
from resd.writing import writing

if TYPE_CHECKING:
    import torch

DTYPES = "float32", "bfloat16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="RUN_OR_CHECKPOINT")
    parser.add_argument("output", type=Path, metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the weights (default float32)")
    parser.add_argument("--teacher", action="store_true", help="the teacher's weights, not the student's")
    parser.add_argument(
        "--best",
        action="store_true",
        help="of a run: the kept checkpoint with the best evaluation, by default on the test split",
    )
    parser.set_defaults(run=export)


def export(args: argparse.Namespace) -> None:
    """`resd export`: choose a checkpoint, load it, write it atomically."""
    _check_output(args.output)
    found = choose(args.source, best=args.best)
    chosen_by = f", the best on split {_split(args.source)}" if args.best else ""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    write_model(found, args.output, dtype=getattr(torch, args.dtype), teacher=args.teacher)
    print(f"{found}{chosen_by}{': its teacher' if args.teacher else ''}, in {args.dtype}: {args.output}")
    if args.best:
        print("Its results on that split are those of a chosen checkpoint: measure it on other problems.")


def choose(source: Path, *, best: bool = False) -> Path:
    """Choose a checkpoint: the source itself, or a run's newest one, or with `best` its best one kept.

    Raises ResdError if there is none.
    """
    if any((source / name).is_file() for name in checkpoint.MODEL_FILES):
        if best:
            raise ResdError(f"--best: {source} is one checkpoint; give the folder of its run")
        return source
    kept = checkpoint.saved(source / "checkpoints")
    if not kept:
        raise ResdError(f"export {source}: is neither a checkpoint nor a run that has one")
    return _best(source, kept) if best else kept[-1]


def write_model(found: Path, output: Path, *, dtype: torch.dtype, teacher: bool = False) -> None:
    """Write model and tokenizer to `output`, in the format of `from_pretrained`."""
    from resd.learner.model import load_model, load_tokenizer

    model = load_teacher(found, dtype) if teacher else load_model(str(found), dtype=dtype)
    tokenizer = load_tokenizer(str(found))

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    with writing(f"export {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_folder(output, fill)


def load_teacher(found: Path, dtype: torch.dtype) -> Any:
    """Load the plain model of a checkpoint's teacher. Raises ResdError if the teacher has no own weights."""
    from resd.generation.merging import merge
    from resd.learner.lora import own_state
    from resd.learner.model import load_unmerged

    weights = _teacher_weights(found)
    model = load_unmerged(str(found), dtype=dtype)
    for name, tensor in own_state(model).items():
        tensor.copy_(weights[name])
    return merge(model)


def _teacher_weights(found: Path) -> Mapping[str, Any]:
    from resd.learner import saving

    state = found / checkpoint.STATE
    if not state.is_dir():
        raise ResdError(f"--teacher: {found} is not a checkpoint of a run, and has no teacher")
    weights: Mapping[str, Any] = saving.whole(state, "teacher").get("model", {})
    if not weights:
        raise ResdError(
            f"--teacher: the run of {found} keeps no weights for its teacher: it scores with those of the "
            "student, or with the run's initial weights"
        )
    return weights


def _best(run: Path, kept: list[Path]) -> Path:
    """The best checkpoint by mean reward on held-out problems; the latest of equals."""
    scores = {
        row["step"]: value
        for row in journal.read(run / journal.METRICS)
        if row.get("kind") == "evaluation"
        for name, value in row.items()
        if name.startswith("val/") and "/reward/mean@" in name
    }
    measured = [path for path in kept if int(path.name) in scores]
    if not measured:
        raise ResdError(
            f"--best: none of the checkpoints that {run} keeps was evaluated ({_steps(kept)}); evaluations "
            f"were after {', '.join(map(str, scores)) or 'no'} updates"
        )
    return max(reversed(measured), key=lambda path: scores[int(path.name)])


def _split(run: Path) -> str:
    """The split that the run was evaluated on. Raises ResdError for a damaged configuration."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        return str(config["evaluation"]["split"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ResdError(f"--best: {run}/config.yaml cannot be read; restore the file") from error


def _steps(kept: list[Path]) -> str:
    return ", ".join(path.name for path in kept)


def _check_output(output: Path) -> None:
    """Check the output folder before the work, not after it."""
    if output.is_dir() and any(output.iterdir()):
        raise ResdError(f"export {output}: is not empty; name a folder that does not exist yet")
    if output.exists() and not output.is_dir():
        raise ResdError(f"export {output}: is a file; name a folder")
