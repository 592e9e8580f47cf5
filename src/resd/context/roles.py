"""The three roles that the model plays in a context update, as generation requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resd.config import ContextConfig
from resd.context.curation import curation_schema
from resd.context.entries import Entry, render_statistics, statistics
from resd.context.fitting import FittedPrompt, PromptBuilder
from resd.context.prompts.base import Role, SectionName
from resd.context.reflection import Reflection, reflection_schema, render_reflection, tags_schema
from resd.context.seeding import derive_seed
from resd.records import Attempt, Request, Response

Sections = dict[SectionName, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the model about one attempt."""

    role: Role
    attempt: Attempt
    prompt: FittedPrompt
    request: Request

    @property
    def entry_ids(self) -> tuple[str, ...]:
        """The entries that the prompt shows, the only ones that the reply can refer to."""
        return tuple(entry.id for entry in self.prompt.entries)

    def record(self, response: Response) -> dict[str, Any]:
        """One row of the run's JSON Lines."""
        return {
            "role": self.role,
            "key": self.attempt.key,
            "prompt": self.prompt.text,
            "output": response.text,
            "tokens": len(response.token_ids),
            "finish_reason": response.finish_reason,
            "cut": list(self.prompt.cut),
        }


@dataclass(frozen=True)
class Asker:
    """Builds the requests of one step; the seed of each depends on the step, the attempt and the role."""

    config: ContextConfig
    builder: PromptBuilder
    seed: int
    step: int

    def reflect(self, attempt: Attempt, entries: Sequence[Entry]) -> Ask:
        """Ask what went wrong in a failed attempt."""
        sections: Sections = {
            "problem": attempt.problem.question,
            "trial": self._trial(attempt, with_thinking=self.config.reflect_on_thinking),
            "feedback": attempt.verdict.feedback,
        }
        prompt = self.builder.build("reflect", sections, entries)
        schema = reflection_schema([entry.id for entry in prompt.entries])
        return self._ask("reflect", attempt, prompt, schema, self.config.max_reflection_tokens)

    def tag(self, attempt: Attempt, entries: Sequence[Entry]) -> Ask:
        """Ask which entries helped a successful attempt."""
        sections: Sections = {"problem": attempt.problem.question, "trial": self._trial(attempt)}
        prompt = self.builder.build("tag", sections, entries)
        schema = tags_schema([entry.id for entry in prompt.entries])
        return self._ask("tag", attempt, prompt, schema, self.config.max_reflection_tokens)

    def curate(self, attempt: Attempt, reflection: Reflection, entries: Sequence[Entry]) -> Ask:
        """Ask what the playbook should take from a reflection."""
        sections: Sections = {
            "statistics": render_statistics(statistics(entries)),
            "problem": attempt.problem.question,
            "reflection": render_reflection(reflection),
        }
        prompt = self.builder.build("curate", sections, entries)
        return self._ask("curate", attempt, prompt, curation_schema(), self.config.max_curation_tokens)

    def _trial(self, attempt: Attempt, *, with_thinking: bool = False) -> str:
        remove = self.config.remove_thinking and not with_thinking
        return self.builder.answer(attempt.response.text, remove_thinking=remove)

    def _ask(
        self, role: Role, attempt: Attempt, prompt: FittedPrompt, schema: Mapping[str, Any], max_tokens: int
    ) -> Ask:
        request = Request(
            id=f"{role}/{self.step}/{attempt.key}",
            prompt_ids=prompt.ids,
            max_tokens=max_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            seed=derive_seed(self.seed, self.step, attempt.key, role),
            schema=schema,
        )
        return Ask(role, attempt, prompt, request)
