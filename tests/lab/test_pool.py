"""Which problems the lab and its corpus hold, and that no test problem leaks, by brute force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations, product

import pytest

from lab.transcripts import scenes
from resd.environments.manufactoria import Manufactoria, has_predicate
from resd.lab.corpus import Scene
from resd.lab.pool import KIND_WEIGHTS, STATE_WEIGHTS, corpus_scenes, in_lab, language, task_of
from resd.lab.programs import COLORS, STATES, Task, Transitions
from resd.records import Problem

ENVIRONMENT = Manufactoria(family="has", prompt="compact")
SPLITS = {split: ENVIRONMENT.problems(split) for split in ("train", "test")}
LAB = [problem for problems in SPLITS.values() for problem in problems if in_lab(problem)]
TAPES = ["".join(tape) for length in range(7) for tape in product(COLORS, repeat=length)]


def predicate(task: Task) -> Callable[[str], bool]:
    """The task's language, from its definition alone."""
    if task.kind == "substring":
        return lambda tape: task.sequence in tape
    if task.kind == "count":
        return lambda tape: all(tape.count(color) >= n for color, n in task.counts)
    return lambda tape: all(symbol in rest for rest in [iter(tape)] for symbol in task.sequence)


def shortest_word(task: Task) -> str:
    return task.sequence or "".join(color * n for color, n in task.counts)


@pytest.mark.parametrize(("split", "size", "count"), [("train", 742, 606), ("test", 132, 104)])
def test_most_problems_are_in_the_lab(split: str, size: int, count: int) -> None:
    """All but single symbols and long counts."""
    tasks = [task_of(problem) for problem in SPLITS[split]]
    inside = [task_of(problem) for problem in SPLITS[split] if in_lab(problem)]
    assert (len(tasks), len(inside)) == (size, count)
    assert {task.kind for task in inside} == {"substring", "ordered", "count"}
    assert all(len(shortest_word(task)) >= 2 for task in inside)
    left_out = [task for task in tasks if task not in inside and len(shortest_word(task)) > 1]
    assert {(task.kind, task.states > 6) for task in left_out} == {("count", True)}


def test_the_environment_can_leave_out_the_same_problems() -> None:
    lab_only = Manufactoria(family="has", prompt="compact", states=STATES)
    for split, problems in SPLITS.items():
        assert lab_only.problems(split) == [problem for problem in problems if in_lab(problem)]


def test_tasks_mean_what_their_problems_mean() -> None:
    tapes = TAPES[:: len(TAPES) // 100]
    for problem in LAB:
        wanted, ours = has_predicate(problem), predicate(task_of(problem))
        assert [wanted(tape) for tape in tapes] == [ours(tape) for tape in tapes], problem.question


def test_no_scene_is_a_test_problem_or_has_its_language() -> None:
    """Equal languages accept each other's shortest words: only such pairs are compared on all tapes."""
    held_out = [task_of(problem) for problem in SPLITS["test"]]
    corpus = [scene.task for scene in corpus_scenes()[0]]
    assert not set(held_out) & set(corpus)
    assert not {problem.question for problem in SPLITS["test"]} & set(scenes())
    judges = {task: predicate(task) for task in {*held_out, *corpus}}
    compared = 0
    for test, task in product(held_out, corpus):
        if judges[test](shortest_word(task)) and judges[task](shortest_word(test)):
            compared += 1
            assert any(judges[test](tape) != judges[task](tape) for tape in TAPES), (test, task)
    assert compared > 0


def test_language_is_equal_exactly_for_equal_languages() -> None:
    """On all tapes of up to 6 symbols, which tell all these languages apart."""
    tasks = list({task_of(problem) for problem in LAB})[::2]
    # Equal languages of different kinds: one symbol, one color, in a row, in order, in number.
    tasks += [Task("substring", "R"), Task("ordered", "R"), Task("count", counts=(("R", 1),))]
    tasks += [Task("substring", "YY"), Task("ordered", "YY"), Task("count", counts=(("Y", 2),))]
    by_language: dict[Transitions, set[int]] = {}
    by_behaviour: dict[int, set[Transitions]] = {}
    for task in tasks:
        accepted = predicate(task)
        behaviour = sum(accepted(tape) << i for i, tape in enumerate(TAPES))
        by_language.setdefault(language(task), set()).add(behaviour)
        by_behaviour.setdefault(behaviour, set()).add(language(task))
    assert all(len(group) == 1 for group in (*by_language.values(), *by_behaviour.values()))
    assert language(Task("ordered", "YY")) == language(Task("count", counts=(("Y", 2),)))
    assert language(Task("ordered", "YY")) != language(Task("substring", "YY"))


def test_automata_are_minimal() -> None:
    """Every state is reached, and any two differ on some continuation (Moore's refinement)."""
    tables = {task_of(problem).transitions for problem in LAB}
    tables |= {scene.task.transitions for scene in corpus_scenes()[0]}
    for table in tables:
        assert _reached(table) == set(range(len(table) + 1))
        assert not _equivalent(table), table


def _reached(table: Transitions) -> set[int]:
    reached, queue = {0}, [0]
    while queue:
        state = queue.pop()
        fresh = {after for after in table[state] if after not in reached} if state < len(table) else set()
        reached |= fresh
        queue += fresh
    return reached


def _equivalent(table: Transitions) -> set[tuple[int, int]]:
    """Pairs of states that no tape tells apart."""
    accept = len(table)
    pairs = set(combinations(range(accept), 2))
    while True:
        apart = {
            (a, b)
            for a, b in pairs
            if any(
                x != y and (accept in (x, y) or (min(x, y), max(x, y)) not in pairs)
                for x, y in zip(table[a], table[b], strict=True)
            )
        }
        if not apart:
            return pairs
        pairs -= apart


def test_scenes_cover_the_lab_and_share_weight_as_planned() -> None:
    drawn, weights = corpus_scenes()
    assert len(drawn) == len(scenes()) == len(weights)
    assert all(STATES[0] <= scene.task.states <= STATES[1] for scene in drawn)
    totals: Counter[tuple[str, int]] = Counter()
    for scene, weight in zip(drawn, weights, strict=True):
        totals[scene.task.kind, scene.task.states] += weight  # type: ignore[assignment]
    for (kind, states), total in totals.items():
        assert total == pytest.approx(KIND_WEIGHTS[kind] * STATE_WEIGHTS[states])
    assert {kind for kind, _ in totals} == set(KIND_WEIGHTS)


def test_trials_carry_the_verdict_of_the_environment() -> None:
    train: dict[str, Problem] = {problem.question: problem for problem in SPLITS["train"]}
    shared: list[Scene] = [scene for scene in corpus_scenes()[0] if scene.question in train][::60]
    for scene in shared:
        for broken in [frozenset[str](), frozenset({"end"}), frozenset({"accept", "empty"})]:
            trial = scene.trial(broken)
            assert trial.feedback == ENVIRONMENT.grade(train[scene.question], trial.reply).feedback
            assert bool(trial.feedback) == bool(broken)
