"""The machine against a literal interpreter, worked examples, and recordings of the published interpreter."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.environments.manufactoria import Outcome, ProgramError, parse_program

PULLED = {"PULLER_RB": "RB", "PULLER_YG": "YG"}
PAINTED = {"PAINTER_RED": "R", "PAINTER_BLUE": "B", "PAINTER_YELLOW": "Y", "PAINTER_GREEN": "G"}


def reference(program, tape):
    """(outcome, path): every step taken, nothing clever."""
    current, queue, path = "start", list(tape), []
    for _ in range(1000):
        path.append(current)
        if current == "NONE":
            return Outcome(False, "".join(queue), len(path), "none"), path
        if current == "end":
            return Outcome(True, "".join(queue), len(path), None), path
        if current not in program.nodes:
            return Outcome(False, "".join(queue), len(path), "unknown_node"), path
        node = program.nodes[current]
        if node.kind in PULLED:
            took = queue and queue[0] in PULLED[node.kind]
            current = node.routes.get(queue.pop(0) if took else "EMPTY", "NONE")
        else:
            queue += PAINTED.get(node.kind, "")
            current = node.routes["NEXT"]
    return Outcome(False, "".join(queue), 1000, "limit"), path


def assert_equal_to_reference(program, tape):
    outcome, path = reference(program, tape)
    assert program.run(tape) == outcome
    assert program.trace(tape) == path


@st.composite
def programs(draw):
    names = [f"n{i}" for i in range(draw(st.integers(1, 6)))]
    target = st.sampled_from([*names, *names, *names, "end", "NONE", "END", "start"])
    lines = ["START start:", f"    NEXT {draw(st.sampled_from(names))}"]
    for name in names:
        kind = draw(st.sampled_from([*PULLED, *PULLED, *PAINTED]))
        lines.append(f"{kind} {name}:")
        if kind in PAINTED:
            lines.append(f"    NEXT {draw(target)}")
            continue
        for condition in draw(st.lists(st.sampled_from([*PULLED[kind], "EMPTY"]), max_size=5)):
            lines.append(f"    [{condition}] {draw(target)}")
    return "\n".join([*lines, "END end"])


TAPES = st.text(alphabet="RBYGx", max_size=40)


@settings(max_examples=400, deadline=None)
@given(programs(), st.lists(TAPES, min_size=3, max_size=6))
def test_machine_equals_reference(text, tapes):
    program = parse_program(text)
    for tape in tapes:
        assert_equal_to_reference(program, tape)


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(980, 1010), st.text(alphabet="RBYG", min_size=1, max_size=3))
def test_machine_equals_reference_near_the_limit(text, length, unit):
    assert_equal_to_reference(parse_program(text), (unit * length)[:length])


def build(*nodes):
    return parse_program("\n".join(["START start:", "    NEXT a", *nodes, "END end"]))


LOOPS = {
    "idle": build("PULLER_RB a:", "    [EMPTY] b", "PULLER_YG b:", "    [EMPTY] a"),
    "self": build("PULLER_RB a:", "    [EMPTY] a", "    [R] a"),
    "rotation": build(
        "PULLER_RB a:", "    [R] r", "    [B] b",
        "PAINTER_RED r:", "    NEXT a", "PAINTER_BLUE b:", "    NEXT a",
    ),
    "painting": build(
        "PAINTER_RED a:", "    NEXT b", "PAINTER_BLUE b:", "    NEXT c", "PULLER_YG c:", "    [EMPTY] b",
    ),
    "growing": build(
        "PULLER_RB a:", "    [R] r", "    [B] r", 
        "PAINTER_RED r:", "    NEXT b", "PAINTER_BLUE b:", "    NEXT a",
    ),
    "long_chain": build(
        "PULLER_RB a:", "    [EMPTY] p0",
        *[line for i in range(1100) for line in (f"PAINTER_RED p{i}:", f"    NEXT p{i + 1}")],
        "PAINTER_RED p1100:", "    NEXT end",
    ),
    "idle_chain": build(
        "PULLER_RB a:", "    [EMPTY] p0", "    [R] a",
        *[line for i in range(1100) for line in (f"PULLER_YG p{i}:", f"    [EMPTY] p{i + 1}")],
        "PULLER_RB p1100:", "    [EMPTY] end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_loops(name):
    for tape in ["", "R", "B", "RB", "BRRB", "RBRBRRB" * 3, "Y", "YR", "R" * 300, "RRB" * 334]:
        assert_equal_to_reference(LOOPS[name], tape)


CONTAINS_GY = """
START start:
    NEXT q0
