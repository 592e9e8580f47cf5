"""Reading the corpus back: from the text of a document to the records of a training run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice

from resd.context.entries import SECTIONS, Entry
from resd.context.playbook import Playbook
from resd.context.prompts import COMPACT
from resd.context.reflection import Reflection, Tags
from resd.lab.corpus import Document, Scene
from resd.lab.pool import corpus_scenes, make_corpus
from resd.lab.programs import COLORS, Task, broken_rules, variants
from resd.records import Attempt, Problem, Response, Verdict

_NAMES = {title: name for name, title in COMPACT.titles.items()}
_COLOR_ROUTE = re.compile(r" {4}\[[RBYG]\] (\w+)")
_ENTRY = re.compile(r"\[(?P<id>(?P<slug>[a-z]+)-\d{5})\] (?P<content>.+)")
_SECTION_OF = {section.slug: section.key for section in SECTIONS}


@cache
def documents(count: int = 3000) -> tuple[Document, ...]:
    return tuple(islice(make_corpus(seed=1), count))


def of_kind(kind: str) -> list[Document]:
    return [document for document in documents() if document.kind == kind]


@cache
def scenes() -> dict[str, Scene]:
    return {scene.question: scene for scene in corpus_scenes()[0]}


def sections(prompt: str) -> dict[str, str]:
    """Section name -> text; "" for those that are not there."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []  # the instruction's, which belongs to no section
    for line in prompt.split("\n"):
        if line in _NAMES:
            lines = found.setdefault(_NAMES[line], [])
        else:
            lines.append(line)
    return {name: "\n".join(found.get(name, ())) for name in _NAMES.values()}


def entries(document: Document) -> tuple[Entry, ...]:
    text = sections(document.prompt)["playbook"]
    if text in ("", COMPACT.empty_playbook):
        return ()
    matches = [_ENTRY.fullmatch(line) for line in text.split("\n")]
    return tuple(Entry(m["id"], _SECTION_OF[m["slug"]], m["content"]) for m in matches if m)


def playbook(document: Document) -> Playbook:
    rows = [
        {
            "id": e.id,
            "section": e.section,
            "content": e.content,
            "helpful": 0,
            "harmful": 0,
            "created": 0,
            "last_used": 0,
        }
        for e in entries(document)
    ]
    return Playbook.from_state({"next_number": 1000, "update_count": 0, "merged": 0, "entries": rows})


def reflection(document: Document) -> Reflection | None:
    text = sections(document.prompt)["reflection"]
    if not text:
        return None
    error, fix, *lessons = text.split("\n")
    return Reflection(
        error.removeprefix("Error: "),
        fix.removeprefix("Fix: "),
        tuple(lesson.removeprefix("Lesson: ") for lesson in lessons),
        Tags(),
        raw="",
    )


def broken_in(document: Document) -> frozenset[str] | None:
    """The rules that the trial shown breaks; None if it misreads the task."""
    return broken_rules(scene(document).task, sections(document.prompt)["trial"])


@cache
def readings(document: Document) -> frozenset[frozenset[str]]:
    """What rules the trial shown may break, by its text alone.

    One set for a program of the task. A misread one is that of another task, or has up to two targets gone
    astray: where these hide whether a rule is kept, there are several.
    """
    task, reply = scene(document).task, sections(document.prompt)["trial"]
    broken = broken_in(document)
    if broken is not None:
        return frozenset({broken})
    others = {broken_rules(other, reply) for other in other_tasks(task, reply)}
    strayed = {broken for other, broken in variants(task).items() if _astray(reply, other)}
    return frozenset(broken for broken in {*others, *strayed} if broken is not None)


def other_tasks(task: Task, reply: str) -> Iterator[Task]:
    """The corpus's tasks of this kind whose program the reply may be."""
    known = {scene.task for scene in scenes().values()}
    if task.kind == "count":
        yield from (
            other for other in known if other.kind == "count" and broken_rules(other, reply) is not None
        )
        return
    targets = _COLOR_ROUTE.findall(reply)  # in the order of COLORS, state by state
    states = [dict(zip(COLORS, targets[i : i + 4], strict=True)) for i in range(0, len(targets), 4)]
    spelled = (
        color for i, state in enumerate(states, 1) for color, target in state.items() if target == f"s{i}"
    )
    start = "".join(spelled)
    spelled_out = [Task(task.kind, start + last) for last in COLORS]  # the last one leads to no new state
    yield from (other for other in spelled_out if other in known and broken_rules(other, reply) is not None)


def _astray(reply: str, program: str) -> bool:
    """Whether one or two colors' targets are all that differs."""
    lines, wanted = reply.split("\n"), program.split("\n")
    if len(lines) != len(wanted):
        return False
    differing = [pair for pair in zip(lines, wanted, strict=True) if pair[0] != pair[1]]
    routes = all(_COLOR_ROUTE.fullmatch(ours) and ours[:8] == theirs[:8] for ours, theirs in differing)
    return routes and 1 <= len(differing) <= 2


def attempt(document: Document) -> Attempt:
    shown = sections(document.prompt)
    problem = Problem("p", ({"role": "user", "content": shown["problem"]},))
    response = Response("r", shown["trial"], (), (), "stop")
    return Attempt(problem, 0, (), response, Verdict(0.0, 0, 1, shown["feedback"]))


def scene(document: Document) -> Scene:
    return scenes()[sections(document.prompt)["problem"] or document.prompt]
