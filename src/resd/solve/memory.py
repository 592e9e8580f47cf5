"""What a conversation keeps of earlier attempts: the prompts of multi-turn work.

`feedback` is one message: the question and the feedback on all attempts. `dialogue` is the actual chat: the
question, then each answer with its feedback. The wording is that of the run's prompts (role `solve`). Prompts
that are too long lose whole turns, the oldest first, but never the question.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from resd.chat import encode_prompt, with_question
from resd.context.fitting import PromptBuilder
from resd.context.prompts.base import assemble
from resd.records import Attempt, Message, Problem
from resd.solve.effort import MemoryKind


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer, as prompts quote it, and its feedback."""

    answer: str
    feedback: str


@dataclass(frozen=True)
class Memory:
    """Turns as a prompt of at most `builder.max_tokens` tokens."""

    kind: MemoryKind
    builder: PromptBuilder
    remove_thinking: bool

    def turn(self, attempt: Attempt) -> Turn:
        answer = self.builder.answer(attempt.response.text, remove_thinking=self.remove_thinking)
        return Turn(answer, attempt.verdict.feedback)

    def fit(self, problem: Problem, turns: Sequence[Turn]) -> tuple[tuple[int, ...], Sequence[Turn]]:
        """The prompt, and the turns that it shows. Turns that were dropped once need not be kept."""

        def fits(dropped: int) -> bool:
            return len(self._encode(problem, turns[dropped:])) <= self.builder.max_tokens

        kept = turns[bisect_left(range(len(turns)), True, key=fits) :]
        return self._encode(problem, kept), kept

    def _encode(self, problem: Problem, turns: Sequence[Turn]) -> tuple[int, ...]:
        messages = self._messages(problem, turns) if turns else problem.messages
        return encode_prompt(self.builder.tokenizer, messages, thinking=self.builder.thinking)

    def _messages(self, problem: Problem, turns: Sequence[Turn]) -> Sequence[Message]:
        if self.kind == "dialogue":
            return [*problem.messages, *(message for turn in turns for message in self._exchange(turn))]
        style = self.builder.style
        said = style.separator.join(turn.feedback for turn in turns if turn.feedback)
        text = assemble(style, "solve", {"problem": problem.question, "feedback": said})
        return with_question(problem.messages, text)

    def _exchange(self, turn: Turn) -> tuple[Message, Message]:
        style = self.builder.style
        said = f"{style.titles['feedback']}\n{turn.feedback}" if turn.feedback else ""
        request = style.closing["solve"] or style.instructions["solve"]
        text = style.separator.join(part for part in (said, request) if part)
        return {"role": "assistant", "content": turn.answer}, {"role": "user", "content": text}
