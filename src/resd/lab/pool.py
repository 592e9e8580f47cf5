"""Which problems the lab lives on, and which its corpus may see.

The lab's problems are those HAS problems whose smallest automaton has `STATES` states before it accepts:
substring and ordered problems, counts of one color, and the shortest counts of two; no single symbols. The
corpus draws on the train split of these, and on longer sequences; never on a test problem, nor on a problem
with the same language as one.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial

from resd.environments.manufactoria import Manufactoria
from resd.environments.manufactoria.has import ORDERED, SUBSTRING, HasKind, has_kind
from resd.lab.corpus import Corpus, Scene
from resd.lab.programs import COLORS, STATES, Task, Transitions
from resd.records import Problem

EXTRA_LENGTH = 5
# How often each kind and number of states is drawn; sums need not be 1.
KIND_WEIGHTS: Mapping[HasKind, float] = {"substring": 0.46, "ordered": 0.36, "count": 0.18}
STATE_WEIGHTS = {2: 0.14, 3: 0.25, 4: 0.42, 5: 0.18, 6: 0.1}


def task_of(problem: Problem) -> Task:
    """A HAS problem as the lab sees it. Raises KeyError for problems of other families."""
    kind, params = has_kind(problem), problem.metadata["params"]
    if kind == "count":
        return Task(kind, counts=tuple((color, n) for color, n in params["requirements"]))
    return Task(kind, sequence=params["sequence"])


def in_lab(problem: Problem) -> bool:
    """Whether the lab model is meant for this HAS problem."""
    return STATES[0] <= task_of(problem).states <= STATES[1]


def language(task: Task) -> Transitions:
    """Equal exactly for tasks that accept the same tapes: the smallest automaton, numbered breadth first.

    The automata of `Task` are minimal: from different states different continuations accept.
    """
    table, accept = task.transitions, task.states
    number, queue, rows = {0: 0}, deque([0]), []
    while queue:
        row = []
        for after in table[queue.popleft()]:
            if after != accept and after not in number:
                number[after] = len(number)
                queue.append(after)
            row.append(-1 if after == accept else number[after])
        rows.append(tuple(row))
    return tuple(rows)


@lru_cache(maxsize=1)
def corpus_scenes() -> tuple[tuple[Scene, ...], tuple[float, ...]]:
    """Scenes of the corpus and their weights."""
    environment = Manufactoria(family="has", prompt="compact")
    held_out = {language(task_of(problem)) for problem in environment.problems("test")}
    problems = [p for p in _candidates(environment) if language(task_of(p)) not in held_out]
    scenes = tuple(
        Scene(task_of(problem), problem.question, partial(environment.grade, problem)) for problem in problems
    )
    return scenes, tuple(_weights([scene.task for scene in scenes]))


def _candidates(environment: Manufactoria) -> Iterator[Problem]:
    yield from filter(in_lab, environment.problems("train"))
    for symbols in itertools.product(COLORS, repeat=EXTRA_LENGTH):
        for family in (SUBSTRING, ORDERED):
            params = {"sequence": "".join(symbols)}
            messages = ({"role": "user", "content": family.brief(params)},)
            metadata = {"family": family.name, "params": params}
            yield Problem(f"{family.name}/{params['sequence']}", messages, metadata)


def _weights(tasks: Sequence[Task]) -> Iterator[float]:
    """Every kind and size gets its share, split evenly among its tasks."""
    sizes = Counter((task.kind, task.states) for task in tasks)
    for task in tasks:
        share = KIND_WEIGHTS[task.kind] * STATE_WEIGHTS[task.states]
        yield share / sizes[task.kind, task.states]


def make_corpus(seed: int) -> Corpus:
    """An endless corpus over the lab's training problems."""
    scenes, weights = corpus_scenes()
    return Corpus(scenes, weights, seed)
