"""Prompt wordings. `style("compact")` is the lab model's, `style("full")` is for real models."""

from dataclasses import replace

from resd.context.prompts.base import PromptStyle, SectionOrder, assemble
from resd.context.prompts.compact import COMPACT
from resd.context.prompts.full import FULL

STYLES = {style.name: style for style in (COMPACT, FULL)}


def style(name: str, order: SectionOrder = "static_first") -> PromptStyle:
    """The wording called `name`, with its sections in the given order."""
    return replace(STYLES[name], order=order)


__all__ = ["COMPACT", "FULL", "STYLES", "PromptStyle", "assemble", "style"]
