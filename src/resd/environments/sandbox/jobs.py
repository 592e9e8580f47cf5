"""What goes into the sandbox and what comes out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from resd.records import ResdError

SCRIPT = "__main__"
MAX_PROGRAM = 1_000_000  # characters

Status = Literal[
    "ok", "error", "cpu_limit", "wall_limit", "memory_limit", "output_limit", "killed", "bad_payload"
]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may use. Raises ResdError for values that are not positive.

    `cpu_s`: seconds of CPU of all calls together, which decide the verdict; `wall_s`: the backstop for
    programs that wait, by default 4 * cpu_s + 2; `memory_mb`: address space, in MiB; `output_bytes`: values,
    standard output and standard error together.
    """

    cpu_s: float = 1.0
    wall_s: float | None = None
    memory_mb: int = 512
    output_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("cpu_s", "wall_s", "memory_mb", "output_bytes"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ResdError(f"sandbox limits: {name} is {value!r}; give a positive number")

    @property
    def wall(self) -> float:
        """Seconds of wall clock."""
        return 4 * self.cpu_s + 2 if self.wall_s is None else self.wall_s


@dataclass(frozen=True, slots=True)
class Result:
    """What a job gave.

    `values` and `errors` have one item per call that finished, in order: the value, as JSON brings it back,
    or None and the exception in short. A limit keeps the calls before it. `status` "error": a call raised,
    or the program could not be loaded (then there are no values and `stderr` says why); "killed": it ended
    itself, crashed, or its process was lost; "bad_payload": what came back is not what the harness writes.
    `cpu_s` and `wall_s` are the seconds that it took, of CPU and of the clock.
    """

    status: Status
    values: list[Any]
    stdout: str
    stderr: str
    cpu_s: float
    errors: list[str | None] = field(default_factory=list)
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """`entry` of `program` called with each item of `calls`: positional arguments, as JSON.

    `entry` is a function's name, "Class.method" (a fresh instance per call), or "__main__": the program is
    run as a script for each item, in a fresh process, with the item's first element as standard input; the
    value is what it printed. Raises ResdError for calls that are not lists of JSON values.
    """

    program: str
    entry: str
    calls: Sequence[Sequence[Any]]
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not all(isinstance(call, list | tuple) for call in self.calls):
            raise ResdError("sandbox job: each call is a list of arguments; wrap a single one in a list")
        if self.entry == SCRIPT and not all(call and isinstance(call[0], str) for call in self.calls):
            raise ResdError("sandbox job: a call of __main__ holds one text, its standard input")

    def request(self) -> bytes:
        """What the harness reads."""
        calls = [] if self.entry == SCRIPT else [list(call) for call in self.calls]
        try:
            text = json.dumps({"program": self.program, "entry": self.entry, "calls": calls})
        except (TypeError, ValueError, RecursionError) as error:
            raise ResdError(f"sandbox job: the arguments of {self.entry} are not JSON ({error})") from error
        return text.encode()
