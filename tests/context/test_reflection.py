import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.fakes import curation_json, reflection_json
from resd.context.curation import MAX_OPERATIONS, curation_schema, parse_curation
from resd.context.reflection import (
    MAX_LESSONS,
    MAX_TAGS,
    Reflection,
    Tags,
    parse_reflection,
    parse_tags,
    reflection_schema,
    render_reflection,
    tags_schema,
)

IDS = ("err-00001", "prob-00002")
REPLY = reflection_json("one", "two", err_00001="helpful")

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(IDS)
values = st.recursive(
    leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3)
)
keys = st.sampled_from(
    ["error", "fix", "lessons", "tags", "operations", "type", "section", "content", "id", "tag"]
)
items = st.lists(values | st.dictionaries(keys, values, max_size=4), max_size=4) | values
objects = st.dictionaries(keys, items, max_size=5).map(json.dumps)
junk = st.text(alphabet='{}[]":,`\\ \nadgit<>/think-0123', max_size=60) | st.text(max_size=30)


@settings(max_examples=300, deadline=None)
@given(st.tuples(junk, objects | junk, junk).map("".join))
def test_parsing_never_raises(text):
    reflection = parse_reflection(text, IDS)
    render_reflection(reflection)
    parse_curation(text)
    assert reflection.tags.by_id.keys() <= set(IDS)


@pytest.mark.parametrize("text", [
    '{"a":' * 50_000, "{" * 100_000, '{"error": ' + "9" * 5_000 + "}", "<think>" * 10_000, '"id":' * 20_000,
])  # fmt: skip
def test_hostile_junk_is_refused(text):
    assert parse_reflection(text, IDS).lessons == ()
    assert not parse_curation(text).parsed


@pytest.mark.parametrize("text", [
    REPLY, f"  {REPLY}\n", f"<think>so {{}} </think>{REPLY}", f"out of the prompt</think>\n{REPLY}",
    f"Sure:\n```json\n{REPLY}\n```\nDone.", f"```\n{REPLY}\n```",
    f'I think {{this}}: {{"x": 1}} {REPLY} or so }}',
])  # fmt: skip
def test_json_is_found_wherever_it_stands(text):
    reflection = parse_reflection(text, IDS)
    assert reflection.parsed
    assert (reflection.error, reflection.fix, reflection.lessons) == ("an error", "a fix", ("one", "two"))
    assert reflection.tags == Tags({"err-00001": "helpful"})


def test_a_reply_that_was_cut_short_keeps_its_tags_and_its_text():
    text = '<think>x</think>{"error": "e", "tags": [{"id": "err-00001", "tag": "harmful"}, {"tag": '
    text += '"Helpful", "id": "prob-00002"}, {"id": "err-00009", "tag": "helpful"}, {"id": "err'
    reflection = parse_reflection(text, IDS)
    assert not reflection.parsed
    assert reflection.tags == Tags({"err-00001": "harmful", "prob-00002": "helpful"}, unknown=1, parsed=False)
    assert render_reflection(reflection) == reflection.raw == text.partition("</think>")[2]


def test_the_last_tag_counts_and_the_unknown_is_counted():
    tags = [("err-00001", "helpful"), ("err-00001", " HARMFUL "), ("xxx-99999", "helpful"), 
            ("prob-00002", "good"), (["err-00001"], "helpful"), ("err-00001", None)]  # fmt: skip
    text = json.dumps({"tags": [*({"id": i, "tag": t} for i, t in tags), "err-00001", 3]})
    assert parse_tags(text, IDS) == Tags({"err-00001": "harmful"}, unknown=6)
    assert parse_tags('{"tags": {"err-00001": "helpful"}}', IDS) == Tags()


def test_types_and_bounds_of_a_reflection():
    fix = "a\n bc" + "".join(f" word{i}" for i in range(100))
    lessons = [1, " ", "one\ntwo", "three", "four", "five"]
    reflection = parse_reflection(
        json.dumps({"error": ["no"], "fix": fix, "lessons": lessons, "tags": None}), IDS
    )
    assert (reflection.error, reflection.fix[:9], len(reflection.fix)) == ("", "a bc word", 400)
    assert reflection.lessons == ("one two", "three", "four")


def test_degenerate_lessons_are_dropped_and_counted():
    reflection = parse_reflection(
        reflection_json("s0s0s1s0", "Mind the end.", ", ", err_00001="helpful"), IDS
    )
    assert (reflection.lessons, reflection.lessons_rejected) == (("Mind the end.",), 2)
    assert reflection.parsed
    assert reflection.tags.by_id == {"err-00001": "helpful"}


@pytest.mark.parametrize("text", [
    reflection_json("Mind the end.", error=",", err_00001="helpful"),
    reflection_json("Mind the end.", fix="s0s0s0s1s0s0", err_00001="helpful"),
    "the fix is " + "the " * 100, "<think>so</think>" + "s0s1" * 100, '{"error": "' + "s0" * 60,
])  # fmt: skip
def test_nothing_remains_of_a_degenerate_reflection(text):
    reflection = parse_reflection(text, IDS)
    assert reflection == Reflection("", "", (), Tags(parsed=False), "", parsed=False)
    assert render_reflection(reflection) == ""


def test_degenerate_contents_are_invalid_operations():
    curation = parse_curation(curation_json("s0s0s0s1", "Mind the end.", "the " * 40))
    assert [addition.content for addition in curation.additions] == ["Mind the end."]
    assert curation.rejected == 2


def test_rendering():
    reflection = parse_reflection(REPLY, IDS)
    assert render_reflection(reflection) == "Error: an error\nFix: a fix\nLesson: one\nLesson: two"
    assert render_reflection(Reflection("", "", (), Tags(), "{}")) == ""


def test_curation_skips_and_counts_what_is_invalid():
    good = {"type": "add", "section": "Common Mistakes", "content": " do\nthis "}
    bad = [None, 3, "ADD", {}, {**good, "type": "DELETE"}, {**good, "type": ["ADD"]}, {**good, "section": 3},
           {**good, "content": ["x"]}, {**good, "content": " "}]  # fmt: skip
    curation = parse_curation(json.dumps({"operations": [*bad, good]}))
    assert [(a.section, a.content) for a in curation.additions] == [("Common Mistakes", "do this")]
    assert curation.rejected == len(bad)
    many = parse_curation(json.dumps({"operations": [good] * 5}))
    assert (len(many.additions), many.rejected) == (MAX_OPERATIONS, 2)
    assert not parse_curation('{"operations": 3}').parsed
    assert parse_curation('{"operations": []}').parsed


def test_schemas_bound_everything():
    schema = reflection_schema(IDS)
    assert list(schema["properties"]) == schema["required"] == ["error", "fix", "lessons", "tags"]
    assert schema["properties"]["lessons"]["maxItems"] == MAX_LESSONS
    assert schema["properties"]["tags"]["items"]["properties"]["id"]["enum"] == list(IDS)
    assert schema["properties"]["tags"]["maxItems"] == 2
    assert tags_schema([])["properties"]["tags"]["maxItems"] == 0
    assert tags_schema([f"err-{i:05d}" for i in range(99)])["properties"]["tags"]["maxItems"] == MAX_TAGS


@pytest.mark.parametrize("schema", [
    reflection_schema(()), reflection_schema(IDS), tags_schema(IDS), curation_schema(),
], ids=["empty", "reflection", "tags", "curation"])  # fmt: skip
def test_schemas_compile_to_grammars(schema):
    llguidance = pytest.importorskip("llguidance")
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
    assert llguidance.LLMatcher.validate_grammar(grammar) == ""
