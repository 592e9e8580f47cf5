"""How every prompt of the context engine is put together, for any wording.

A prompt is an instruction, then titled sections. A `PromptStyle` holds the wording; `assemble` is the one
place that knows the order. Sections that are shared by a whole batch (the playbook) come first, so that
engines and teacher scoring can compute their keys and values once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Role = Literal["solve", "reflect", "tag", "curate"]
SectionName = Literal["playbook", "statistics", "problem", "trial", "feedback", "reflection", "solution"]
SectionOrder = Literal["static_first", "as_released"]

AS_RELEASED: tuple[SectionName, ...] = (
    "problem", "playbook", "trial", "feedback", "reflection", "solution", "statistics",
)  # fmt: skip


@dataclass(frozen=True)
class PromptStyle:
    """One wording of the four prompts.

    `sections` lists, per role, the sections that the role is shown, in static-first order. `titles` and
    `instructions` are the words. `closing` ends the prompt. `separator` joins all parts. `entry_counts`
    and `section_headers` say how much of the playbook's book-keeping is shown.
    """

    name: str
    instructions: Mapping[Role, str]
    closing: Mapping[Role, str]
    sections: Mapping[Role, tuple[SectionName, ...]]
    titles: Mapping[SectionName, str]
    separator: str
    empty_playbook: str
    entry_counts: bool
    section_headers: bool
    order: SectionOrder = "static_first"

    def fingerprint(self) -> str:
        """A hash of all wording and of the order: kept with a lab model, which knows one wording only."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def assemble(style: PromptStyle, role: Role, sections: Mapping[SectionName, str]) -> str:
    """The user message for `role`. Sections that are empty or not shown to this role are left out."""
    shown = [name for name in style.sections[role] if sections.get(name)]
    if style.order == "as_released":
        shown.sort(key=AS_RELEASED.index)
    titled = [f"{style.titles[name]}\n{sections[name]}" for name in shown]
    parts = [style.instructions[role], *titled, style.closing[role]]
    return style.separator.join(part for part in parts if part)
