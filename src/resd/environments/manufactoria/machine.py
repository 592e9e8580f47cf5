"""The compiled form of a program: exact, and fast because predictable steps are not simulated one by one.

While the front symbol stays the same, what the robot does depends on the node alone. So the visits between
two pulls are one *step*, looked up by (node, front symbol): how many visits it takes, what is painted
meanwhile, and where it goes on. Steps are compiled when first needed. Idle loops show up while compiling a
step; loops that pull and paint (rotating the tape for ever) are found at run time by Brent's algorithm and
skipped by arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Literal, NamedTuple, TypeAlias

VISIT_LIMIT = 1000
Reason: TypeAlias = Literal["none", "limit", "unknown_node"]
Result: TypeAlias = tuple[Reason | None, str, int]

# A run that takes more visits than this is watched for cycles; most runs are over long before.
_CALM = 96
# Symbols that are pulled at once from tapes that grow.
_CHUNK = 16
# Added to the cost of steps that end the run, so that the inner loop needs one comparison only.
_FINAL = 1 << 20


class Graph(NamedTuple):
    """A program's nodes: colours pulled (pullers only), colour painted ("" for most), and routes, by name."""

    pulls: Mapping[str, str]
    paints: Mapping[str, str]
    routes: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Ending:
    """The run ends `visits` later, without touching the front symbol."""

    reason: Reason | None
    visits: int
    painted: str


@dataclass(frozen=True, slots=True)
class _Loop:
    """The robot never pulls again: what each visit paints, before the loop and in one round of it."""

    lead: tuple[str, ...]
    round: tuple[str, ...]

    def painted(self, visits: int) -> str:
        if not any(self.round):
            return "".join(self.lead[:visits])
        return "".join(islice(chain(self.lead, cycle(self.round)), visits))


class _Row(dict[str, "_Step"]):
    """A node's steps by front symbol ("" when the tape is empty), compiled on first use."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__()
        self.machine = machine
        self.name = name
        self._chunks: dict[str, _Step] = {}

    def pull(self, chunk: str) -> _Step:
        """The steps that pull `chunk`, as one; final if the run ends on the way."""
        if chunk not in self._chunks:
            row, total, paint = self, 0, ""
            for front in chunk:
                cost, painted, following = row[front]
                total, paint = total + cost, paint + painted
                if cost >= _FINAL:
                    break
                row = following  # type: ignore[assignment]
            self._chunks[chunk] = total, paint, row
        return self._chunks[chunk]

    def __missing__(self, front: str) -> _Step:
        step = self[front] = self.machine.compile_step(self.name, front)
        return step


# (visits, painted, what follows). A plain tuple: it is unpacked once per symbol.
_Step: TypeAlias = tuple[int, str, _Row | _Ending | _Loop]


class Machine:
    """Runs one program on many tapes."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._rows: dict[str, _Row] = {}
        self._start = self._row("start")

    def run(self, tape: str) -> Result:
        """(reason of a rejection or None, final tape, visits)."""
        row = self._start
        visits = 0
        queue = list(tape)
        rest = iter(queue)
        for front in rest:
            cost, painted, following = row[front]
            visits += cost
            if visits > _CALM:
                return self._finish(row, front + "".join(rest), visits - cost)
            if painted:
                queue += painted  # the iterator goes on to what is appended: it is the tape
            row = following  # type: ignore[assignment]  # endings cost more than _CALM
        return self._finish(row, "", visits)

    def _finish(self, row: _Row, tape: str, visits: int) -> Result:
        """Continue from a node until the run ends, skipping whole rounds of any cycle."""
        anchor_row, anchor_tape, anchor_visits = row, tape, visits
        steps, power = 0, 8
        while True:
            cost, painted, following = row[tape[:1]]
            if visits + cost > VISIT_LIMIT:
                return self._end(row, following, tape, visits)
            row, tape, visits = following, tape[1:] + painted, visits + cost  # type: ignore[assignment]
            steps += 1
            if row is anchor_row and tape == anchor_tape:
                visits += (VISIT_LIMIT - visits) // (visits - anchor_visits) * (visits - anchor_visits)
            elif steps == power and len(tape) > max(len(anchor_tape), _CHUNK):
                return self._run_out(row, tape, visits)
            elif steps == power:
                anchor_row, anchor_tape, anchor_visits = row, tape, visits
                power *= 2

    def _run_out(self, row: _Row, tape: str, visits: int) -> Result:
        """Go on by whole chunks of a tape that grows: no cycle is near, but chunks have been seen before."""
        while len(tape) >= _CHUNK:
            cost, painted, following = row.pull(tape[:_CHUNK])
            if visits + cost > VISIT_LIMIT:
                break
            row, tape, visits = following, tape[_CHUNK:] + painted, visits + cost  # type: ignore[assignment]
        return self._finish(row, tape, visits)

    def _end(self, row: _Row, following: _Row | _Ending | _Loop, tape: str, visits: int) -> Result:
        """The result when the next step ends the run, or would take more visits than are left."""
        if isinstance(following, _Ending) and visits + following.visits <= VISIT_LIMIT:
            return following.reason, tape + following.painted, visits + following.visits
        left = VISIT_LIMIT - visits
        if isinstance(following, _Loop):
            return "limit", tape + following.painted(left), VISIT_LIMIT
        return "limit", self._walk(row.name, tape, left), VISIT_LIMIT

    def _walk(self, name: str, tape: str, visits: int) -> str:
        """The tape after exactly `visits` more visits, none of which ends the run."""
        pulls, paints, routes = self._graph
        for _ in range(visits):
            front = tape[:1]
            if name not in pulls:
                tape += paints[name]
                name = routes[name]["NEXT"]
            elif front and front in pulls[name]:
                tape = tape[1:]
                name = routes[name].get(front, "NONE")
            else:
                name = routes[name].get("EMPTY", "NONE")
        return tape

    def _row(self, name: str) -> _Row:
        if name not in self._rows:
            self._rows[name] = _Row(self, name)
        return self._rows[name]

    def compile_step(self, name: str, front: str) -> _Step:
        """What happens from node `name` until `front` is pulled, an empty tape is painted on, or the end."""
        pulls, paints, routes = self._graph
        painted: list[str] = []
        visited: dict[str, int] = {}
        while name not in visited and len(visited) < VISIT_LIMIT:
            visited[name] = visits = len(visited)
            visits += 1
            if name in ("NONE", "end") or name not in routes:
                reason: Reason | None = {"NONE": "none", "end": None}.get(name, "unknown_node")
                return _FINAL, "", _Ending(reason, visits, "".join(painted))
            if front and front in pulls.get(name, ""):
                return visits, "".join(painted), self._row(routes[name].get(front, "NONE"))
            painted.append(paints[name])
            if paints[name] and not front:
                return visits, paints[name], self._row(routes[name]["NEXT"])
            name = routes[name].get("EMPTY" if name in pulls else "NEXT", "NONE")
        lead = visited.get(name, len(painted))  # without a cycle within the limit, all of it is lead
        return _FINAL, "", _Loop(tuple(painted[:lead]), tuple(painted[lead:]))
