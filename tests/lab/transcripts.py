"""Reading the corpus back: from the text of a document to the records of a training run."""

from __future__ import annotations

import re
from functools import cache
from itertools import islice

from resd.context.entries import SECTIONS, Entry
from resd.context.playbook import Playbook
from resd.context.prompts import COMPACT
from resd.context.reflection import Reflection, Tags
from resd.lab.corpus import Document, Scene
from resd.lab.pool import corpus_scenes, make_corpus
from resd.records import Attempt, Problem, Response, Verdict

_NAMES = {title: name for name, title in COMPACT.titles.items()}
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


def attempt(document: Document) -> Attempt:
    shown = sections(document.prompt)
    problem = Problem("p", ({"role": "user", "content": shown["problem"]},))
    response = Response("r", shown["trial"], (), (), "stop")
    return Attempt(problem, 0, (), response, Verdict(0.0, 0, 1, shown["feedback"]))


def scene(document: Document) -> Scene:
    return scenes()[sections(document.prompt)["problem"] or document.prompt]
