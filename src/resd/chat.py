"""Chat templates, thinking, token counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resd.records import Message

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


def encode_prompt(tokenizer: Any, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
    """Encode a chat as prompt tokens, ending with the assistant's header (the generation prompt)."""
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=thinking
    )
    return tuple(ids)


def opens_thinking(tokenizer: Any, *, thinking: bool = True) -> bool:
    """Whether the chat template opens the thinking block in the prompt, so that responses only close it."""
    ids = encode_prompt(tokenizer, [{"role": "user", "content": ""}], thinking=thinking)
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False)
    return text.rstrip().endswith(THINK_OPEN)


def reopen_thinking(text: str) -> str:
    """Prepend the opening tag to a response that never closes the thinking block opened in its prompt.

    Without the tag, thinking that ran out of tokens would read as an answer.
    """
    if THINK_CLOSE in text:
        return text
    return THINK_OPEN + text.lstrip().removeprefix(THINK_OPEN)


def with_question(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """Replace the last user message of the chat with `text`, keeping the messages before it."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return (*messages[:last], {"role": "user", "content": text})


def split_thinking(text: str) -> tuple[str, str]:
    """Split into (thinking, answer). If the thinking never closes, the answer is "".

    Templates may open the thinking block in the prompt, so a closing tag alone is enough.
    """
    head, closed, tail = text.rpartition(THINK_CLOSE)
    if closed:
        return head.replace(THINK_OPEN, "").strip(), tail.strip()
    head, opened, tail = text.partition(THINK_OPEN)
    if opened:
        return tail.strip(), head.strip()
    return "", text.strip()


def strip_thinking(text: str) -> str:
    """The answer alone."""
    return split_thinking(text)[1]
