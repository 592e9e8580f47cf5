"""The grammar's corners, and which error wins."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.environments.manufactoria import ProgramError, parse_program
from resd.environments.manufactoria.parser import MAX_CHARACTERS

ROUTED = "START start:\n    NEXT end\n"


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", None, "empty"),
        ("  \n# only a comment\n", None, "empty"),
        ("```\n```", None, "empty"),
        (ROUTED, None, "no END node"),
        ("END end", None, "no START node"),
        ("PULLER_RB start:\nEND end", None, "no START node"),
        ("START start:\n  NEXT end\nEND end", 1, "exactly one NEXT"),
        ("START start:\n    NEXT end\n    NEXT end\nEND end", 1, "exactly one NEXT"),
        ("START begin:\n    NEXT end\nEND end", 1, "must be called start"),
        (ROUTED + "END finish", 3, "must be called end"),
        ("START start\n    NEXT end\nEND end", 1, "needs a colon"),
        ("START start :\n    NEXT end\nEND end", 1, "not a node"),
        (ROUTED + "END end:", 3, "no colon"),
        (ROUTED + "END end\nEND end", 4, "declared twice"),
        (ROUTED + "START start:\n    NEXT end\nEND end", 3, "declared twice"),
        (ROUTED + "PAINTER_PINK a:\n    NEXT end\nEND end", 3, "not a node"),
        (ROUTED + "PULLER_RB a:\n    [Y] end\nEND end", 3, "cannot branch on Y"),
        (ROUTED + "PULLER_RB a:\n    [r] end\nEND end", 4, "not a route"),
        (ROUTED + "PULLER_RB a:\n    [R]end\nEND end", 4, "not a route"),
        (ROUTED + "PULLER_RB a:\n    NEXT end\nEND end", 4, "not a route"),
        (ROUTED + "PAINTER_RED a:\n    [R] end\nEND end", 4, "not a route"),
        (ROUTED + "PAINTER_RED a:\nEND end", 3, "exactly one NEXT"),
        (ROUTED + "END end\n    NEXT end", 4, "no routes"),
        ("START start:\n    NEXT t1\nEND end", 1, "t1 is not declared"),
        (ROUTED + "PULLER_RB a:\n    [R] end\n    [R] t1\nEND end", 3, "t1 is not declared"),
        # The first error from the top wins, and undefined targets come last.
        ("START start:\n    NEXT t1\nPULLER_RB a\nEND end", 3, "needs a colon"),
        ("START start:\n    NEXT t1", None, "no END node"),
        (ROUTED + "PULLER_RB a:\n    [Y] end\n    [r] end\nEND end", 5, "not a route"),
        # Comments and blank lines count; an opening fence does not.
        ("# one\n\n" + ROUTED + "END end:", 5, "no colon"),
        ("```\n" + ROUTED + "END end:\n```", 3, "no colon"),
        ("```python\n" + ROUTED + "END end", 1, "not a node"),
    ],
)
def test_errors(text, line, part):
    with pytest.raises(ProgramError, match=part) as caught:
        parse_program(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        "END end\nSTART start:\n    NEXT end",
        "START start:\r\n    NEXT end\r\nEND end\r\n",
        "START start:\n\tNEXT end # go\nEND end # done",
        "```\nSTART start:  # here\n      NEXT   end\n  END end\n```",
        ROUTED + "PULLER_RB a:\nEND end",
        ROUTED + "PULLER_RB NONE:\nEND end",
        ROUTED + "PAINTER_RED END:\n    NEXT END\nEND end",
        ROUTED + "PULLER_YG é_1:\n    [EMPTY] é_1\nEND end",
    ],
)
def test_accepted_shapes(text):
    assert parse_program(text).run("R").accepted


def test_first_of_two_equal_conditions_wins():
    program = parse_program("START start:\n    NEXT a\nPULLER_RB a:\n    [R] end\n    [R] NONE\nEND end")
    assert program.run("R").accepted


def test_declared_none_still_rejects_and_declared_upper_case_end_is_a_node():
    body = "PULLER_RB NONE:\n    [EMPTY] end\nPAINTER_RED END:\n    NEXT end\nEND end"
    assert parse_program(f"START start:\n    NEXT NONE\n{body}").run("").reason == "none"
    assert parse_program(f"START start:\n    NEXT END\n{body}").run("").tape == "R"


def test_huge_texts_are_refused():
    with pytest.raises(ProgramError, match="longer than"):
        parse_program("x" * (MAX_CHARACTERS + 1))


def test_messages_stay_on_one_short_line():
    for text in ["START " + "x" * 5000, "a\x0b\x85b\rc " * 900, f"START {'x' * 5000}:\n    NEXT end"]:
        with pytest.raises(ProgramError) as caught:
            parse_program(text)
        assert len(str(caught.value)) < 200
        assert len(str(caught.value).splitlines()) == 1


WORDS = [
    "START",
    "END",
    "PULLER_RB",
    "PAINTER_RED",
    "start",
    "end",
    "a",
    ":",
    "#",
    "[R]",
    "NEXT",
    "\n",
    "\n    ",
    " ",
    "```",
]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=30).map("".join)))
def test_any_text_parses_or_raises_program_error(text):
    try:
        program = parse_program(text)
    except ProgramError:
        return
    program.run("RB")
