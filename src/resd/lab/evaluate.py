"""The behaviour report of a lab model: `resd lab evaluate`. Its performance in each role, beside the goals.

Everything is as in a training run: the same prompts, schemas, parsers and environment. Problems are those of
the test split, which no corpus has seen.
"""

from __future__ import annotations

import json
import math
import operator
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any

from resd.chat import encode_prompt
from resd.config import ContextConfig
from resd.context.curation import parse_curation
from resd.context.entries import Entry
from resd.context.fitting import PromptBuilder
from resd.context.playbook import Playbook
from resd.context.prompts import COMPACT
from resd.context.reflection import Reflection, Tags, parse_reflection, parse_tags
from resd.context.roles import Ask, Asker
from resd.context.seeding import derive_seed
from resd.context.teacher_prompt import TeacherPrompt, TeacherPromptComposer
from resd.environments.manufactoria import Manufactoria
from resd.generation.engine import GenerationEngine, generate
from resd.lab.corpus import MAX_ENTRIES, MAX_NAMED, SLUG
from resd.lab.pool import in_lab, task_of
from resd.lab.programs import broken_rules, fenced, program
from resd.lab.rules import RULE_OF_TEXT, RULES, Rule
from resd.records import Attempt, Problem, Request, ResdError, Response

MAX_TOKENS = 128  # the longest program of a lab problem has 103
CONTEXT = ContextConfig(style="compact", max_reflection_tokens=256, max_curation_tokens=128)

# (metric, comparison, goal): what makes the lab model a stand-in for a real one.
GOALS = (
    ("unconditioned/success", ">=", 0.003),
    ("unconditioned/success", "<=", 0.02),
    ("trial+feedback/success", "<=", 0.08),
    ("trial+feedback+reflection/success", ">=", 0.25),
    ("playbook/success", ">=", 0.45),
    ("everything/success", ">=", 0.70),
    ("reflector/names_a_broken_rule", ">=", 0.95),
    ("reflector/tags_right", ">=", 0.95),
    ("tagger/tags_right", ">=", 0.95),
    ("curator/exact", ">=", 0.97),
    ("outside_rules", "<=", 0.02),
)
COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Bench:
    """A model, the lab's test problems, and a source of randomness."""

    engine: GenerationEngine
    tokenizer: Any
    samples: int
    seed: int
    environment: Manufactoria

    @property
    def composer(self) -> TeacherPromptComposer:
        return TeacherPromptComposer(CONTEXT, COMPACT, self.tokenizer, thinking=False)

    @property
    def asker(self) -> Asker:
        builder = PromptBuilder(COMPACT, self.tokenizer, False, CONTEXT.max_prompt_tokens)
        return Asker(CONTEXT, builder, self.seed, step=0)

    def attempts(self) -> list[Attempt]:
        """`samples` unconditioned attempts at every problem."""
        problems = [p for p in self.environment.problems("test") if in_lab(p)]
        tries = [(problem, sample) for problem in problems for sample in range(self.samples)]
        prompts = [encode_prompt(self.tokenizer, problem.messages, thinking=False) for problem, _ in tries]
        return self.solve("unconditioned", tries, prompts)

    def solve(
        self, condition: str, tries: Sequence[tuple[Problem, int]], prompts: Sequence[tuple[int, ...]]
    ) -> list[Attempt]:
        """One graded attempt per (problem, sample) and prompt; each condition has its own random draws."""
        requests = [
            Request(f"{i}", prompt, MAX_TOKENS, seed=derive_seed(self.seed, condition, i))
            for i, prompt in enumerate(prompts)
        ]
        replies = generate(self.engine, requests)
        return [
            Attempt(problem, sample, reply_to.prompt_ids, reply, self.environment.grade(problem, reply))
            for (problem, sample), reply_to, reply in zip(tries, requests, replies, strict=True)
        ]

    def ask(self, asks: Sequence[Ask]) -> list[Response]:
        return generate(self.engine, [ask.request for ask in asks])


