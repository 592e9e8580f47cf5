"""Demonstrations: successful responses to show for a failed attempt."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from resd.context.seeding import derive_seed
from resd.records import Attempt


class SolutionBuffer:
    """Problem id -> text of a successful response, kept between updates."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, problem_id: str) -> str:
        """The stored response; "" if the problem was never solved."""
        return self._texts.get(problem_id, "")

    def record(self, attempts: Sequence[Attempt]) -> None:
        """Keep the first success of this step for each problem that has one."""
        for problem_id, texts in _successes(attempts).items():
            self._texts[problem_id] = texts[0]

    def state_dict(self) -> dict[str, str]:
        return dict(self._texts)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        self._texts = dict(state)


def demonstrations(
    attempts: Sequence[Attempt], buffer: SolutionBuffer | None, seed: int, step: int
) -> dict[str, str]:
    """The response to show, by attempt key: its own if it succeeded, else a peer's from this step, else the
    buffer's, else "". Peers are drawn uniformly: taking the first would favour short responses.
    """
    successes = _successes(attempts)
    shown = {}
    for attempt in attempts:
        peers = successes.get(attempt.problem.id, [])
        if attempt.verdict.solved:
            shown[attempt.key] = attempt.response.text
        elif peers:
            draw = random.Random(derive_seed(seed, step, attempt.key, "demonstration"))
            shown[attempt.key] = draw.choice(peers)
        else:
            shown[attempt.key] = buffer.get(attempt.problem.id) if buffer else ""
    return shown


def _successes(attempts: Sequence[Attempt]) -> dict[str, list[str]]:
    by_problem: dict[str, list[str]] = {}
    for attempt in attempts:
        if attempt.verdict.solved:
            by_problem.setdefault(attempt.problem.id, []).append(attempt.response.text)
    return by_problem
