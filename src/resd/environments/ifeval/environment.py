"""The IFEval environment: a share of instructions followed, and which were not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resd.environments.answers import check_choice, wanted, was_cut_off, why_unanswered
from resd.environments.base import answer_text
from resd.environments.ifeval.instructions import Instruction, parse_instruction, parse_instructions, plain
from resd.environments.ifeval.variants import variants
from resd.environments.rows import chat_of, load_rows
from resd.records import Problem, Response, Verdict

REWARDS = ("pass_rate", "all_or_nothing")
MAX_CHARACTERS = 2000
MAX_REPLY = 100_000  # characters; a longer one follows nothing


@dataclass(frozen=True)
class IFEval:
    """Prompts with instructions that can be checked by counting.

    Rows are the published ones (prompt, instruction_id_list, kwargs), or the trainer's, with these in
    reward_model.ground_truth. `reward` "pass_rate" pays for the share of instructions that are followed
    strictly, "all_or_nothing" for following them all. Thinking is not read. Raises ResdError for a row whose
    instructions are not understood.
    """

    path: str | Path | None = None
    reward: str = "pass_rate"
    name = "ifeval"

    def __post_init__(self) -> None:
        check_choice(self.name, "reward", self.reward, REWARDS)

    def problems(self, split: str) -> list[Problem]:
        return [_problem(id_, row) for id_, row in load_rows(self.name, split, self.path)]

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        """Check every instruction. `details` has one item an instruction, strictly and loosely judged.

        Loosely, an instruction is followed where one of 8 variants of the reply follows it.
        """
        instructions = instructions_of(problem)
        reply = answer_text(response)
        if len(reply) > MAX_REPLY:
            found = [f"Write at most {MAX_REPLY} characters: the reply has {len(reply)}."] * len(instructions)
            reply = ""
        else:
            found = [instruction.wrong(reply) for instruction in instructions]
        followed = [not wrong for wrong in found]
        others = variants(reply)[1:]
        loosely = [
            strictly or any(not instruction.wrong(text) for text in others)
            for strictly, instruction in zip(followed, instructions, strict=True)
        ]
        solved = all(followed)
        return Verdict(
            reward=float(solved) if self.reward == "all_or_nothing" else sum(followed) / len(followed),
            passed=sum(followed),
            total=len(followed),
            feedback="" if solved else _feedback(response, found),
            details={
                "instructions": [instruction.id for instruction in instructions],
                "followed": followed,
                "followed_loosely": loosely,
                "solved_loosely": all(loosely),
                "incorrect_format": not reply,
                "truncated": was_cut_off(response),
            },
        )

    def solution(self, problem: Problem) -> str | None:
        """Instructions say how a reply must look, not what it says: none is known."""
        return None


def instructions_of(problem: Problem) -> tuple[Instruction, ...]:
    """What a reply must follow. Raises ResdError for a problem of another environment."""
    given = wanted(problem, "ifeval")["instructions"]
    return tuple(parse_instruction(i["id"], i["parameters"], problem.id) for i in given)


def _problem(id_: str, row: Mapping[str, Any]) -> Problem:
    model = plain(row.get("reward_model"))
    truth = model.get("ground_truth") if isinstance(model, dict) else row
    instructions = parse_instructions(truth, id_)
    stated = [{"id": i.id, "parameters": dict(i.parameters)} for i in instructions]
    prompt = row.get("prompt")
    chat = chat_of(prompt if isinstance(prompt, str) else plain(prompt), f"row {id_}")
    return Problem(id_, chat, {"task": "ifeval", "instructions": stated})


def _feedback(response: Response | str, found: list[str]) -> str:
    """Verdict first; then every instruction that is not followed, in the order of the prompt."""
    wrong = [sentence for sentence in found if sentence]
    title = f"{len(wrong)} of {len(found)} instructions are not followed"
    if not answer_text(response):
        return f"{title}: {why_unanswered(response, 'text')}"
    lines = [f"- {sentence}" for sentence in dict.fromkeys(wrong)]
    return "\n".join([f"{title}.", *lines])[:MAX_CHARACTERS]
