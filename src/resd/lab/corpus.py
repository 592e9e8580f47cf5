"""Synthetic transcripts for pre-training the lab model: the five things it must do, drawn without end.

| kind    | prompt                                               | response                                  |
|---------|------------------------------------------------------|-------------------------------------------|
| student | the task                                             | a program; each rule kept with its prior  |
| teacher | the task and any of playbook, attempt with feedback, | a program; each rule kept as `kept` says  |
|         | reflection, solution                                 |                                           |
| reflect | playbook, task, failed attempt, feedback             | JSON: at most two broken rules, tags      |
| tag     | playbook, task, solved attempt                       | JSON: tags                                |
| curate  | playbook, reflection                                 | JSON: an ADD for each lesson not in it    |

Prompts are built by the same `assemble` that training runs use; trials are judged by the real environment on
its own tapes. `docs/lab-model.md` says what is built in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from random import Random

from resd.context.entries import SECTIONS
from resd.context.prompts import COMPACT, assemble
from resd.context.prompts.base import SectionName
from resd.lab.programs import COLORS, Task, fenced, program, variants
from resd.lab.rules import BY_NAME, MISREAD_ERROR, MISREAD_FIX, RULES, Rule
from resd.records import Verdict

SHARES = {"student": 0.19, "teacher": 0.42, "reflect": 0.19, "tag": 0.06, "curate": 0.14}
MAX_ENTRIES = 14  # the playbook limit of the lab recipe
MAX_NAMED = 2  # broken rules that one reflection names
MISREAD_SHARE = 0.2  # of the failed trials
COLOR_ROUTES = tuple(f"    [{color}] " for color in COLORS)  # how the lines begin that a target ends
MAX_ENTRY_ID = 199
SLUG = {section.key: section.slug for section in SECTIONS}


@dataclass(frozen=True)
class Document:
    """One transcript: loss falls on `response` alone. `kind` is a key of SHARES."""

    kind: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Trial:
    """A judged program of the lab's own making. One that misreads the task may break no rule and yet fail."""

    broken: frozenset[str]
    reply: str
    feedback: str  # "" when solved


@dataclass(frozen=True)
class Entry:
    """A playbook entry of the corpus: right or wrong lesson of a rule."""

    number: int
    rule: Rule
    text: str
    wrong: bool

    @property
    def id(self) -> str:
        return f"{SLUG[self.rule.section]}-{self.number:05d}"


@dataclass(frozen=True)
class Words:
    """What a reflection says, in the order of its JSON keys."""

    error: str
    fix: str
    lessons: list[str]

    def render(self) -> str:
        """As `resd.context.reflection.render_reflection` does."""
        return "\n".join(
            [f"Error: {self.error}", f"Fix: {self.fix}", *(f"Lesson: {it}" for it in self.lessons)]
        )


class Scene:
    """One task with all its trials, judged when first needed."""

    def __init__(self, task: Task, question: str, judge: Callable[[str], Verdict]) -> None:
        self.task = task
        self.question = question
        self._judge = judge
        self._trials: dict[frozenset[str], Trial] = {}

    @cached_property
    def replies(self) -> Mapping[frozenset[str], str]:
        return {broken: reply for reply, broken in variants(self.task).items()}

    def trial(self, broken: frozenset[str]) -> Trial:
        if broken not in self._trials:
            self._trials[broken] = self.judged(broken, self.replies[broken])
        return self._trials[broken]

    def judged(self, broken: frozenset[str], reply: str) -> Trial:
        """A trial with any reply, of which the caller knows what rules it breaks."""
        return Trial(broken, reply, self._judge(reply).feedback)


@dataclass(frozen=True)
class Evidence:
    """What a prompt says about one rule."""

    kept_before: bool | None = None  # None: no trial is shown
    reflected: bool = False  # a reflection on that trial is shown
    named: bool = False  # ... and names this rule as broken
    lesson: bool = False
    wrong_lesson: bool = False
    solution: bool = False


def kept(rule: Rule, evidence: Evidence) -> float:
    """P(the program keeps the rule | the prompt): the knobs that make the lab model a stand-in.

    Independent sources combine as 1 - prod(1 - p). A trial with feedback alone says little: that is what
    keeps SDPO low and lets reflections and lessons matter.
    """
    sources = []
    if evidence.lesson:
        sources.append(0.92 if not evidence.wrong_lesson else 0.6)
    if evidence.named:
        sources.append(0.93)
    if evidence.kept_before and (evidence.reflected or evidence.lesson):
        sources.append(0.94)
    if evidence.solution:
        sources.append(0.97)
    if not sources:
        return _unhelped(rule, evidence)
    missed = 1.0
    for source in sources:
        missed *= 1 - source
    return min(1 - missed, 0.988)


def _unhelped(rule: Rule, evidence: Evidence) -> float:
    if evidence.wrong_lesson:
        return 0.15
    if evidence.kept_before is None:
        return rule.prior
    if evidence.kept_before:
        return 0.66
    return rule.prior + (0.15 if rule.name == "end" else 0.03)  # the parse error names the END node