def evaluate(bench: Bench, failures: Sequence[Attempt] | None = None) -> dict[str, float]:
    """All metrics, by name: success of programs per condition, then the three roles of the context engine.

    `failures` are reflected on and retried: by default the model's own, which are fewer and different for a
    better model. To compare models, pass the same ones. Metrics without data are left out.
    """
    random = Random(bench.seed)
    attempts = bench.attempts()
    if failures is None:
        failures = [attempt for attempt in attempts if not attempt.verdict.solved]
    reflections = [
        parse_reflection(reply.text, ())
        for reply in bench.ask([bench.asker.reflect(attempt, ()) for attempt in failures])
    ]
    groups = {"unconditioned": attempts}
    for name, prompts in _conditions(bench, failures, reflections, random).items():
        groups[name] = bench.solve(name, [(a.problem, a.sample) for a in failures], prompts)
    metrics: dict[str, float] = {}
    for name, group in groups.items():
        metrics[f"{name}/success"] = _mean(attempt.verdict.reward for attempt in group)
        metrics[f"{name}/test_cases"] = _mean(attempt.verdict.pass_rate for attempt in group)
    metrics["outside_rules"] = _mean(_broken(a) is None for group in groups.values() for a in group)
    for kind in ("substring", "ordered", "count"):
        metrics[f"outside_rules/{kind}"] = _mean(
            _broken(a) is None for group in groups.values() for a in group if task_of(a.problem).kind == kind
        )
    metrics["trial_copied"] = _mean(
        again.response.text == attempt.response.text
        for again, attempt in zip(groups["trial+feedback"], failures, strict=True)
    )
    metrics |= _reflector(bench, failures, random)
    metrics |= _tagger(bench, attempts, random)
    metrics |= _curator(bench, failures, random)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _mean(values: Iterable[float]) -> float:
    """NaN for no values."""
    values = list(values)
    return fmean(values) if values else math.nan


def _conditions(
    bench: Bench, failures: Sequence[Attempt], reflections: Sequence[Reflection], random: Random
) -> Mapping[str, list[tuple[int, ...]]]:
    """Teacher prompts per condition: what is shown beside the problem."""
    shown = {
        "trial+feedback": (False, True, False),
        "trial+feedback+reflection": (False, True, True),
        "playbook": (True, False, False),
        "playbook+trial+feedback": (True, True, False),
        "everything": (True, True, True),
    }
    return {
        name: [
            _teacher(bench, attempt, full_playbook(random) if playbook else None, trial, reflected).ids
            for attempt, reflected in zip(
                failures, reflections if reflection else [None] * len(failures), strict=True
            )
        ]
        for name, (playbook, trial, reflection) in shown.items()
    }


def _teacher(
    bench: Bench, attempt: Attempt, playbook: Playbook | None, trial: bool, reflection: Reflection | None
) -> TeacherPrompt:
    prompt = bench.composer.compose(
        attempt.problem,
        entries=playbook.entries if playbook else (),
        trial=attempt.response.text if trial else "",
        feedback=attempt.verdict.feedback if trial else "",
        reflection=reflection,
    )
    assert prompt is not None, "every condition shows something"
    return prompt


def full_playbook(random: Random) -> Playbook:
    """One lesson for every rule, in any order."""
    playbook = Playbook()
    for rule in random.sample(RULES, len(RULES)):
        playbook.add(rule.section, random.choice(rule.lessons))
    return playbook


def _broken(attempt: Attempt) -> frozenset[str] | None:
    return broken_rules(task_of(attempt.problem), attempt.response.text)


def _reflector(bench: Bench, failures: Sequence[Attempt], random: Random) -> dict[str, float]:
    """Rules named and entries tagged, with playbooks of any size and order."""
    known = [(attempt, broken) for attempt in failures if (broken := _broken(attempt))]
    books = [random_entries(random) for _ in known]
    asks = [bench.asker.reflect(attempt, book) for (attempt, _), book in zip(known, books, strict=True)]
    replies = [
        parse_reflection(reply.text, ask.entry_ids) for ask, reply in zip(asks, bench.ask(asks), strict=True)
    ]
    rows = list(zip(known, books, replies, strict=True))
    named = [({_rule(text) for text in reply.lessons}, broken) for (_, broken), _, reply in rows]
    return {
        "reflector/parsed": _mean(reply.parsed for reply in replies),
        "reflector/names_a_broken_rule": _mean(bool(rules) and rules <= broken for rules, broken in named),
        "reflector/rules_named": _mean(len(rules) for rules, _ in named),
        "reflector/tags_right": _tags_right(
            (reply.tags, {e.id: "helpful" if _rule(e.content) in broken else "neutral" for e in book})
            for (_, broken), book, reply in rows
        ),
    }


