"""Assembling and encoding prompts, shortened to a token budget without losing essential parts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from resd.chat import encode_prompt, opens_thinking, reopen_thinking, split_thinking, with_question
from resd.config import ContextConfig
from resd.context.entries import Entry, render_entries
from resd.context.prompts.base import PromptStyle, Role, SectionName, assemble
from resd.context.retrieval import least_relevant_first
from resd.records import Message, Problem

# What is cut, in this order: playbook entries, then the middle of each of these texts. The instruction, the
# question and the assistant's header are never cut.
CUT_ORDER: tuple[SectionName, ...] = ("playbook", "trial", "feedback", "solution", "reflection")
CUT_MARK = "\n[...]\n"
UNFINISHED = "[The thinking ran out of tokens before an answer. It ended with:]"
# The maximum share of the prompt's budget for quoted thinking.
THOUGHT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt, the entries and sections it shows, and the sections that were shortened."""

    ids: tuple[int, ...]
    text: str
    entries: tuple[Entry, ...]
    shown: tuple[SectionName, ...]
    cut: tuple[SectionName, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    sections: Mapping[SectionName, str]
    entries: tuple[Entry, ...]

    def without(self, dropped: Sequence[Entry]) -> _Draft:
        return replace(self, entries=tuple(entry for entry in self.entries if entry not in dropped))

    def with_text(self, name: SectionName, text: str) -> _Draft:
        return replace(self, sections={**self.sections, name: text})


Encode = Callable[[_Draft], Sequence[int]]


@dataclass(frozen=True)
class PromptBuilder:
    """Builds the prompts of one style for one tokenizer, cut to `max_tokens` where possible."""

    style: PromptStyle
    tokenizer: Any
    thinking: bool
    max_tokens: int
    by_relevance: bool = False  # whether the least relevant or the oldest entries are dropped first

    @classmethod
    def configured(
        cls, config: ContextConfig, style: PromptStyle, tokenizer: Any, thinking: bool
    ) -> PromptBuilder:
        by_relevance = config.over_budget == "least_relevant"
        return cls(style, tokenizer, thinking, config.max_prompt_tokens, by_relevance)

    def build(
        self,
        role: Role,
        sections: Mapping[SectionName, str],
        entries: Sequence[Entry] = (),
        messages: Sequence[Message] = ({"role": "user", "content": ""},),
    ) -> FittedPrompt:
        """Assemble the text for `role` and replace the last user message of `messages` by it."""
        empty = "" if role == "solve" else self.style.empty_playbook
        draft = _Draft({"playbook": "" if entries else empty, **sections}, tuple(entries))

        def encode(draft: _Draft) -> tuple[int, ...]:
            chat = with_question(messages, self._text(role, draft))
            return encode_prompt(self.tokenizer, chat, thinking=self.thinking)

        ids, cut = encode(draft), []
        for name in CUT_ORDER:
            if len(ids) > self.max_tokens and self._cuttable(role, draft, name):
                shorten = self._drop_entries if name == "playbook" else partial(self._cut_middle, name=name)
                draft = shorten(draft, encode=encode)
                ids = encode(draft)
                cut.append(name)
        return FittedPrompt(ids, self._text(role, draft), draft.entries, self._shown(role, draft), tuple(cut))

    def ask(self, problem: Problem, entries: Sequence[Entry]) -> tuple[int, ...]:
        """The question preceded by these entries; unchanged if there are none, or no room for any."""
        if entries:
            prompt = self.build("solve", {"problem": problem.question}, entries, problem.messages)
            if prompt.entries:
                return prompt.ids
        return encode_prompt(self.tokenizer, problem.messages, thinking=self.thinking)

    def answer(self, response_text: str, *, remove_thinking: bool) -> str:
        """A response as prompts quote it: the end of its thinking, unless removed, and its answer.

        Unfinished thinking has no answer: its end is quoted after a remark.
        """
        thought, answer = self._split(response_text)
        if not thought or (answer and remove_thinking):
            return answer
        tail = self._end_of(thought)
        return f"{tail}\n\n{answer}" if answer else f"{UNFINISHED}\n{tail}"

    def reply(self, response_text: str) -> str:
        """The text of a response after its thinking; "" if the thinking is unfinished."""
        return self._split(response_text)[1]

    def _split(self, response_text: str) -> tuple[str, str]:
        return split_thinking(reopen_thinking(response_text) if self._opens_thinking else response_text)

    def _text(self, role: Role, draft: _Draft) -> str:
        return assemble(self.style, role, self._filled(draft))

    def _shown(self, role: Role, draft: _Draft) -> tuple[SectionName, ...]:
        filled = self._filled(draft)
        return tuple(name for name in self.style.sections[role] if filled.get(name))

    def _cuttable(self, role: Role, draft: _Draft, name: SectionName) -> bool:
        return bool(draft.entries) if name == "playbook" else name in self._shown(role, draft)

    def _filled(self, draft: _Draft) -> Mapping[SectionName, str]:
        if not draft.entries:
            return draft.sections
        style = self.style
        text = render_entries(draft.entries, counts=style.entry_counts, headers=style.section_headers)
        return {**draft.sections, "playbook": text}

    def _drop_entries(self, draft: _Draft, encode: Encode) -> _Draft:
        """Drop as many entries as necessary; all of them if that is not enough."""
        order: Sequence[Entry] = draft.entries
        if self.by_relevance:
            order = least_relevant_first(order, "\n".join(draft.sections.values()))

        def fits(count: int) -> bool:
            return len(encode(draft.without(order[:count]))) <= self.max_tokens

        count = bisect_left(range(1, len(order)), True, key=fits) + 1
        return draft.without(order[:count])

    def _cut_middle(self, draft: _Draft, name: SectionName, encode: Encode) -> _Draft:
        """Cut the excess tokens from the middle of `name`, and a few more for the ellipsis mark."""
        ids = self.tokenizer.encode(draft.sections[name], add_special_tokens=False)
        excess, margin = len(encode(draft)) - self.max_tokens, 8
        while True:
            cut = draft.with_text(name, self._without_middle(ids, excess + margin))
            if excess + margin >= len(ids) or len(encode(cut)) <= self.max_tokens:
                return cut
            margin *= 2

    def _without_middle(self, ids: Sequence[int], count: int) -> str:
        kept = len(ids) - count
        if kept <= 0:
            return ""
        tail = kept // 2
        return self._decode(ids[: kept - tail]) + CUT_MARK + self._decode(ids[len(ids) - tail :])

    def _end_of(self, thought: str) -> str:
        budget = max(1, int(THOUGHT_SHARE * self.max_tokens))
        ids = self.tokenizer.encode(thought, add_special_tokens=False)
        return thought if len(ids) <= budget else "[...] " + self._decode(ids[-budget:]).strip()

    def _decode(self, ids: Sequence[int]) -> str:
        # A cut may split a character that is several tokens long.
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False)).strip("\ufffd")

    @cached_property
    def _opens_thinking(self) -> bool:
        return opens_thinking(self.tokenizer, thinking=self.thinking)
