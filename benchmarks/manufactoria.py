"""How many tapes a second the Manufactoria machine runs, beside an interpreter that takes every step.

Run with `python benchmarks/manufactoria.py`. One process; the programs are parsed and have run once before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from resd.environments.manufactoria import Manufactoria, Program, parse_program, solve_has
from resd.environments.manufactoria.program import PAINTS, PULLS

Job = tuple[Program, list[str]]

LOOPS = {
    "EMPTY ping-pong": "PULLER_RB a:\n [EMPTY] b\n [R] a\n [B] a\nPULLER_YG b:\n [EMPTY] a\n [Y] a\n [G] a",
    "rotation": (
        "PULLER_RB a:\n [R] r\n [B] b\n [EMPTY] c\nPULLER_YG c:\n [Y] y\n [G] g\n [EMPTY] a\n"
        "PAINTER_RED r:\n NEXT a\nPAINTER_BLUE b:\n NEXT a\n"
        "PAINTER_YELLOW y:\n NEXT a\nPAINTER_GREEN g:\n NEXT a"
    ),
    "endless painting": "PAINTER_RED a:\n NEXT b\nPAINTER_BLUE b:\n NEXT a",
    "growing rotation": (
        "PULLER_RB a:\n [R] r\n [B] r\n [EMPTY] c\nPULLER_YG c:\n [Y] r\n [G] r\n [EMPTY] r\n"
        "PAINTER_RED r:\n NEXT b\nPAINTER_BLUE b:\n NEXT a"
    ),
}


def literal(program: Program, tape: str) -> tuple[bool, str, int]:
    """(accepted, final tape, visits), one node visit at a time."""
    name, queue = "start", deque(tape)
    for visits in range(1, 1001):
        if name == "end" or name not in program.nodes:
            return name == "end", "".join(queue), visits
        node = program.nodes[name]
        if node.kind not in PULLS:
            queue.extend(PAINTS.get(node.kind, ""))
            name = node.routes["NEXT"]
        elif queue and queue[0] in PULLS[node.kind]:
            name = node.routes.get(queue.popleft(), "NONE")
        else:
            name = node.routes.get("EMPTY", "NONE")
    return False, "".join(queue), 1000


def looping(body: str) -> Program:
    indented = body.replace("\n ", "\n    ")
    return parse_program(f"START start:\n    NEXT a\n{indented}\nEND end")


def tapes_per_second(run: Callable[[Program, str], object], jobs: list[Job], seconds: float = 1.0) -> float:
    """Best of rounds over all jobs, for about `seconds`."""
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        begin = time.perf_counter()
        for program, tapes in jobs:
            for tape in tapes:
                run(program, tape)
        best = max(best, sum(len(tapes) for _, tapes in jobs) / (time.perf_counter() - begin))
    return best


def main() -> None:
    environment = Manufactoria(family="has", prompt="compact")
    problems = [*environment.problems("train"), *environment.problems("test")]
    jobs: dict[str, list[Job]] = {
        "HAS solutions": [
            (parse_program(solve_has(problem)), [tape for tape, _ in environment.tapes(problem)])
            for problem in problems
        ]
    }
    some = [tape for _, tapes in jobs["HAS solutions"][:10] for tape in tapes]
    jobs |= {name: [(looping(body), some)] for name, body in LOOPS.items()}
    print(f"{'programs':<20}{'machine, tapes/s':>18}{'literal, tapes/s':>18}{'ratio':>8}")
    for name, job in jobs.items():
        for program, tapes in job[:50]:
            for tape in tapes:
                outcome = program.run(tape)
                assert (outcome.accepted, outcome.tape, outcome.visits) == literal(program, tape)
        fast, slow = tapes_per_second(Program.run, job), tapes_per_second(literal, job)
        print(f"{name:<20}{fast:>18,.0f}{slow:>18,.0f}{fast / slow:>8.1f}")
    begin = time.perf_counter()
    replies = [f"```manufactoria\n{solve_has(problem)}\n```" for problem in problems]
    solved = sum(environment.grade(*pair).solved for pair in zip(problems, replies, strict=True))
    print(f"\ngraded {len(problems)} solutions ({solved} solved) in {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main()
