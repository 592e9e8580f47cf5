import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.context import journal
from resd.context.playbook import Playbook, load_playbooks
from resd.records import ResdError

operations = st.one_of(
    st.tuples(
        st.just("add"), st.sampled_from(["others", "formulas", "Common Mistakes", "?"]), st.text(max_size=6)
    ),
    st.tuples(
        st.just("tag"), st.integers(1, 8), st.sampled_from(["helpful", "harmful", "neutral", "Helpful"])
    ),
    st.tuples(st.just("concise"), st.sampled_from(["reset", "prioritized", "staleness"]), st.integers(0, 4)),
    st.tuples(st.just("advance")),
    st.tuples(st.just("drain")),
)


def play(playbook, operation, drained):
    match operation:
        case ("add", section, content):
            if content.split():
                playbook.add(section, content)
        case ("tag", number, tag):
            known = [entry.id for entry in playbook.entries if int(entry.id.split("-")[1]) == number]
            playbook.tag(known[0] if known else "misc-00000", tag)
        case ("concise", method, budget):
            playbook.concise(method, budget)
        case ("advance",):
            playbook.advance()
        case ("drain",):
            drained.extend(playbook.drain())


@settings(max_examples=150, deadline=None)
@given(st.lists(operations, max_size=25))
def test_replaying_the_journal_gives_the_same_state(tmp_path_factory, history):
    folder = tmp_path_factory.mktemp("journal")
    playbook, drained, ids = Playbook(), [], []
    for operation in history:
        play(playbook, operation, drained)
        ids += [entry.id for entry in playbook.entries if entry.id not in ids]
        numbers = [int(entry.id.split("-")[1]) for entry in playbook.entries]
        assert numbers == sorted(set(numbers)), "order of arrival, no id twice"
    assert len(ids) == playbook.next_number - 1, "ids are never used again"
    playbook.save(folder / "saved.jsonl")
    assert Playbook.load(folder / "saved.jsonl").state() == playbook.state()
    assert Playbook.from_state(playbook.state()).state() == playbook.state()
    journal.append(folder / "run.jsonl", drained)
    journal.append(folder / "run.jsonl", playbook.drain())
    assert Playbook.load(folder / "run.jsonl").state() == playbook.state()


def filled():
    playbook = Playbook()
    playbook.add("others", "first")
    playbook.advance()
    playbook.add("code", "second")
    playbook.tag("code-00002", "helpful")
    return playbook


def test_golden_vector_12_with_every_spelling_in_its_section():
    playbook = Playbook()
    names = ["strategies_and_insights", "problem_solving_heuristics", "PROBLEM-SOLVING HEURISTICS",
             "common_mistakes_to_avoid", "general", "others"]  # fmt: skip
    ids = [playbook.add(name, f"lesson {i}\nmore") for i, name in enumerate(names)]
    assert ids == ["sai-00001", "prob-00002", "prob-00003", "err-00004", "misc-00005", "misc-00006"]
    assert playbook.next_number == 7
    assert playbook.entries[1].content == "lesson 1 more"


def test_duplicates_merge_and_are_counted():
    playbook = filled()
    assert playbook.add("strategies", "  FIRST. ") == "misc-00001"
    assert (len(playbook), playbook.merged, playbook.next_number) == (2, 1, 3)
    playbook.concise("reset", None)
    assert playbook.find("first") is None
    assert playbook.add("others", "first") == "misc-00003"


def test_tags_count_and_nonsense_is_refused():
    playbook = filled()
    assert playbook.tag("misc-00001", "harmful")
    assert playbook.tag("misc-00001", "neutral")
    assert not any([playbook.tag("misc-99999", "helpful"), playbook.tag("misc-00001", "Great"),
                    playbook.tag(["misc-00001"], "helpful"), playbook.tag("misc-00001", {})])  # fmt: skip
    first, second = playbook.entries
    assert (first.helpful, first.harmful, first.created, first.last_used) == (0, 1, 0, 1)
    assert (second.helpful, second.created, second.last_used) == (1, 1, 1)


def test_blank_content_is_refused():
    with pytest.raises(ValueError, match="needs text"):
        Playbook().add("others", " \n ")


def test_a_torn_last_line_is_as_if_it_had_not_been_written(tmp_path):
    path = tmp_path / "playbook.jsonl"
    playbook = filled()
    playbook.save(path)
    complete = path.read_bytes()
    for cut in range(len(complete)):
        path.write_bytes(complete[:cut])
        assert Playbook.load(path).next_number <= playbook.next_number
    path.write_bytes(complete + b'{"op": "adv')
    assert Playbook.load(path).state() == playbook.state()


@pytest.mark.parametrize("line", [
    "{", "[]", "null", "\udcff", '{"op": "fly"}', "{}", '{"op": []}',
    '{"op": "tag", "id": "x", "tag": "helpful"}',
    '{"op": "tag", "id": "misc-00001", "tag": "great"}', '{"op": "add", "id": "misc-00009"}',
    '{"op": "add", "id": "misc-00007", "section": "others", "content": "x"}',
    '{"op": "add", "id": "err-00003", "section": "others", "content": "x"}',
    '{"op": "add", "id": "misc-00003", "section": "others", "content": 3}',
    '{"op": "add", "id": 3, "section": "others", "content": "x"}', '{"op": "remove", "ids": [[]]}',
    '{"op": "state"}', '{"op": "state", "next_number": 1, "update_count": 0, "merged": 0, "entries": [1]}',
    '{"op": "advance", "playbook": 3}', "[" * 100_000,
])  # fmt: skip
def test_a_corrupt_line_is_named(tmp_path, line):
    path = tmp_path / "playbook.jsonl"
    filled().save(path)
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape") + b'\n{"op": "advance"}\n')
    with pytest.raises(ResdError, match=r"playbook\.jsonl, line 5: ") as caught:
        Playbook.load(path)
    assert "\n" not in str(caught.value)


def test_missing_and_mixed_journals(tmp_path):
    with pytest.raises(ResdError, match="cannot be read"):
        Playbook.load(tmp_path / "none.jsonl")
    path = tmp_path / "run.jsonl"
    lines = [{"playbook": name, **change} for name in ("a", "b") for change in filled().drain()]
    journal.append(path, lines)
    with pytest.raises(ResdError, match="one playbook per problem"):
        Playbook.load(path)
    assert {name: book.state() for name, book in load_playbooks(path).items()} == dict.fromkeys(
        "ab", filled().state()
    )


def test_a_run_cuts_its_journal_back_and_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    playbook = filled()
    length = journal.append(path, playbook.drain())
    checkpoint = playbook.state()
    playbook.add("others", "lost with the crash")
    journal.append(path, playbook.drain())
    journal.cut(path, length)
    resumed = Playbook.from_state(checkpoint)
    assert Playbook.load(path).state() == resumed.state()
    resumed.add("others", "third")
    journal.append(path, resumed.drain())
    assert Playbook.load(path).state() == resumed.state()
    with pytest.raises(ResdError, match="bytes, but the checkpoint"):
        journal.cut(path, 10_000)
    journal.cut(tmp_path / "never written.jsonl", 0)


def test_saving_leaves_no_other_file(tmp_path):
    filled().save(tmp_path / "playbook.jsonl")
    filled().save(tmp_path / "playbook.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["playbook.jsonl"]