PULLER_YG q0:
    [G] q1
    [Y] q0
    [EMPTY] r0
PULLER_RB r0:
    [R] q0
    [B] q0
PULLER_YG q1:
    [Y] end
    [G] q1
    [EMPTY] r1
PULLER_RB r1:
    [R] q0
    [B] q0
END end
"""
RECOLOUR = """
START start:
    NEXT take
PULLER_RB take:
    [B] mark
    [R] mark2
    [EMPTY] end
PAINTER_YELLOW mark:
    NEXT take
PAINTER_GREEN mark2:
    NEXT take
END end
"""
UPPER_CASE = "START start:\n    NEXT END\nEND end"
EATER = """
START start:
    NEXT eat
PULLER_RB eat:   # trailing comment is fine
    # whole-line comment is dropped
    [R] eat
    [B] NONE
    [EMPTY] end
END end
"""
PING_PONG = """
START start:
    NEXT a
PULLER_RB a:
    [EMPTY] b
PULLER_YG b:
    [EMPTY] a
END end
"""
ROTATE = """
START start:
    NEXT rot
PULLER_RB rot:
    [R] pr
    [B] pb
    [EMPTY] end
PAINTER_RED pr:
    NEXT end
PAINTER_BLUE pb:
    NEXT end
END end
"""


@pytest.mark.parametrize(
    ("text", "tape", "accepted", "final", "visits", "reason"),
    [
        (CONTAINS_GY, "RGGYB", True, "B", 7, None),
        (CONTAINS_GY, "", False, "", 4, "none"),
        (CONTAINS_GY, "GRY", False, "", None, "none"),
        (CONTAINS_GY, "GY", True, "", None, None),
        (RECOLOUR, "BRB", True, "YGY", 9, None),
        (RECOLOUR, "", True, "", None, None),
        (RECOLOUR, "BYB", True, "YBY", None, None),
        (UPPER_CASE, "", False, "", 2, "unknown_node"),
        (UPPER_CASE, "R", False, "R", 2, "unknown_node"),
        (EATER, "R" * 997, True, "", 1000, None),
        (EATER, "R" * 998, False, "", 1000, "limit"),
        (EATER, "RRB", False, "", None, "none"),
        (EATER, "RY", True, "Y", None, None),
        (PING_PONG, "", False, "", 1000, "limit"),
        (PING_PONG, "R", False, "", None, "none"),
        (PING_PONG, "Y", False, "", 4, "none"),
        (ROTATE, "RBB", True, "BBR", None, None),
        (ROTATE, "", True, "", None, None),
        (ROTATE, "YR", True, "YR", None, None),
    ],
)
def test_worked_examples(text, tape, accepted, final, visits, reason):
    program = parse_program(text)
    outcome = program.run(tape)
    assert (outcome.accepted, outcome.tape, outcome.reason) == (accepted, final, reason)
    assert visits is None or outcome.visits == visits
    assert_equal_to_reference(program, tape)


REASONS = {"none": "Routed to NONE", "limit": "Maximum iterations", "unknown_node": "Unknown node"}


def test_recorded_runs(shared):
    rows = (shared / "data/manufactoria/interpreter_conformance.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        if "parse_error" in row:
            with pytest.raises(ProgramError) as caught:
                parse_program(row["program"])
            assert caught.value.line == row["parse_error"]["line"], row
            continue
        program = parse_program(row["program"])
        for run in row["runs"]:
            outcome = program.run(run["tape"])
            recorded = (run["finished"], run["final_tape"], run["visits"])
            assert (outcome.accepted, outcome.tape, outcome.visits) == recorded, row
            assert (outcome.reason is None) == (run["reason"] is None)
            assert (run["reason"] or "").startswith(REASONS.get(outcome.reason, ""))
            assert program.trace(run["tape"])[-len(run["last_nodes"]) :] == run["last_nodes"]
