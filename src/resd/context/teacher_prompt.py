"""Teacher prompts: the question of an attempt again, with privileged information about its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from resd.config import ContextConfig
from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.prompts.base import PromptStyle, SectionName
from resd.context.reflection import Reflection, render_reflection
from resd.records import Problem


@dataclass(frozen=True, slots=True)
class TeacherPrompt:
    """`text` is the last user message; `dropped` names the sections shortened for the token budget."""

    ids: tuple[int, ...]
    text: str
    sections: tuple[SectionName, ...]
    dropped: tuple[SectionName, ...]


@dataclass(frozen=True)
class TeacherPromptComposer:
    """Composes teacher prompts according to the switches of `config`."""

    config: ContextConfig
    style: PromptStyle
    tokenizer: Any
    thinking: bool

    def compose(
        self,
        problem: Problem,
        *,
        entries: Sequence[Entry] = (),
        trial: str = "",
        feedback: str = "",
        reflection: Reflection | None = None,
        solution: str = "",
    ) -> TeacherPrompt | None:
        """The prompt, or None if it would add nothing to the question.

        `entries` are playbook entries; `trial` and `solution` are generated texts, including thinking.
        """
        sections = self._sections(problem, trial, feedback, reflection, solution)
        shown = entries if self.config.use_playbook else ()
        prompt = self._builder.build("solve", sections, shown, problem.messages)
        if set(prompt.shown) <= {"problem"}:
            return None
        return TeacherPrompt(prompt.ids, prompt.text, prompt.shown, prompt.cut)

    def _sections(
        self, problem: Problem, trial: str, feedback: str, reflection: Reflection | None, solution: str
    ) -> Mapping[SectionName, str]:
        config = self.config
        solution = self._answer(solution) if config.use_solution else ""
        show_feedback = config.use_feedback and not (solution and config.drop_feedback_with_solution)
        show_reflection = config.use_reflection and reflection is not None
        return {
            "problem": problem.question,
            "trial": "" if config.use_trial is False else self._answer(trial),
            "feedback": feedback if show_feedback else "",
            "reflection": render_reflection(reflection) if show_reflection and reflection else "",
            "solution": solution,
        }

    def _answer(self, response_text: str) -> str:
        if not response_text:
            return ""
        return self._builder.answer(response_text, remove_thinking=self.config.remove_thinking)

    @cached_property
    def _builder(self) -> PromptBuilder:
        return PromptBuilder.configured(self.config, self.style, self.tokenizer, self.thinking)
