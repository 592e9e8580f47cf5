"""The behaviour report on engines whose behaviour is known because it is scripted."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from lab.transcripts import entries, reflection, sections
from resd.context.entries import Entry
from resd.environments.manufactoria import Manufactoria
from resd.lab import evaluate as report
from resd.lab import weights_path
from resd.lab.corpus import Document
from resd.lab.evaluate import GOALS, Bench, evaluate, evaluate_command, report_lines
from resd.lab.pool import in_lab, task_of
from resd.lab.programs import Task, broken_rules, fenced, program
from resd.lab.rules import BY_NAME, RULE_OF_TEXT
from resd.lab.tokenizer import ASSISTANT, END, USER, build_tokenizer
from resd.records import Problem, Request, ResdError, Response

TOKENIZER = build_tokenizer()
BAD_HABITS = frozenset({"accept", "empty"})
Parts = dict[str, str]
Program = Callable[[Task, Parts], str]
Tag = Callable[[Entry, bool], str]


class Few(Manufactoria):
    """One test problem of each kind."""

    def problems(self, split: str) -> list[Problem]:
        inside = [problem for problem in super().problems(split) if in_lab(problem)]
        return list({task_of(problem).kind: problem for problem in inside}.values())


ENVIRONMENT = Few(family="has", prompt="compact")
TASKS = {problem.question: task_of(problem) for problem in ENVIRONMENT.problems("test")}


class Scripted:
    """Reads the prompt of each request and replies by its script, in reverse order as engines may.

    `program` writes programs; `tag` judges an entry, given whether it matters; `named` are the rules that its
    reflections name, "" for all that are broken; `curates` says whether it adds what is missing.
    """

    def __init__(
        self, program: Program, *, tag: Tag | None = None, named: str = "", curates: bool = True
    ) -> None:
        self.program, self.named, self.curates = program, named, curates
        self.tag: Tag = tag or (lambda entry, matters: "helpful" if matters else "neutral")
        self.mattered: list[bool] = []
        self.requests: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> Iterator[Response]:
        self.requests += requests
        for request in reversed(requests):
            text = TOKENIZER.decode(request.prompt_ids).strip()
            prompt = text.removeprefix(USER).removesuffix(ASSISTANT).strip().removesuffix(END).strip()
            yield Response(request.id, self._reply(request, prompt), (1,), (0.0,), "stop")

    def _reply(self, request: Request, prompt: str) -> str:
        parts = sections(prompt)
        keys = set(request.schema["properties"]) if request.schema else set()
        document = Document("", prompt, "")
        if "operations" in keys:
            return json.dumps({"operations": self._additions(document) if self.curates else []})
        task = TASKS[parts["problem"] or prompt]
        if not keys:
            return self.program(task, parts)
        broken = broken_rules(task, parts["trial"]) or frozenset()
        mattering = broken if "lessons" in keys else {rule.name for rule in task.rules}
        tags = [{"id": e.id, "tag": self._judged(e, mattering)} for e in entries(document)]
        if "lessons" not in keys:
            return json.dumps({"tags": tags})
        names = [self.named] if self.named else sorted(broken)[:2]
        error, fix = (" ".join(getattr(BY_NAME[n], key)[0] for n in names) for key in ("errors", "fixes"))
        lessons = [BY_NAME[name].lessons[1] for name in names]
        return json.dumps({"error": error, "fix": fix, "lessons": lessons, "tags": tags})

    def _judged(self, entry: Entry, mattering: Iterable[str]) -> str:
        self.mattered.append(RULE_OF_TEXT[entry.content].name in mattering)
        return self.tag(entry, self.mattered[-1])

    def _additions(self, document: Document) -> list[dict[str, str]]:
        shown = reflection(document)
        assert shown is not None
        present = {RULE_OF_TEXT[entry.content] for entry in entries(document)}
        missing = [text for text in shown.lessons if RULE_OF_TEXT[text] not in present]
        return [{"type": "ADD", "section": RULE_OF_TEXT[t].section, "content": t} for t in missing]

    def cancel(self, ids: Iterable[str]) -> None:
        raise AssertionError

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]]) -> None:
        raise AssertionError


def measured(engine: Scripted, samples: int = 4) -> dict[str, float]:
    return evaluate(Bench(engine, TOKENIZER, samples, seed=0, environment=ENVIRONMENT))


def attentive(task: Task, parts: Parts) -> str:
    """Breaks two rules unless what is shown speaks of them."""
    words = parts["playbook"] + parts["reflection"]
    told = {rule.name for text, rule in RULE_OF_TEXT.items() if text in words}
    return fenced(program(task, BAD_HABITS - told))


def test_failures_may_be_those_of_another_model() -> None:
    """One that never fails is still asked to reflect, curate and try again."""
    flawless = Scripted(lambda task, parts: fenced(program(task)))
    bench = Bench(flawless, TOKENIZER, 1, seed=0, environment=ENVIRONMENT)
    others = [a for a in replace(bench, engine=Scripted(attentive)).attempts() if not a.verdict.solved]
    metrics = evaluate(bench, others)
    assert metrics["unconditioned/success"] == metrics["everything/success"] == 1.0
    assert metrics["trial_copied"] == 0.0
    assert metrics.keys() == measured(Scripted(attentive), samples=1).keys()
    assert not {"everything/success", "reflector/parsed"} & evaluate(bench).keys()


def test_success_is_that_of_the_programs_in_each_condition() -> None:
    metrics = measured(Scripted(attentive))
    success = {name: value for name, value in metrics.items() if name.endswith("/success")}
    assert success == {
        "unconditioned/success": 0.0,
        "trial+feedback/success": 0.0,
        "trial+feedback+reflection/success": 1.0,
        "playbook/success": 1.0,
        "playbook+trial+feedback/success": 1.0,
        "everything/success": 1.0,
    }
    verdicts = [
        ENVIRONMENT.grade(problem, fenced(program(task_of(problem), BAD_HABITS)))
        for problem in ENVIRONMENT.problems("test")
    ]
    passed = fmean(verdict.passed / verdict.total for verdict in verdicts)
    assert metrics["unconditioned/test_cases"] == pytest.approx(passed)
    assert 0 < passed < 1
    assert metrics["everything/test_cases"] == 1.0
    assert metrics["trial_copied"] == 1.0
    assert [metrics[f"outside_rules{kind}"] for kind in ("", "/substring", "/ordered", "/count")] == [0.0] * 4


def test_roles_that_are_always_right() -> None:
    metrics = measured(Scripted(attentive))
    assert {
        name: metrics[name] for name in metrics if name.startswith(("reflector", "tagger", "curator"))
    } == {
        "reflector/parsed": 1.0,
        "reflector/names_a_broken_rule": 1.0,
        "reflector/rules_named": 2.0,
        "reflector/tags_right": 1.0,
        "tagger/tags_right": 1.0,
        "curator/exact": 1.0,
        "curator/adds_what_is_there": 0.0,
        "curator/misses": 0.0,
    }
    assert {name for name, _, _ in GOALS} <= metrics.keys()


def test_roles_that_are_always_wrong() -> None:
    metrics = measured(
        Scripted(attentive, tag=lambda entry, matters: "harmful", named="start", curates=False)
    )
    assert metrics["reflector/names_a_broken_rule"] == 0.0
    assert metrics["reflector/rules_named"] == 1.0
    assert metrics["reflector/tags_right"] == metrics["tagger/tags_right"] == 0.0
    assert metrics["trial+feedback+reflection/success"] == 0.0  # the wrong lesson is of no use
    # Where the playbook has all, to add nothing is right.
    assert 0 < metrics["curator/misses"] < 1
    assert metrics["curator/exact"] == pytest.approx(1 - metrics["curator/misses"])
    assert metrics["curator/adds_what_is_there"] == 0.0


def test_tags_that_are_always_neutral_are_right_where_an_entry_does_not_matter() -> None:
    """All entries weigh the same, those of the tagger and of the reflector each."""
    engine = Scripted(attentive, tag=lambda entry, matters: "neutral")
    metrics = measured(engine)
    sizes = [
        len(entries(Document("", TOKENIZER.decode(request.prompt_ids), "")))
        for request in engine.requests
        if request.schema and "lessons" in request.schema["properties"]
    ]
    assert sum(sizes) < len(engine.mattered)
    reflected = engine.mattered[: sum(sizes)]  # the reflector is asked before the tagger
    tagged = engine.mattered[sum(sizes) :]
    assert metrics["reflector/tags_right"] == pytest.approx(1 - fmean(reflected))
    assert metrics["tagger/tags_right"] == pytest.approx(1 - fmean(tagged))


def test_only_failures_are_tried_again() -> None:
    """An engine that solves substring problems alone."""

    def partial(task: Task, parts: Parts) -> str:
        return fenced(program(task, () if task.kind == "substring" else BAD_HABITS))

    engine = Scripted(partial)
    metrics = measured(engine, samples=2)
    assert metrics["unconditioned/success"] == pytest.approx(1 / 3)
    assert metrics["playbook/success"] == metrics["everything/success"] == 0.0
    programs = [request for request in engine.requests if request.schema is None]
    assert len(programs) == 3 * 2 + 5 * 2 * 2  # every problem once a sample; five conditions for two of three


def test_programs_outside_the_rules_are_counted_and_not_reflected_on() -> None:
    def fragment(task: Task, parts: Parts) -> str:
        return "START start:"

    def fragments_of_counts(task: Task, parts: Parts) -> str:
        return fragment(task, parts) if task.kind == "count" else fenced(program(task, BAD_HABITS))

    some, none = measured(Scripted(fragments_of_counts)), measured(Scripted(fragment))
    assert [some[f"outside_rules/{kind}"] for kind in ("substring", "ordered", "count")] == [0.0, 0.0, 1.0]
    assert some["outside_rules"] == pytest.approx(1 / 3)
    assert some["reflector/rules_named"] == 2.0
    assert none["outside_rules"] == 1.0
    assert not any(name.startswith("reflector/") for name in none)
    assert none["tagger/tags_right"] == 1.0


def test_what_was_not_measured_is_left_out_and_said() -> None:
    """An engine that never fails has no second tries, no reflections, and nothing to curate."""
    metrics = measured(Scripted(lambda task, parts: fenced(program(task))))
    assert metrics == {
        "unconditioned/success": 1.0,
        "unconditioned/test_cases": 1.0,
        "outside_rules": 0.0,
        "outside_rules/substring": 0.0,
        "outside_rules/ordered": 0.0,
        "outside_rules/count": 0.0,
        "tagger/tags_right": 1.0,
    }
    lines = {line.split()[0]: line for line in report_lines(metrics)}
    assert lines.keys() == metrics.keys() | {name for name, _, _ in GOALS}
    assert "<= 0.02 MISSED" in lines["unconditioned/success"]
    assert ">= 0.003 met" in lines["unconditioned/success"]
    assert "not measured" in lines["curator/exact"]


def options(output: Path, samples: int = 1) -> Namespace:
    return Namespace(
        model=str(weights_path()), device="cpu", max_batch=32, samples=samples, seed=0, output=output
    )


def test_command_prints_and_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped weights, on three problems."""
    monkeypatch.setattr(report, "Manufactoria", Few)
    evaluate_command(options(tmp_path / "report.json"))
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["model"], written["samples"]) == (str(weights_path()), 1)
    assert written["tagger/tags_right"] >= 0.9
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= {name for name, _, _ in GOALS}


def test_no_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="--samples 0"):
        evaluate_command(options(tmp_path / "report.json", samples=0))