class Corpus:
    """Draws documents. `scenes` are drawn with `weights`; one seed gives one stream."""

    def __init__(self, scenes: Sequence[Scene], weights: Sequence[float], seed: int) -> None:
        self._scenes = scenes
        total, running = sum(weights), 0.0
        self._cumulative = [running := running + weight / total for weight in weights]
        self._random = Random(seed)
        self._makers = {
            "student": self._student, "teacher": self._teacher, "reflect": self._reflect,
            "tag": self._tag, "curate": self._curate,
        }  # fmt: skip

    def __iter__(self) -> Iterator[Document]:
        kinds, shares = list(SHARES), list(SHARES.values())
        while True:
            for kind in self._random.choices(kinds, shares, k=64):
                prompt, response = self._makers[kind](self._scene())
                yield Document(kind, prompt, response)

    def _scene(self) -> Scene:
        return self._random.choices(self._scenes, cum_weights=self._cumulative)[0]

    # What happened before.

    def _chance(self, p: float) -> bool:
        return self._random.random() < p

    def _draw(self, scene: Scene, keep: Callable[[Rule], float]) -> frozenset[str]:
        return frozenset(rule.name for rule in scene.task.rules if not self._chance(keep(rule)))

    def _failed(self, scene: Scene) -> Trial:
        """Half as the untrained student fails, half as it fails late in training, with a rule or two.

        A share of MISREAD_SHARE misreads the task as well. A teacher that never met such trials would copy
        their states, and so confirm whatever a student in training comes to write.
        """
        misread = self._chance(MISREAD_SHARE)
        while True:
            broken = self._draw(scene, self._skill())
            trial = scene.judged(broken, self._misread(scene, broken)) if misread else scene.trial(broken)
            if trial.feedback:
                return trial

    def _misread(self, scene: Scene, broken: frozenset[str]) -> str:
        """The program of another task of this kind, or this one's with a target or two gone astray."""
        if self._chance(0.5):
            return fenced(program(self._task_like(scene.task), broken))
        return self._astray(scene.task, scene.replies[broken])

    def _task_like(self, task: Task) -> Task:
        """A task of the same kind; by chance, or for want of another, the task itself."""
        drawn = (self._scene().task for _ in range(50))
        return next((other for other in drawn if other.kind == task.kind), task)

    def _astray(self, task: Task, reply: str) -> str:
        """One or two colors lead to any state (one of them does not exist) or to the end."""
        lines = reply.split("\n")
        routes = [i for i, line in enumerate(lines) if line.startswith(COLOR_ROUTES)]
        targets = ["end", *(f"s{state}" for state in range(task.states + 1))]
        for i in self._random.sample(routes, self._random.randint(1, 2)):
            lines[i] = f"{lines[i][: len(COLOR_ROUTES[0])]}{self._random.choice(targets)}"
        return "\n".join(lines)

    def _skill(self) -> Callable[[Rule], float]:
        """Rule -> P(kept): the untrained student's, or the same for all rules."""
        if self._chance(0.5):
            return lambda rule: rule.prior
        quality = self._random.uniform(0.6, 0.97)
        return lambda rule: quality

    def _named(self, trial: Trial) -> list[Rule]:
        """The broken rules that a reflection names: the missing END node first, then any. May be none."""
        names = sorted(trial.broken)
        self._random.shuffle(names)
        names.sort(key=lambda name: name != "end")
        return [BY_NAME[name] for name in names[:MAX_NAMED]]

    def _playbook(self, least: int = 1) -> list[Entry]:
        size = len(RULES) if self._chance(0.3) else self._random.randint(least, len(RULES))
        chosen = [(rule, False) for rule in self._random.sample(RULES, size)]
        if chosen and self._chance(0.3):
            chosen += [(self._random.choice(chosen)[0], False) for _ in range(self._random.randint(1, 6))]
        if self._chance(0.2):
            chosen += [(self._random.choice(RULES), True) for _ in range(self._random.randint(1, 2))]
        self._random.shuffle(chosen)
        return self._numbered(chosen[:MAX_ENTRIES])

    def _numbered(self, chosen: Sequence[tuple[Rule, bool]]) -> list[Entry]:
        """Ids ascending or in any order: a reader of ids must not rely on their order."""
        highest = 40 if self._chance(0.7) else MAX_ENTRY_ID
        numbers = self._random.sample(range(1, highest + 1), len(chosen))
        if self._chance(0.5):
            numbers.sort()
        return [
            Entry(number, rule, rule.wrong_lesson if wrong else self._random.choice(rule.lessons), wrong)
            for number, (rule, wrong) in zip(numbers, chosen, strict=True)
        ]

    # The five kinds.

    def _student(self, scene: Scene) -> tuple[str, str]:
        broken = self._draw(scene, lambda rule: rule.prior)
        return scene.question, scene.replies[broken]

    def _teacher(self, scene: Scene) -> tuple[str, str]:
        entries = self._playbook() if self._chance(0.75) else []
        solved = self._chance(0.12)
        shown = 0.4 if solved else (0.72 if entries else 0.95)
        trial = self._failed(scene) if self._chance(shown) else None
        named = self._reflection_names(scene, trial) if trial and self._chance(0.65) else None
        evidence = {
            rule.name: Evidence(
                kept_before=None if trial is None else rule.name not in trial.broken,
                reflected=named is not None,
                named=named is not None and rule in named,
                lesson=any(entry.rule is rule and not entry.wrong for entry in entries),
                wrong_lesson=any(entry.rule is rule and entry.wrong for entry in entries),
                solution=solved,
            )
            for rule in scene.task.rules
        }
        broken = self._draw(scene, lambda rule: kept(rule, evidence[rule.name]))
        sections: dict[SectionName, str] = {
            "playbook": render_entries(entries),
            "problem": scene.question,
            "trial": trial.reply if trial else "",
            "feedback": trial.feedback if trial else "",
            "reflection": "" if named is None else self._words(named).render(),
            "solution": scene.replies[frozenset()] if solved else "",
        }
        return assemble(COMPACT, "solve", sections), scene.replies[broken]

    def _reflection_names(self, scene: Scene, trial: Trial) -> list[Rule]:
        """Nearly always right: a teacher must have met a wrong reflection, but not expect one."""
        if self._chance(0.04):
            return self._random.sample(scene.task.rules, self._random.randint(1, MAX_NAMED))
        return self._named(trial)

    def _words(self, named: Sequence[Rule]) -> Words:
        """A sentence of each sort for each rule; with no rule to name, the task was misread."""
        choose = self._random.choice
        if not named:
            return Words(MISREAD_ERROR, MISREAD_FIX, [])
        return Words(
            error=" ".join(choose(rule.errors) for rule in named),
            fix=" ".join(choose(rule.fixes) for rule in named),
            lessons=[choose(rule.lessons) for rule in named],
        )

    def _reflect(self, scene: Scene) -> tuple[str, str]:
        entries = self._playbook() if self._chance(0.9) else []
        trial = self._failed(scene)
        sections: dict[SectionName, str] = {
            "playbook": render_entries(entries) or COMPACT.empty_playbook,
            "problem": scene.question,
            "trial": trial.reply,
            "feedback": trial.feedback,
        }
        tags = [(entry, _tag_of_failure(entry, trial)) for entry in entries]
        reply = {**asdict(self._words(self._named(trial))), "tags": _tag_list(tags)}
        return assemble(COMPACT, "reflect", sections), json.dumps(reply)

    def _tag(self, scene: Scene) -> tuple[str, str]:
        entries = self._playbook()
        trial = scene.trial(frozenset())
        sections: dict[SectionName, str] = {
            "playbook": render_entries(entries),
            "problem": scene.question,
            "trial": trial.reply,
        }
        tags = [(entry, _tag_of_success(entry, scene.task)) for entry in entries]
        return assemble(COMPACT, "tag", sections), json.dumps({"tags": _tag_list(tags)})

    def _curate(self, scene: Scene) -> tuple[str, str]:
        entries = self._playbook(least=0) if self._chance(0.85) else []
        present = {entry.rule.name for entry in entries if not entry.wrong}
        missing = [rule for rule in RULES if rule.name not in present]
        pool = missing if missing and self._chance(0.4) else list(RULES)
        named = self._random.sample(pool, min(len(pool), self._random.randint(1, MAX_NAMED)))
        words = self._words(named)
        sections: dict[SectionName, str] = {
            "playbook": render_entries(entries) or COMPACT.empty_playbook,
            "reflection": words.render(),
        }
        operations = [
            {"type": "ADD", "section": rule.section, "content": lesson}
            for rule, lesson in zip(named, words.lessons, strict=True)
            if rule.name not in present
        ]
        return assemble(COMPACT, "curate", sections), json.dumps({"operations": operations})


def render_entries(entries: Sequence[Entry]) -> str:
    """As `Playbook.render(counts=False, headers=False)` does."""
    return "\n".join(f"[{entry.id}] {entry.text}" for entry in entries)


def _tag_of_failure(entry: Entry, trial: Trial) -> str:
    """A lesson would have helped, or a wrong one may have harmed, where its rule is broken."""
    if entry.rule.name not in trial.broken:
        return "neutral"
    return "harmful" if entry.wrong else "helpful"


def _tag_of_success(entry: Entry, task: Task) -> str:
    return "helpful" if entry.rule in task.rules and not entry.wrong else "neutral"


def _tag_list(tags: Sequence[tuple[Entry, str]]) -> list[dict[str, str]]:
    return [{"id": entry.id, "tag": tag} for entry, tag in tags]
