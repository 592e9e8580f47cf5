"""Reading the lines that come out, whatever they are."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resd.environments.sandbox.launcher.harness import MAX_ITEMS, brackets_and_commas, deeper_than
from resd.environments.sandbox.payload import PayloadError, parse_value, read_lines

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
PIECES = st.binary(max_size=30) | st.sampled_from([b"v1", b'e"x"', b"d", b"m", b"v[", b"\n"])


@given(VALUES, st.booleans())
def test_what_json_writes_is_read_back(value: object, ascii_only: bool) -> None:
    assert parse_value(json.dumps(value, ensure_ascii=ascii_only).encode())[0] == value


@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"v1", b'e"x"', b"d", b"m", b"v[", b"\n"])),
    st.booleans(),
)
def test_any_bytes_are_read_without_an_exception(pieces: list[bytes], cut: bool) -> None:
    lines, _ = read_lines(b"\n".join(pieces), 3, cut)
    assert len(lines.values) == len(lines.errors) <= 3


@given(VALUES, st.integers(0, 6))
def test_depth_is_counted_as_a_recursive_walk_counts_it(value: object, limit: int) -> None:
    def depth(item: object) -> int:
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    brackets, _ = brackets_and_commas(json.dumps(value).encode())
    assert deeper_than(brackets, limit) == (depth(value) > limit)


def test_lines_in_order() -> None:
    lines, good = read_lines(b'v1\ne"ValueError: x"\nv[null]\nd\n', 3, cut=False)
    assert good
    assert lines.complete
    assert lines.values == [1, None, [None]]
    assert lines.errors == [None, "ValueError: x", None]


NOT_WELL_FORMED = [
    b"v1\nd\nv2\n",
    b"d\nd\n",
    b"v1\nv2\nv3\n",
    b"v1",
    b"x\n",
    b"\n",
    b"v\n",
    b"ex\n",
    b"m\nd\n",
]


@pytest.mark.parametrize("data", NOT_WELL_FORMED)
def test_anything_else_is_not_well_formed(data: bytes) -> None:
    assert not read_lines(data, 2, cut=False)[1]


def test_a_run_that_was_cut_short_keeps_its_whole_lines() -> None:
    lines, good = read_lines(b"v1\nv2\nv[3,", 5, cut=True)
    assert good
    assert lines.values == [1, 2]


COSTLY = [
    b"9" * 10**6,
    b"[" * 10**7,
    (b"[" * 101 + b"]" * 101 + b",") * 4 * 10**4,
    b"[" + b"[]," * 3 * 10**6 + b"1]",
    b'{"a":' * 10**5,
    b"1." + b"0" * 10**6,
]
BAD = [b'"\\ud800"', b'"\xff"', b"-", b"01", b"1 1", b""]


@pytest.mark.parametrize("text", [*COSTLY, *BAD])
def test_costly_or_bad_values_are_refused_quickly(text: bytes) -> None:
    start = time.process_time()
    with pytest.raises(PayloadError):
        parse_value(text)
    assert time.process_time() - start < 1.0


def test_all_values_together_have_so_many_items() -> None:
    line = b"v[" + b"[]," * (MAX_ITEMS // 5) + b"1]\n"  # a list and a comma each
    lines, good = read_lines(line * 4, 4, cut=False)
    assert not good
    assert len(lines.values) == 2
    quoted = b'v"' + b"[]," * MAX_ITEMS + b'"\n'
    assert read_lines(quoted + b"d\n", 1, cut=False)[1]
