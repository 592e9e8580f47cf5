"""One problem's rounds: the attempt, its feedback, the reflection on it, and what came next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resd.chat import split_thinking
from resd.context.curation import Addition, parse_curation
from resd.context.reflection import Reflection, parse_reflection
from resd.report.runs import Run, clip, damaged

# A long run's rollouts are large: only the first batches are searched.
MOST_BATCHES = 40

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Round:
    """The best attempt at the problem in one update, and what followed from it.

    `solved` of `tries` attempts passed all tests. `reflection` is None if there was none, such as after a
    success; `additions` are what the curator took from it.
    """

    step: int
    round: int
    tries: int
    solved: int
    passed: int
    total: int
    tokens: int
    cut: bool
    thinking: str
    answer: str
    feedback: str
    reflection: Reflection | None
    additions: tuple[Addition, ...]
    teacher_prompt: str | None
    teacher_sections: Sequence[str]

    @property
    def is_solved(self) -> bool:
        return self.solved > 0

    @property
    def pass_rate(self) -> float:
        return self.passed / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Story:
    """The rounds of one problem in its batch, in order."""

    problem: str
    question: str
    batch: int
    rounds: Sequence[Round]

    @property
    def learned(self) -> bool:
        """Whether a failed round is followed, at once or later, by a successful one."""
        outcomes = [r.is_solved for r in self.rounds]
        return False in outcomes and True in outcomes[outcomes.index(False) :]

    @property
    def outcome(self) -> str:
        """Such as "solved in round 3 of 4": a problem that was solved once may fail again."""
        solved = [str(each.round + 1) for each in self.rounds if each.is_solved]
        last = self.rounds[-1].round + 1
        if not solved:
            return f"not solved in {last} round{'s' if last > 1 else ''}"
        if len(solved) == len(self.rounds) > 1:
            return f"solved in all {last} rounds"
        return f"solved in round{'s' if len(solved) > 1 else ''} {_listed(solved)} of {last}"

    @property
    def progress(self) -> float:
        """How much more of the tests the last round passes than the first."""
        return self.rounds[-1].pass_rate - self.rounds[0].pass_rate


def _listed(words: Sequence[str]) -> str:
    """Such as "2, 3 and 4"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def choose_story(run: Run) -> Story | None:
    """The first problem that fails and is later solved within its batch; else the one that improves most.

    None if rollouts were not kept.
    """
    furthest: Story | None = None
    for batch in _batches(run):
        for story in _stories(run, batch):
            if story.learned:
                return story
            if furthest is None or _interest(story) > _interest(furthest):
                furthest = story
    return furthest


def _interest(story: Story) -> tuple[float, int]:
    return story.progress, len(story.rounds)


def _batches(run: Run) -> Iterator[list[tuple[int, int, int]]]:
    """(step, batch, round) of the first batches' updates."""
    batches: dict[int, list[tuple[int, int, int]]] = {}
    for row in run.updates:
        batch = int(row.get("batch", 0))
        batches.setdefault(batch, []).append((int(row["step"]), batch, int(row.get("round", 0))))
    yield from list(batches.values())[:MOST_BATCHES]


def _stories(run: Run, batch: Sequence[tuple[int, int, int]]) -> list[Story]:
    rounds: dict[str, list[Round]] = {}
    questions: dict[str, str] = {}
    for step, _, number in batch:
        try:
            rows = run.rollouts(step)
            for problem, tries in _by_problem(rows).items():
                questions[problem] = clip(str(tries[0]["question"]))
                rounds.setdefault(problem, []).append(read_round(step, number, tries, rows))
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(run.rollout_file(step), error) from error
    return [Story(problem, questions[problem], batch[0][1], each) for problem, each in rounds.items()]


def _by_problem(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "attempt":
            groups.setdefault(str(row["problem"]), []).append(row)
    return groups


def read_round(step: int, number: int, tries: Rows, rows: Rows) -> Round:
    best = max(tries, key=lambda row: (_solved(row), row["passed"]))
    thinking, answer = split_thinking(str(best["response"]))
    prompt = best["teacher_prompt"]
    return Round(
        step=step,
        round=number,
        tries=len(tries),
        solved=sum(_solved(row) for row in tries),
        passed=int(best["passed"]),
        total=int(best["total"]),
        tokens=int(best["tokens"]),
        cut=best["finish_reason"] == "length",
        thinking=clip(thinking),
        answer=clip(answer),
        feedback=clip(str(best["feedback"])),
        reflection=read_reflection(said(rows, "reflect", best["key"])),
        additions=_additions(said(rows, "curate", best["key"])),
        teacher_prompt=None if prompt is None else clip(str(prompt)),
        teacher_sections=[str(name) for name in best["teacher_sections"]],
    )


def _solved(row: Mapping[str, Any]) -> bool:
    return bool(row["total"] > 0 and row["passed"] == row["total"])


def said(rows: Rows, role: str, key: object) -> str | None:
    """The model's reply in this role about the attempt `key`."""
    said = (r for r in rows if r["kind"] == "context" and r["role"] == role and r["key"] == key)
    return next((str(row["output"]) for row in said), None)


def read_reflection(text: str | None) -> Reflection | None:
    """The parsed reflection, or the clipped text if it cannot be parsed."""
    if text is None:
        return None
    reflection = parse_reflection(split_thinking(text)[1], ())
    return replace(reflection, raw=clip(reflection.raw))


def _additions(text: str | None) -> tuple[Addition, ...]:
    return () if text is None else parse_curation(text).additions
