"""One context update: concise, reflect and tag in one wave, curate in small waves, concise, advance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from resd.config import ContextConfig
from resd.context.concise import frequency_triggers
from resd.context.credit import CreditMeter, Score, standing
from resd.context.curation import parse_curation
from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.journal import Change
from resd.context.playbook import Playbook
from resd.context.prompts.base import PromptStyle
from resd.context.reflection import Reflection, Tags, parse_reflection, parse_tags
from resd.context.roles import Ask, Asker
from resd.context.solutions import SolutionBuffer, demonstrations
from resd.context.waves import CurationQueue
from resd.generation.engine import GenerationEngine, generate
from resd.records import Attempt, Problem, ResdError

# Always reported, even when zero.
_COUNTS = (
    "playbook/removed",
    "playbook/refuted",
    "playbook/refused",
    "context/credits",
    "context/reflections",
    "context/reflections_rejected",
    "context/lessons_rejected",
    "context/tag_replies_rejected",
    "context/tags_applied",
    "context/tags_unknown",
    "context/curations",
    "context/curations_rejected",
    "context/curations_skipped",
    "context/operations_rejected",
    "context/prompts_truncated",
)


@dataclass(frozen=True, slots=True)
class ContextUpdate:
    """The result of one context update.

    `reflections` (failures only) and `solutions` (response texts, "" for none) are keyed by attempt.
    `records` contain every prompt and reply.
    """

    reflections: Mapping[str, Reflection]
    solutions: Mapping[str, str]
    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]


@dataclass
class _Step:
    """The working state of one update."""

    attempts: Sequence[Attempt]
    number: int
    asker: Asker
    playbooks: Sequence[Playbook]  # the playbooks of this step's problems
    counts: Counter[str] = field(default_factory=Counter)
    records: list[dict[str, Any]] = field(default_factory=list)
    reflections: dict[str, Reflection] = field(default_factory=dict)


class ContextUpdater:
    """Owns the playbook (one per problem in `per_example` mode), its snapshot and the solution buffer.

    The engine, which decodes with the weights of `context.author`, must be awake during `update`.
    """

    def __init__(
        self,
        config: ContextConfig,
        style: PromptStyle,
        engine: GenerationEngine,
        tokenizer: Any,
        seed: int,
        thinking: bool,
        score: Score | None = None,
    ) -> None:
        self.config = config
        self.style = style
        self.engine = engine
        self.seed = seed
        self.solutions = SolutionBuffer()
        self._builder = PromptBuilder.configured(config, style, tokenizer, thinking)
        self._meter: CreditMeter | None = None
        if config.credit == "measured":
            assert score is not None, "measured credit needs the teacher's scores"
            self._meter = CreditMeter(self._builder, score, config.credit_budget, seed)
        self._playbooks: dict[str, Playbook] = {}
        self._snapshots: dict[str, tuple[Entry, ...]] = {}  # shown to the student

    def playbook_for(self, problem_id: str) -> Playbook:
        """The playbook of this problem; empty at first."""
        return self._playbooks.setdefault(self._name(problem_id), Playbook())

    def taught(self, problem_id: str) -> tuple[Entry, ...]:
        """The entries shown to the teacher for this problem."""
        entries = self.playbook_for(problem_id).entries
        if self.config.probation == "shown":
            return entries
        return tuple(entry for entry in entries if standing(entry) == "proven")

    def rollout_prompt(self, problem: Problem) -> tuple[int, ...]:
        """The prompt of a training rollout: the question, preceded by the playbook snapshot if there is one.

        Worded as for the teacher. The problem itself is unchanged: no other role sees this prompt.
        """
        return self._builder.ask(problem, self._snapshots.get(self._name(problem.id), ()))

    def held_out_prompt(self, problem: Problem) -> tuple[int, ...]:
        """The prompt of a held-out rollout: the question, preceded by the playbook as the teacher sees it."""
        return self._builder.ask(problem, self.taught(problem.id))

    def update(self, attempts: Sequence[Attempt], step: int) -> ContextUpdate:
        """Learn from graded attempts. Bad replies are counted in the metrics, never raised."""
        asker = Asker(self.config, self._builder, self.seed, step)
        active = {id(playbook): playbook for playbook in map(self._playbook_of, attempts)}
        run = _Step(attempts, step, asker, list(active.values()))
        before = Counter(added=self._sum("next_number"), merged=self._sum("merged"))
        for playbook in run.playbooks:
            due = frequency_triggers(playbook.update_count, self.config.concise_frequency)
            self._concise(run, playbook, due=due)
        self._measure(run)
        self._reflect_and_tag(run)
        self._curate(run)
        for playbook in run.playbooks:
            self._concise(run, playbook, due=False, allowed=self.config.concise_after_curation)
            playbook.advance()
        self._take_snapshots(attempts)
        run.counts["playbook/added"] = self._sum("next_number") - before["added"]
        run.counts["playbook/merged"] = self._sum("merged") - before["merged"]
        return self._result(run)

    def drain_journal(self) -> list[Change]:
        """Playbook changes since the last call, to append to the run's journal (`journal.append`)."""
        return [
            {"playbook": name, **change} if name else change
            for name, playbook in self._playbooks.items()
            for change in playbook.drain()
        ]

    def state_dict(self) -> dict[str, Any]:
        """JSON-serializable: playbooks, snapshots, solution buffer, and the wording that produced them."""
        return {
            "playbooks": {name: playbook.state() for name, playbook in self._playbooks.items()},
            "snapshots": {name: list(map(asdict, entries)) for name, entries in self._snapshots.items()},
            "solutions": self.solutions.state_dict(),
            "failures": self._meter.state_dict() if self._meter else {},
            "prompts": self.style.fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ResdError if the state was made with another wording: the run would change midway."""
        if state.get("prompts", self.style.fingerprint()) != self.style.fingerprint():
            source = f"context.prompts {self.config.prompts}" if self.config.prompts else "context.style"
            raise ResdError(
                f"{source}: the wording differs from the one the run started with; restore it to resume, "
                "or choose another output"
            )
        snapshots = state.get("snapshots", {})  # older states have none
        self._snapshots = {
            name: tuple(Entry(**entry) for entry in entries) for name, entries in snapshots.items()
        }
        self._playbooks = {name: Playbook.from_state(saved) for name, saved in state["playbooks"].items()}
        self.solutions.load_state_dict(state["solutions"])
        if self._meter:
            self._meter.load_state_dict(state.get("failures", {}))

    def _name(self, problem_id: str) -> str:
        return problem_id if self.config.mode == "per_example" else ""

    def _take_snapshots(self, attempts: Sequence[Attempt]) -> None:
        for name in {self._name(attempt.problem.id): None for attempt in attempts}:
            playbook = self._playbooks[name]
            if frequency_triggers(playbook.update_count, self.config.snapshot_every):
                self._snapshots[name] = playbook.entries

    def _playbook_of(self, attempt: Attempt) -> Playbook:
        return self.playbook_for(attempt.problem.id)

    def _concise(self, run: _Step, playbook: Playbook, *, due: bool, allowed: bool = True) -> None:
        limit = self.config.max_entries
        over = limit is not None and len(playbook) > limit
        if due or (over and allowed):
            removed = playbook.concise(self.config.concise_method, limit if over else None)
            run.counts["playbook/removed"] += len(removed)

    def _measure(self, run: _Step) -> None:
        """Measure entries by this step's contrasts, and remove the refuted ones."""
        if self._meter is None:
            return
        contrasts = self._meter.contrasts(run.attempts, run.number)
        for playbook in run.playbooks:
            own = [c for c in contrasts if self.playbook_for(c.problem.id) is playbook]
            for entry_id, values in self._meter.measure(own, playbook.entries).items():
                playbook.credit(entry_id, values)
                run.counts["context/credits"] += len(values)
            run.counts["playbook/refuted"] += len(playbook.refute())

    def _reflect_and_tag(self, run: _Step) -> None:
        """Reflect in one wave against the current playbook; then apply tags in the order of the attempts."""
        failures = [attempt for attempt in run.attempts if not attempt.verdict.solved]
        successes = [attempt for attempt in run.attempts if attempt.verdict.solved]
        entries = {id(playbook): playbook.entries for playbook in run.playbooks}

        def shown(attempt: Attempt) -> tuple[Entry, ...]:
            return entries[id(self._playbook_of(attempt))]

        asks = [run.asker.reflect(attempt, shown(attempt)) for attempt in failures]
        if self.config.tag_successes:
            asks += [
                run.asker.tag(attempt, shown(attempt))
                for attempt in self._chosen(successes)
                if shown(attempt)
            ]
        for ask, text in self._generate(run, asks):
            if ask.role == "reflect":
                self._apply_tags(run, ask, self._reflection(run, ask, text).tags)
            else:
                tags = parse_tags(text, ask.entry_ids)
                run.counts["context/tag_replies_rejected"] += not tags.parsed
                self._apply_tags(run, ask, tags)

    def _reflection(self, run: _Step, ask: Ask, text: str) -> Reflection:
        reflection = parse_reflection(text, ask.entry_ids)
        run.reflections[ask.attempt.key] = reflection
        run.counts["context/reflections"] += 1
        run.counts["context/reflections_rejected"] += not reflection.parsed
        run.counts["context/lessons_rejected"] += reflection.lessons_rejected
        return reflection

    def _apply_tags(self, run: _Step, ask: Ask, tags: Tags) -> None:
        playbook = self._playbook_of(ask.attempt)
        for entry_id, tag in tags.by_id.items():
            run.counts["context/tags_applied"] += playbook.tag(entry_id, tag)
        run.counts["context/tags_unknown"] += tags.unknown

    def _curate(self, run: _Step) -> None:
        failures = self._chosen([a for a in run.attempts if a.key in run.reflections])
        queues = []
        for playbook in run.playbooks:
            waiting = [(a, run.reflections[a.key]) for a in failures if self._playbook_of(a) is playbook]
            queues.append(CurationQueue(playbook, waiting, self.config, self.seed, run.number))
        while wave := [(queue, *item) for queue in queues for item in queue.next_wave()]:
            asks = [run.asker.curate(attempt, said, queue.playbook.entries) for queue, attempt, said in wave]
            for ask, text in self._generate(run, asks):
                self._apply_curation(run, ask, text)
        run.counts["context/curations_skipped"] += sum(queue.skipped for queue in queues)

    def _apply_curation(self, run: _Step, ask: Ask, text: str) -> None:
        curation = parse_curation(text)
        run.counts["context/curations"] += 1
        run.counts["context/curations_rejected"] += not curation.parsed
        run.counts["context/operations_rejected"] += curation.rejected
        playbook = self._playbook_of(ask.attempt)
        for addition in curation.additions:
            if playbook.was_refuted(addition.content):
                run.counts["playbook/refused"] += 1
            else:
                playbook.add(addition.section, addition.content)

    def _generate(self, run: _Step, asks: Sequence[Ask]) -> list[tuple[Ask, str]]:
        """Ask all at once; return each ask with its reply, thinking removed."""
        if not asks:
            return []
        responses = generate(self.engine, [ask.request for ask in asks])
        run.records += [
            {"step": run.number, **ask.record(response)}
            for ask, response in zip(asks, responses, strict=True)
        ]
        run.counts["context/prompts_truncated"] += sum(bool(ask.prompt.cut) for ask in asks)
        return [(ask, self._builder.reply(r.text)) for ask, r in zip(asks, responses, strict=True)]

    def _chosen(self, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        """All attempts, or the first of each problem."""
        if not self.config.one_curation_per_problem:
            return attempts
        first: dict[str, Attempt] = {}
        for attempt in attempts:
            first.setdefault(attempt.problem.id, attempt)
        return list(first.values())

    def _sum(self, counter: str) -> int:
        return sum(getattr(playbook, counter) for playbook in self._playbooks.values())

    def _result(self, run: _Step) -> ContextUpdate:
        self.solutions.record(run.attempts)
        buffer = self.solutions if self.config.use_solution_buffer else None
        shown = demonstrations(run.attempts, buffer, self.seed, run.number)
        return ContextUpdate(run.reflections, shown, self._metrics(run.counts), run.records)

    def _metrics(self, counts: Counter[str]) -> dict[str, float]:
        stats = [playbook.statistics() for playbook in self._playbooks.values()]
        entries = [entry for playbook in self._playbooks.values() for entry in playbook.entries]
        metrics = {
            "playbook/num_playbooks": float(len(stats)),
            "playbook/total_bullets": float(sum(s.total for s in stats)),
            "playbook/high_performing": float(sum(s.high_performing for s in stats)),
            "playbook/problematic": float(sum(s.problematic for s in stats)),
            "playbook/unused": float(sum(s.unused for s in stats)),
            "playbook/proven": float(sum(standing(entry) == "proven" for entry in entries)),
        }
        return metrics | {name: float(counts[name]) for name in dict.fromkeys((*_COUNTS, *counts))}
