"""Loose scoring: the reply as it may have been meant (Zhou et al., section 2.2)."""

from __future__ import annotations


def variants(reply: str) -> list[str]:
    """The reply, without its first line, its last line and both, each also without asterisks.

    At most 8 texts, the reply itself first; those that are equal or blank are left out.
    """
    lines = reply.split("\n")
    cut = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    plain = [text.replace("*", "") for text in cut]
    return [text for text in dict.fromkeys([*cut, *plain]) if text.strip()]
