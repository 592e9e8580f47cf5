"""Credit: what a lesson is worth, measured by the teacher's predictions instead of counted from votes.

A problem that is failed and then solved while its batch is in use gives a contrast: two responses to one
question, one of which is right. The credit of an entry from a contrast is how much more the teacher prefers
the solved response when its prompt shows that entry alone, in nats:

    log p(solved | x, entry) / p(failed | x, entry) - log p(solved | x) / p(failed | x)

The effect that any text before the question has on both responses cancels. A true lesson makes the failure's
mistake less likely, a wrong one more likely; an unrelated lesson has no effect. The reflector's tags, by
which the paper prunes (arXiv 2605.12741, appendix D), are opinions about the same thing: they come sooner,
but from the model that may have written the lesson.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.seeding import derive_seed
from resd.records import Attempt, Problem

Tokens = tuple[int, ...]
# The teacher's log-probability of the whole response for each (prompt, response), in nats.
Score = Callable[[Sequence[tuple[Tokens, Tokens]]], Sequence[float]]
Standing = Literal["open", "proven", "refuted"]

MIN_CONTRASTS = 4  # with fewer, nothing is decided
DECISIVE = 2.0  # standard errors from zero
# Nats. Without a floor, credits equal to the last digit would make any mean decisive, however small.
MIN_DEVIATION = 0.25
MAX_CONTRASTS = 4  # per update: fewer contrasts let each measure more entries


@dataclass(frozen=True, slots=True)
class Contrast:
    """A failed and a solved response to one problem, as tokens."""

    problem: Problem
    failed: Tokens
    solved: Tokens


def standing(entry: Entry) -> Standing:
    """Whether an entry's mean credit is decisively above or below zero."""
    n = entry.measured
    if n < MIN_CONTRASTS:
        return "open"
    mean = entry.credit / n
    variance = max(0.0, entry.credit_squares - n * mean * mean) / (n - 1)
    certainty = mean * sqrt(n) / max(sqrt(variance), MIN_DEVIATION)
    if abs(certainty) < DECISIVE:
        return "open"
    return "proven" if certainty > 0 else "refuted"


class CreditMeter:
    """Finds contrasts among the attempts at a batch, and measures entries by them.

    Remembers the last failure at each problem of the current batch. `budget` bounds the number of
    (entry, contrast) measurements per playbook and update; each one scores two responses.
    """

    def __init__(self, builder: PromptBuilder, score: Score, budget: int, seed: int) -> None:
        self._builder, self._score, self._budget, self._seed = builder, score, budget, seed
        self._failed: dict[str, Tokens] = {}

    def contrasts(self, attempts: Sequence[Attempt], step: int) -> list[Contrast]:
        """One per problem solved now and failed now or before; at most a few, drawn with `step` as seed."""
        now = {a.problem.id: a.response.token_ids for a in reversed(attempts) if not a.verdict.solved}
        known = {**self._failed, **now}
        solved = {a.problem.id: a for a in reversed(attempts) if a.verdict.solved}
        in_use = {attempt.problem.id for attempt in attempts}
        self._failed = {id_: tokens for id_, tokens in known.items() if id_ in in_use}
        found = [
            Contrast(attempt.problem, known[id_], attempt.response.token_ids)
            for id_, attempt in solved.items()
            if known.get(id_) and attempt.response.token_ids
        ]
        found.sort(key=lambda contrast: derive_seed(self._seed, step, contrast.problem.id, "contrast"))
        return found[:MAX_CONTRASTS]

    def measure(self, contrasts: Sequence[Contrast], entries: Sequence[Entry]) -> dict[str, list[float]]:
        """Credits by entry id. Undecided entries come first, the least measured before others.

        Non-finite scores are skipped: no running sum would recover from one.
        """
        if not contrasts or not entries:
            return {}
        contrasts = contrasts[: self._budget]
        count = self._budget // len(contrasts)
        chosen = sorted(entries, key=lambda entry: (standing(entry) != "open", entry.measured))[:count]
        pairs = [pair for contrast in contrasts for pair in self._pairs(contrast, chosen)]
        scores = self._score(pairs)
        preferences = [right - wrong for right, wrong in zip(scores[::2], scores[1::2], strict=True)]
        width = 1 + len(chosen)
        rows = [preferences[start : start + width] for start in range(0, len(preferences), width)]
        credits = {entry.id: [row[1 + i] - row[0] for row in rows] for i, entry in enumerate(chosen)}
        finite = {id_: [value for value in values if isfinite(value)] for id_, values in credits.items()}
        return {id_: values for id_, values in finite.items() if values}

    def state_dict(self) -> dict[str, list[int]]:
        """JSON-able."""
        return {id_: list(tokens) for id_, tokens in self._failed.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[int]]) -> None:
        self._failed = {id_: tuple(tokens) for id_, tokens in state.items()}

    def _pairs(self, contrast: Contrast, entries: Sequence[Entry]) -> list[tuple[Tokens, Tokens]]:
        """The bare question, then the question after each entry; each with the solved and failed response."""
        shown: list[Sequence[Entry]] = [(), *((entry,) for entry in entries)]
        prompts = [self._builder.ask(contrast.problem, alone) for alone in shown]
        return [(prompt, reply) for prompt in prompts for reply in (contrast.solved, contrast.failed)]
