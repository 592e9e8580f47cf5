import pytest

from resd.context.entries import (
    SECTIONS,
    Entry,
    dedup_key,
    find_section,
    one_line,
    render_entries,
    statistics,
)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.slug)
def test_every_spelling_of_a_section_lands_in_it(section):
    key = section.key
    spellings = [
        key,
        key.upper(),
        key.replace("_", "-"),
        key.replace("_", " ").title(),
        key.replace("_and_", "_&_"),
        key.replace("_and_", " & "),
        key.replace("_and_", "&"),
        section.title,
        f"## {section.title}",
        f"  {section.title.lower()} \n",
        section.slug,
    ]
    assert {find_section(spelling) for spelling in spellings} == {section}


@pytest.mark.parametrize(("name", "slug"), [
    ("formulas", "calc"), ("code snippets", "code"), ("common mistakes", "err"), ("context-clues", "ctx"),
    ("problem solving", "prob"), ("strategies", "sai"),
    ("general", "misc"), ("meta_strategies", "misc"), ("", "misc"), ("&", "misc"), ("mistakes", "misc"),
])  # fmt: skip
def test_leading_words_are_enough_and_the_unknown_goes_to_others(name, slug):
    assert find_section(name).slug == slug


def test_one_line_survives_any_text():
    assert one_line(" a\r\n\tb\u2028c \ud800") == "a b c ?"


@pytest.mark.parametrize(("one", "other", "same"), [
    ("Do not stop.", "do  not\nstop", True),
    ('Say "yes", then go!', "say yes then go", True),
    ("use x < 3", "use x > 3", False),
    ("use x != 0", "use x = 0", False),
    ("write a[i]", "write a(i)", False),
])  # fmt: skip
def test_duplicates_differ_in_punctuation_but_not_in_operators(one, other, same):
    assert (dedup_key(one) == dedup_key(other)) is same


ENTRIES = (
    Entry("misc-00001", "others", "third by section", 1, 0),
    Entry("err-00002", "common_mistakes_to_avoid", "first", 2, 0),
    Entry("err-00003", "common_mistakes_to_avoid", "second", 0, 1),
)


def test_compact_rendering_keeps_the_order_of_arrival():
    expected = "[misc-00001] third by section\n[err-00002] first\n[err-00003] second"
    assert render_entries(ENTRIES, counts=False, headers=False) == expected


def test_full_rendering_groups_by_section():
    assert render_entries(ENTRIES, counts=True, headers=True) == (
        "## COMMON MISTAKES TO AVOID\n"
        "[err-00002] helpful=2 harmful=0 :: first\n"
        "[err-00003] helpful=0 harmful=1 :: second\n\n"
        "## OTHERS\n"
        "[misc-00001] helpful=1 harmful=0 :: third by section"
    )


def test_nothing_renders_as_nothing():
    assert (
        render_entries((), counts=True, headers=True) == render_entries((), counts=False, headers=False) == ""
    )


def test_statistics():
    def entry(number, helpful, harmful):
        return Entry(f"misc-{number:05d}", "others", "x", helpful, harmful)

    counts = [(6, 1), (6, 2), (5, 0), (1, 1), (2, 3), (0, 0), (0, 1)]
    stats = statistics(entry(i, *pair) for i, pair in enumerate(counts))
    assert (stats.total, stats.high_performing, stats.problematic, stats.unused) == (7, 1, 3, 1)
    assert stats.by_section == {"others": {"count": 7, "helpful": 20, "harmful": 8}}
