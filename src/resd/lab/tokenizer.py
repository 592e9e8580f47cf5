"""The lab tokenizer: whole words and program fragments, one table, greedy longest match.

A newline only ever starts a token. So a text tokenizes line by line, which lets the corpus cache lines.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import Any

from resd.lab.programs import COLORS, STATES
from resd.lab.rules import MISREAD_ERROR, MISREAD_FIX, RULES, Rule

SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|system|>", "<|assistant|>")
PAD, END, USER, SYSTEM, ASSISTANT = SPECIAL
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MAX_ENTRY_NUMBER = 200  # entry ids up to 199 are one token each; later ones are read digit by digit

STRUCTURE = (
    "```manufactoria", "\n```manufactoria", "\n```", "\nSTART start:", "\n    NEXT ", "\nEND end",
    "\nPULLER_RB ", "\nPULLER_YG ", *(f"\n    [{color}] " for color in COLORS), "\n    [EMPTY] ",
    "NONE", "end",
)  # fmt: skip
PROMPT_WORDS = (
    "Solve", " the", " task", "Reflect", " on", " failed", " attempt", "Tag", " entries", " for", " solved",
    "Curate", " playbook", "\nPlaybook:", "\nStatistics:", "\nTask:", "\nAttempt:", "\nFeedback:",
    "\nReflection:", "\nSolution:", "\n(empty)", "\nAccept", "Accept", " tapes", " with", " in", " a", " row",
    " order", " at", " least", " and", " of", " fail", "\nTape", "(empty)", ": want accept, got reject.",
    ": want reject, got accept.", "\nParse error:", " no END node", " is not declared", "\nNo program found.",
    "\nError:", "\nFix:", "\nLesson:",
)  # fmt: skip
SLUGS = ("sai", "calc", "code", "err", "prob", "ctx", "misc")
JSON_FRAGMENTS = (
    "] ", '{"error": "', '", "fix": "', '", "lessons": ["', '", "', '"], "tags": [', '"], "tags": []}',
    '", "lessons": [], "tags": [', '", "lessons": [], "tags": []}',
    '{"tags": [', '{"tags": []}', '", "tag": "helpful"}', '", "tag": "harmful"}', '", "tag": "neutral"}',
    ", ", "]}", '{"operations": [', '{"operations": []}', '{"type": "ADD", "section": "',
    '", "content": "', '"}', "strategies_and_insights", "formulas_and_calculations",
    "code_snippets_and_templates", "common_mistakes_to_avoid", "problem_solving_heuristics",
    "context_clues_and_indicators", "others",
)  # fmt: skip


def vocabulary() -> list[str]:
    """All tokens, in the order of their ids: the chat's, fragments, ids, numbers, words, printable ASCII."""
    nodes = [f"{letter}{i}" for i in range(STATES[1] + 2) for letter in "st"]
    entries = [f"{i:05d}" for i in range(1, MAX_ENTRY_NUMBER)]
    slugs = [prefix + slug + "-" for slug in SLUGS for prefix in ("\n[", '{"id": "')]
    numbers = [f"{space}{i}" for i in range(41) for space in ("", " ", "\n")]
    texts = [*(text for rule in RULES for text in _texts(rule)), MISREAD_ERROR, MISREAD_FIX]
    words = [word for text in texts for word in re.findall(r" ?[^ .,]+|[.,]", text)]
    tokens = [
        *SPECIAL, *STRUCTURE, *nodes, *(f"{node}:" for node in nodes), *PROMPT_WORDS, *slugs, *entries,
        *JSON_FRAGMENTS, *numbers, *words, *(f" {word}" for word in nodes[:2]), *string.printable[:95], "\n",
    ]  # fmt: skip
    return list(dict.fromkeys(tokens))


def _texts(rule: Rule) -> tuple[str, ...]:
    return (*rule.lessons, *rule.errors, *rule.fixes, rule.wrong_lesson)


def _pattern(tokens: list[str]) -> str:
    """Longest first, then any character.

    `re.escape` writes a newline as backslash + newline, which Oniguruma reads otherwise.
    """
    ordered = sorted(tokens, key=len, reverse=True)
    return "|".join(re.escape(token).replace("\\\n", "\\n") for token in ordered) + r"|[\s\S]"


def build_tokenizer() -> Any:
    """A `transformers` fast tokenizer."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary()
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern(tokens[len(SPECIAL) :])), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


class LineEncoder:
    """The same tokens as `build_tokenizer`, from a cache of lines: what makes the corpus fast."""

    def __init__(self) -> None:
        tokens = vocabulary()
        self.ids = {token: i for i, token in enumerate(tokens)}
        self._split = re.compile(_pattern(tokens[len(SPECIAL) :])).findall
        self._line = lru_cache(maxsize=1 << 18)(self._encode_line)

    def _encode_line(self, line: str) -> tuple[int, ...]:
        return tuple(self.ids[token] for token in self._split(line))

    def encode(self, text: str) -> list[int]:
        first, *rest = text.split("\n")
        out = list(self._line(first))
        for line in rest:
            out += self._line("\n" + line)
        return out
