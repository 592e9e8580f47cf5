"""Documents beside what a training run sends, accepts and expects."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from itertools import islice, product
from math import sqrt

import pytest

from lab.transcripts import (
    attempt,
    broken_in,
    documents,
    entries,
    of_kind,
    other_tasks,
    playbook,
    readings,
    reflection,
    scene,
    sections,
)
from resd.config import ContextConfig
from resd.context.curation import parse_curation
from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.prompts import COMPACT
from resd.context.reflection import parse_reflection, parse_tags
from resd.context.roles import Ask, Asker
from resd.context.teacher_prompt import TeacherPromptComposer
from resd.generation.structured import Grammars
from resd.generation.vocabulary import Vocabulary
from resd.lab.batches import Encoder
from resd.lab.corpus import MAX_ENTRIES, MAX_NAMED, MISREAD_SHARE, SHARES, Corpus, Document, Evidence, kept
from resd.lab.pool import corpus_scenes, make_corpus
from resd.lab.programs import broken_rules, variants
from resd.lab.rules import BY_NAME, MISREAD_ERROR, MISREAD_FIX, RULE_OF_TEXT, RULES, Rule
from resd.lab.tokenizer import build_tokenizer

CONTEXT = ContextConfig(style="compact", max_reflection_tokens=256, max_curation_tokens=128)
TOKENIZER = build_tokenizer()
ASKER = Asker(CONTEXT, PromptBuilder(COMPACT, TOKENIZER, False, CONTEXT.max_prompt_tokens), seed=0, step=0)
ROLES = ("reflect", "tag", "curate")


def ask(document: Document) -> Ask:
    """What a training run would ask to get this document."""
    if document.kind == "reflect":
        return ASKER.reflect(attempt(document), entries(document))
    if document.kind == "tag":
        return ASKER.tag(attempt(document), entries(document))
    reflected = reflection(document)
    assert reflected is not None
    return ASKER.curate(attempt(document), reflected, entries(document))


def failures() -> list[Document]:
    """Documents that show a failed trial."""
    teachers = [document for document in of_kind("teacher") if sections(document.prompt)["trial"]]
    return [*teachers, *of_kind("reflect")]


def is_wrong(entry: Entry) -> bool:
    return entry.content == RULE_OF_TEXT[entry.content].wrong_lesson


def rules_of(texts: tuple[str, ...]) -> list[str]:
    """One per text; none for the sentences on misread tasks."""
    if texts in ((MISREAD_ERROR,), (MISREAD_FIX,)):
        return []
    return [RULE_OF_TEXT[text].name for text in texts]


def sentences(text: str) -> tuple[str, ...]:
    return tuple(sentence + "." for sentence in text.removesuffix(".").split(". "))


# The stream.


def test_one_seed_gives_one_stream() -> None:
    first, again, other = (list(islice(make_corpus(seed), 100)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_stream_is_the_one_that_the_shipped_weights_were_trained_on() -> None:
    """A change of what is drawn, or of any word, needs new weights (`resd lab build`) and a new digest."""
    digest = hashlib.sha256(repr(list(islice(make_corpus(0), 300))).encode()).hexdigest()
    assert digest[:16] == "79c7c438286031f7"


def test_kinds_have_their_shares() -> None:
    counts = Counter(document.kind for document in documents())
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind, share in SHARES.items():
        assert counts[kind] / len(documents()) == pytest.approx(share, abs=0.04)


def test_scenes_without_weight_are_never_drawn() -> None:
    (one, two, *_), _ = corpus_scenes()
    drawn = {
        scene(document).question for document in islice(_without_curation(Corpus([one, two], [0, 1], 0)), 50)
    }
    assert drawn == {two.question}


def _without_curation(corpus: Corpus) -> filter[Document]:
    return filter(lambda document: document.kind != "curate", corpus)


# Prompts are those of a run.


def test_student_prompts_are_questions() -> None:
    assert all(scene(document).question == document.prompt for document in of_kind("student"))


def test_teacher_prompts_are_those_of_the_composer() -> None:
    composer = TeacherPromptComposer(CONTEXT, COMPACT, TOKENIZER, thinking=False)
    shown = set()
    for document in of_kind("teacher"):
        parts, tried = sections(document.prompt), attempt(document)
        prompt = composer.compose(
            tried.problem,
            entries=playbook(document).entries,
            trial=parts["trial"],
            feedback=parts["feedback"],
            reflection=reflection(document),
            solution=parts["solution"],
        )
        if prompt is None:  # nothing to show but the question; a run has no such teacher
            assert set(filter(parts.get, parts)) == {"problem"}
            continue
        assert prompt.text == document.prompt
        assert prompt.dropped == ()
        shown.add(prompt.sections)
    assert len(shown) >= 10


@pytest.mark.parametrize("kind", ROLES)
def test_prompts_of_the_roles_are_those_of_the_asker(kind: str) -> None:
    encode = Encoder()
    for document in of_kind(kind):
        prompt = ask(document).prompt
        ids, length = encode(document)
        assert prompt.text == document.prompt
        assert prompt.ids == tuple(ids[:length])
        assert prompt.cut == ()


# Responses are what a run can read.


@pytest.mark.parametrize("kind", ROLES)
def test_responses_follow_the_schema_token_by_token(kind: str) -> None:
    """The very tokens of the corpus are allowed at every position, and nothing but the end behind them."""
    stop = int(TOKENIZER.eos_token_id)
    grammars = Grammars(Vocabulary.of(TOKENIZER, (stop,)))
    encode = Encoder()
    for document in of_kind(kind)[:60]:
        ids, length = encode(document)
        request = ask(document).request
        constraint = grammars.constraint(request)
        assert constraint is not None
        for left, token in enumerate(ids[length:]):
            remaining = request.max_tokens - left
            assert constraint.allowed(remaining)[token]
            assert constraint.commit(token, remaining) == (token, True)
        assert len(ids) - length <= request.max_tokens


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_programs_are_variants_of_the_task(kind: str) -> None:
    """Also beside trials that misread it: answers never do."""
    for document in of_kind(kind):
        assert document.response in variants(scene(document).task)
    beside = [document for document in failures() if document.kind == kind and broken_in(document) is None]
    assert len(beside) > 50 or kind == "student"


def test_shown_attempts_failed_and_solutions_are_right() -> None:
    for document in (*of_kind("teacher"), *of_kind("reflect")):
        parts = sections(document.prompt)
        assert bool(parts["trial"]) == bool(parts["feedback"])
        if parts["trial"]:
            assert parts["feedback"] == scene(document).judged(frozenset(), parts["trial"]).feedback
        if parts["solution"]:
            assert broken_rules(scene(document).task, parts["solution"]) == frozenset()


def test_a_share_of_failed_trials_misreads_the_task() -> None:
    """Half have the states of another task of the corpus; half have one or two targets gone astray."""
    shown = failures()
    misread = [document for document in shown if broken_in(document) is None]
    assert len(misread) / len(shown) == pytest.approx(MISREAD_SHARE, abs=0.03)
    assert all(readings(document) for document in misread)
    others = [
        any(other_tasks(scene(document).task, sections(document.prompt)["trial"])) for document in misread
    ]
    assert sum(others) / len(others) == pytest.approx(0.5, abs=0.1)
    certain = [document for document in misread if len(readings(document)) == 1]
    assert len(certain) > 0.6 * len(misread)
    assert any(readings(document) == {frozenset()} for document in certain)


def test_reflections_name_broken_rules_the_missing_end_first() -> None:
    misread = Counter[bool]()
    for document in of_kind("reflect"):
        reply = parse_reflection(document.response, [entry.id for entry in entries(document)])
        named = rules_of(reply.lessons)
        assert reply.parsed
        assert any(names_well(named, broken) for broken in readings(document))
        assert rules_of(sentences(reply.error)) == rules_of(sentences(reply.fix)) == named
        assert bool(named) == (reply.error != MISREAD_ERROR) == (reply.fix != MISREAD_FIX)
        misread[not named] += 1
    assert 0 < misread[True] < 0.1 * misread[False]


def names_well(named: list[str], broken: frozenset[str]) -> bool:
    """As many as there are, two at most, and first of all the missing END node."""
    return (
        set(named) <= broken
        and len(set(named)) == len(named) == min(len(broken), MAX_NAMED)
        and ("end" not in broken or named[0] == "end")
    )


def test_tags_on_failures_judge_each_entry_by_its_rule() -> None:
    seen = Counter[str]()
    for document in of_kind("reflect"):
        shown = entries(document)
        reply = parse_reflection(document.response, [entry.id for entry in shown])
        assert (reply.tags.unknown, list(reply.tags.by_id)) == (0, [entry.id for entry in shown])
        # One reading explains tags and lessons together.
        assert any(
            reply.tags.by_id == wanted_tags(shown, broken) and names_well(rules_of(reply.lessons), broken)
            for broken in readings(document)
        )
        seen.update(reply.tags.by_id.values())
    assert set(seen) == {"helpful", "harmful", "neutral"}


def wanted_tags(shown: tuple[Entry, ...], broken: frozenset[str]) -> dict[str, str]:
    about = {entry: RULE_OF_TEXT[entry.content].name in broken for entry in shown}
    return {
        entry.id: ("harmful" if is_wrong(entry) else "helpful") if matters else "neutral"
        for entry, matters in about.items()
    }


def test_tags_on_successes_are_helpful_for_rules_that_apply() -> None:
    for document in of_kind("tag"):
        task, shown = scene(document).task, entries(document)
        assert broken_in(document) == frozenset()
        tags = parse_tags(document.response, [entry.id for entry in shown])
        wanted = {
            entry.id: "helpful"
            if not is_wrong(entry) and RULE_OF_TEXT[entry.content] in task.rules
            else "neutral"
            for entry in shown
        }
        assert (tags.parsed, tags.unknown, tags.by_id) == (True, 0, wanted)


def test_curator_adds_exactly_the_lessons_of_missing_rules() -> None:
    sizes = Counter[int]()
    for document in of_kind("curate"):
        present = {RULE_OF_TEXT[entry.content].name for entry in entries(document) if not is_wrong(entry)}
        reflected = reflection(document)
        assert reflected is not None
        curation = parse_curation(document.response)
        wanted = [text for text in reflected.lessons if RULE_OF_TEXT[text].name not in present]
        assert [addition.content for addition in curation.additions] == wanted
        assert all(RULE_OF_TEXT[a.content].section == a.section for a in curation.additions)
        assert (curation.parsed, curation.rejected) == (True, 0)
        sizes[len(wanted)] += 1
    assert set(sizes) == {0, 1, 2}


# What playbooks and reflections hold.


def test_playbooks_have_few_entries_with_ids_of_their_own_in_any_order() -> None:
    books = [book for document in documents() if (book := entries(document))]
    orders = Counter(list(book) == sorted(book, key=lambda entry: entry.id[-5:]) for book in books)
    assert all(len({entry.id for entry in book}) == len(book) <= MAX_ENTRIES for book in books)
    assert all(RULE_OF_TEXT[entry.content].section == entry.section for book in books for entry in book)
    assert min(orders.values()) > 0.3 * len(books)


def test_wrong_lessons_stand_in_some_playbooks_and_nowhere_else() -> None:
    wrong = {rule.wrong_lesson for rule in RULES}
    books = [book for document in documents() if (book := entries(document))]
    assert 0.1 < sum(any(map(is_wrong, book)) for book in books) / len(books) < 0.25
    for document in documents():
        assert not any(text in document.response for text in wrong)
        assert not any(text in sections(document.prompt)["reflection"] for text in wrong)


def test_reflections_in_teacher_prompts_are_nearly_always_right() -> None:
    shown = [document for document in of_kind("teacher") if sections(document.prompt)["reflection"]]
    right = [any(_fits(_named(document), broken) for broken in readings(document)) for document in shown]
    assert 0.93 < sum(right) / len(right) < 1


def _fits(named: list[str], broken: frozenset[str]) -> bool:
    return set(named) <= broken and bool(named) == bool(broken)


def _named(document: Document) -> list[str]:
    reflected = reflection(document)
    return rules_of(reflected.lessons) if reflected else []


# How programs depend on what is shown.


def evidence(document: Document, rule: Rule) -> Evidence:
    """Read off the prompt alone, which must allow one reading of the trial."""
    shown = [entry for entry in entries(document) if RULE_OF_TEXT[entry.content] is rule]
    parts = sections(document.prompt)
    return Evidence(
        kept_before=rule.name not in next(iter(readings(document))) if parts["trial"] else None,
        reflected=bool(parts["reflection"]),
        named=rule.name in _named(document),
        lesson=any(not is_wrong(entry) for entry in shown),
        wrong_lesson=any(map(is_wrong, shown)),
        solution=bool(parts["solution"]),
    )


def test_programs_keep_rules_as_often_as_the_table_says() -> None:
    """Within five standard errors, for every state of evidence and every rule, as prompts show it.

    Also beside trials that misread the task, where their text leaves no doubt about the rules.
    """
    groups: dict[object, list[tuple[bool, float]]] = defaultdict(list)
    for document in (*of_kind("teacher"), *of_kind("student")):
        shows_trial = bool(sections(document.prompt)["trial"])
        if shows_trial and len(readings(document)) > 1:
            continue
        broken = variants(scene(document).task)[document.response]
        for rule in scene(document).task.rules:
            seen = Evidence() if document.kind == "student" else evidence(document, rule)
            outcome = (rule.name not in broken, kept(rule, seen))
            groups[document.kind, seen].append(outcome)
            groups[document.kind, rule.name].append(outcome)
            groups["misread", shows_trial and broken_in(document) is None].append(outcome)
    assert len(groups) > 25
    for group, outcomes in groups.items():
        surplus = sum(kept_it - p for kept_it, p in outcomes)
        assert abs(surplus) <= 1 + 5 * sqrt(sum(p * (1 - p) for _, p in outcomes)), group


def possible_evidence() -> list[Evidence]:
    states = (Evidence(*values) for values in product((None, False, True), *[(False, True)] * 5))
    return [
        e for e in states if (e.kept_before is not None or not e.reflected) and (e.reflected or not e.named)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_more_evidence_never_makes_a_rule_less_likely(rule: Rule) -> None:
    """But for wrong lessons, which never make it more likely."""
    for seen in possible_evidence():
        p = kept(rule, seen)
        values = {**vars(seen)}
        assert 0 < p <= 0.988
        for better in ("lesson", "solution", "reflected", "named"):
            more = Evidence(**{**values, better: True})
            if more in possible_evidence():
                assert kept(rule, more) >= p, (seen, better)
        assert kept(rule, Evidence(**{**values, "wrong_lesson": True})) <= p
        if seen.kept_before is False:
            assert kept(rule, Evidence(**{**values, "kept_before": True})) >= p


def test_each_knob_of_the_table() -> None:
    rule = BY_NAME["empty"]
    assert kept(rule, Evidence()) == rule.prior
    assert kept(rule, Evidence(wrong_lesson=True)) == 0.15
    assert kept(rule, Evidence(kept_before=True)) == 0.66
    assert kept(rule, Evidence(kept_before=False)) == pytest.approx(rule.prior + 0.03)
    assert kept(BY_NAME["end"], Evidence(kept_before=False)) == pytest.approx(0.65)
    assert kept(rule, Evidence(lesson=True)) == pytest.approx(0.92)
    assert kept(rule, Evidence(lesson=True, wrong_lesson=True)) == pytest.approx(0.6)
    assert kept(rule, Evidence(kept_before=True, reflected=True)) == pytest.approx(0.94)
    assert kept(rule, Evidence(kept_before=False, reflected=True, named=True)) == pytest.approx(0.93)
    assert kept(rule, Evidence(solution=True)) == pytest.approx(0.97)
    assert kept(rule, Evidence(kept_before=True, lesson=True)) == 0.988  # 1 - .08 * .06, capped


def test_json_is_written_as_the_decoder_writes_it() -> None:
    for document in documents():
        if document.kind in ROLES:
            assert json.dumps(json.loads(document.response)) == document.response
