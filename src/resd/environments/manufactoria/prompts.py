"""The prompts: `full` explains the language; `compact` is for the lab model, which knows it."""

from __future__ import annotations

from resd.environments.manufactoria.family import Family, Params
from resd.environments.manufactoria.machine import VISIT_LIMIT

_LANGUAGE = f"""\
A robot carries a tape: a row of coloured symbols, R (red), B (blue), Y (yellow) and G (green). It can \
only take symbols from the front and add symbols at the back. It walks through a graph of nodes, which you \
write as a program.

Nodes
- `START start:` is where the robot sets out. It has exactly one route, `NEXT node`.
- `END end` accepts the tape. It has no colon and no routes. There is exactly one START and one END.
- `PULLER_RB name:` looks at the front symbol. If it is R or B, the robot takes it off the tape and \
follows the route `[R] node` or `[B] node`. If the front symbol is of another colour, or the tape is \
empty, the tape stays as it is and the robot follows `[EMPTY] node`.
- `PULLER_YG name:` does the same for Y and G, with the routes `[Y] node`, `[G] node` and `[EMPTY] node`.
- `PAINTER_RED name:`, `PAINTER_BLUE name:`, `PAINTER_YELLOW name:` and `PAINTER_GREEN name:` add one \
symbol of their colour at the back of the tape, then follow their one route, `NEXT node`.

Rules
- Each route has its own line below its node, indented by four spaces. Names consist of letters, digits \
and underscores. A `#` starts a comment.
- A puller may lack routes. A missing route, or one to `NONE`, rejects the tape, also when a symbol was \
just taken.
- Every node that is routed to must be declared; the order of the nodes does not matter.
- A robot that has not reached `end` after {VISIT_LIMIT} node visits has rejected the tape.

An example, for the task "if the tape starts with Y, move that Y to the back and put a B behind it; reject \
all others":
```manufactoria
START start:
    NEXT first

PULLER_YG first:
    [Y] put_back   # G and EMPTY have no route: rejected

PAINTER_YELLOW put_back:
    NEXT mark

PAINTER_BLUE mark:
    NEXT end

END end
```"""

_ALPHABET = {2: "The tapes hold R and B only.", 4: "The tapes may hold all four colours."}
_ANSWER = (
    "Write one program that does this for every tape, the empty one included. "
    "Think first if you like, then give the whole program in one fenced block tagged `manufactoria`."
)


def full_prompt(family: Family, params: Params) -> str:
    """The language, the task, and the form of the answer."""
    task = f"Your task\n{family.criterion(params)} {_ALPHABET[len(family.colours)]}"
    return "\n\n".join([_LANGUAGE, task, _ANSWER])


def compact_prompt(family: Family, params: Params) -> str:
    """The task in one sentence. The lab model was trained on exactly these."""
    return family.brief(params)


PROMPTS = {"full": full_prompt, "compact": compact_prompt}