def _tagger(bench: Bench, attempts: Sequence[Attempt], random: Random) -> dict[str, float]:
    """Tags on successes: a correct program for each problem, whoever wrote it."""
    solved = []
    for attempt in attempts[:: bench.samples]:
        reply = fenced(program(task_of(attempt.problem)))
        response = Response("", reply, (), (), "stop")
        verdict = bench.environment.grade(attempt.problem, response)
        solved.append(Attempt(attempt.problem, 0, (), response, verdict))
    books = [random_entries(random) for _ in solved]
    asks = [bench.asker.tag(attempt, book) for attempt, book in zip(solved, books, strict=True)]
    tags = [parse_tags(reply.text, ask.entry_ids) for ask, reply in zip(asks, bench.ask(asks), strict=True)]
    applicable = [{rule.name for rule in task_of(attempt.problem).rules} for attempt in solved]
    return {
        "tagger/tags_right": _tags_right(
            (tag, {e.id: "helpful" if _rule(e.content) in rules else "neutral" for e in book})
            for tag, rules, book in zip(tags, applicable, books, strict=True)
        )
    }


def _curator(bench: Bench, failures: Sequence[Attempt], random: Random) -> dict[str, float]:
    """Operations exactly as wanted: the lessons of rules that the playbook lacks, verbatim."""
    asks, wanted = [], []
    for attempt in failures:
        book = random_entries(random) if random.random() < 0.8 else ()
        present = {_rule(entry.content) for entry in book}
        named = random.sample(RULES, random.randint(1, MAX_NAMED))
        reflection = _scripted(named, random)
        lessons = zip(named, reflection.lessons, strict=True)
        wanted.append([lesson for rule, lesson in lessons if rule.name not in present])
        asks.append(bench.asker.curate(attempt, reflection, book))
    added = [[a.content for a in parse_curation(reply.text).additions] for reply in bench.ask(asks)]
    pairs = list(zip(added, wanted, strict=True))
    return {
        "curator/exact": _mean(got == want for got, want in pairs),
        "curator/adds_what_is_there": _mean(bool(set(got) - set(want)) for got, want in pairs),
        "curator/misses": _mean(bool(set(want) - set(got)) for got, want in pairs),
    }


def random_entries(random: Random) -> tuple[Entry, ...]:
    """One to `MAX_ENTRIES` right lessons, repetitions included, ids and order shuffled."""
    rules = random.choices(RULES, k=random.randint(1, MAX_ENTRIES))
    numbers = random.sample(range(1, 41), len(rules))
    return tuple(
        Entry(f"{SLUG[rule.section]}-{number:05d}", rule.section, random.choice(rule.lessons))
        for rule, number in zip(rules, numbers, strict=True)
    )


def _scripted(named: Sequence[Rule], random: Random) -> Reflection:
    return Reflection(
        error=" ".join(random.choice(rule.errors) for rule in named),
        fix=" ".join(random.choice(rule.fixes) for rule in named),
        lessons=tuple(random.choice(rule.lessons) for rule in named),
        tags=Tags(),
        raw="",
    )


def _rule(text: str) -> str | None:
    rule = RULE_OF_TEXT.get(text)
    return rule.name if rule else None


def _tags_right(pairs: Iterable[tuple[Tags, Mapping[str, str]]]) -> float:
    """The share of entries tagged as they should be; an entry without a tag is neutral."""
    return _mean(
        tags.by_id.get(id_, "neutral") == tag for tags, wanted in pairs for id_, tag in wanted.items()
    )


def evaluate_command(args: Namespace) -> None:
    """Print the report and write it to `--output`. Raises ResdError if no samples are requested."""
    from resd.generation.decoder import Decoder
    from resd.learner.model import load_model, load_tokenizer, resolve_device

    if args.samples < 1:
        raise ResdError(f"--samples {args.samples}: give at least 1")
    tokenizer = load_tokenizer(args.model)
    engine = Decoder(load_model(args.model, resolve_device(args.device)), tokenizer, max_batch=args.max_batch)
    bench = Bench(engine, tokenizer, args.samples, args.seed, Manufactoria(family="has", prompt="compact"))
    metrics = evaluate(bench)
    print("\n".join(report_lines(metrics)))
    if args.output:
        args.output.write_text(
            json.dumps({"model": args.model, "samples": args.samples, **metrics}, indent=2) + "\n"
        )


def report_lines(metrics: Mapping[str, float]) -> Iterator[str]:
    """One per metric, beside its goals; then the goals of metrics that were not measured."""
    for name, value in metrics.items():
        goals = [(how, goal) for key, how, goal in GOALS if key == name]
        marks = (f"  {how} {goal:g} {_mark(COMPARE[how](value, goal))}" for how, goal in goals)
        yield f"{name:36} {value:7.4f}{''.join(marks)}"
    for name in sorted({key for key, _, _ in GOALS} - metrics.keys()):
        yield f"{name:36} not measured: no program that it is about"


def _mark(met: bool) -> str:
    return "met" if met else "MISSED"
