"""Problems that leave no room for a response are told before the first update."""

from pathlib import Path

import pytest

import toy
from resd.learner.model import load_model, load_tokenizer
from resd.records import Problem, ResdError
from resd.training.lengths import check_lengths
from support import save_tiny


def problem(name: str, letters: int) -> Problem:
    return Problem(name, ({"role": "user", "content": "e" * letters},))


def test_problems_that_are_too_long_are_named(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    model, tokenizer = load_model(str(folder)), load_tokenizer(str(folder))
    config = toy.toy_config(folder, tmp_path / "run", rollout={"max_tokens": 96})
    fitting = [problem(f"short/{n}", n) for n in (1, 500, 3000)]
    check_lengths(fitting, config, model, tokenizer)
    check_lengths([], config, model, tokenizer)
    long = [problem(f"long/{n}", 5000 + n) for n in range(5)]
    with pytest.raises(
        ResdError, match=r"^problem long/0, long/1, long/2 and 2 more: prompts of up to 50\d\d"
    ):
        check_lengths([*fitting, *long], config, model, tokenizer)
