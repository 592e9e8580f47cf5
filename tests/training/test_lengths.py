"""Problems that leave no room for a response are told before the first update."""

from pathlib import Path

import pytest

import toy
from resd.learner.model import load_model, load_tokenizer
from resd.records import Problem, ResdError
from resd.training.lengths import check_lengths, check_teacher_prompts
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


@pytest.mark.parametrize("algorithm", ["resd", "sdpo", "grpo"])
def test_no_room_for_any_teacher_prompt(tmp_path: Path, algorithm: str) -> None:
    folder = save_tiny(tmp_path / "model")
    model, tokenizer = load_model(str(folder)), load_tokenizer(str(folder))

    def check(letters: tuple[int, ...], tokens: int, response: int = 96) -> None:
        config = toy.toy_config(
            folder,
            tmp_path / "run",
            algorithm=algorithm,
            rollout={"n": 2, "max_tokens": response},
            context={"style": "compact", "max_prompt_tokens": tokens},
        )
        problems = [problem(f"p/{n}", n) for n in letters]
        check_teacher_prompts(problems, config, model, tokenizer)

    positions = model.config.max_position_embeddings
    check((500, 300), 1024)
    check((500, 20), 200)  # one has room
    check((), 16)
    if algorithm == "grpo":  # without a teacher
        check((500, 300), 200)
        return
    with pytest.raises(ResdError, match=r"^context\.max_prompt_tokens 200: .* takes 3\d\d tokens; raise it"):
        check((500, 300), 200)
    with pytest.raises(ResdError, match=r"^rollout\.max_tokens \d+: leaves 100 of .* lower it"):
        check((500, 300), 1024, response=positions - 100)
