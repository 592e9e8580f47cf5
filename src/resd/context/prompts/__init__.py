"""Prompt wordings. `style("compact")` is the lab model's, `style("full")` is for real models.

Any of their words can be replaced by those of a file (`context.prompts`).
"""

from dataclasses import replace
from typing import Any

from resd.config import ContextConfig
from resd.context.prompts.base import PromptStyle, SectionOrder, assemble
from resd.context.prompts.compact import COMPACT
from resd.context.prompts.full import FULL
from resd.context.prompts.words import Words, read_words

STYLES = {style.name: style for style in (COMPACT, FULL)}


def style(name: str, order: SectionOrder = "static_first", words: Words | None = None) -> PromptStyle:
    """The wording called `name`, with its sections in the given order and `words` in place of its own."""
    base = STYLES[name]
    changes: dict[str, Any] = {
        part: {**getattr(base, part), **texts} for part, texts in (words or {}).items()
    }
    return replace(base, order=order, **changes)


def configured(config: ContextConfig) -> PromptStyle:
    """The wording of a run. Raises ResdError for a file that does not fit."""
    return style(config.style, config.order, read_words(config.prompts) if config.prompts else None)


__all__ = ["COMPACT", "FULL", "STYLES", "PromptStyle", "assemble", "configured", "read_words", "style"]
