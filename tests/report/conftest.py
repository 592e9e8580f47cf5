"""A made-up run folder, every number of which the tests know."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

HOSTILE = "<script>alert('x')</script>\"&{{ 7 * 7 }}</pre>"
Row = dict[str, Any]


def evaluation(step: int, reward: float) -> Row:
    return {
        "kind": "evaluation",
        "step": step,
        "val/toy/reward/mean@2": reward,
        "val/toy/reward/best@2": reward + 0.125,
        "val/toy/reward/best@2_bootstrap": 0.987,
        "val/toy/test_cases/mean@2": reward / 2 + 0.25,
        "val/toy/response_length/mean": 61.5,
    }


def update(step: int, **more: Any) -> Row:
    """Two updates per batch."""
    return {
        "kind": "update",
        "step": step,
        "batch": (step - 1) // 2,
        "round": (step - 1) % 2,
        "train/solved/mean": step / 10,
        "train/test_cases/mean": step / 8,
        "response_length/mean": 60.0,
        "response_length/max": 70.0,
        "response_length/clip_ratio": 0.0,
        "actor/loss": 1 / step,
        "actor/entropy": 0.5,
        "actor/grad_norm": 2.0,
        "actor/skipped": 0.0,
        **more,
    }


def context_metrics(step: int) -> Row:
    return {
        "self_distillation/teacher_entropy": 0.25,
        "self_distillation/teacher_equals_student": 0.0,
        "playbook/total_bullets": float(step),
        "playbook/added": 1.0,
        "playbook/removed": 0.0,
        "playbook/merged": 0.0,
        "context/reflections": 5.0,
        "context/reflections_rejected": float(step == 2),
        "context/tags_unknown": 0.0,
    }


def timing(step: int) -> Row:
    parts = {"generate": 1.0, "grade": 0.5, "context": 2.0, "update": 1.5, "step": 6.0}
    return {"kind": "update", "step": step, **{f"timing_s/{name}": s for name, s in parts.items()}}


def attempt(problem: str, sample: int, passed: int, text: str = "a program") -> Row:
    return {
        "kind": "attempt",
        "key": f"{problem}#{sample}",
        "problem": problem,
        "sample": sample,
        "question": f"Question of {problem} {HOSTILE}",
        "response": text,
        "tokens": 17,
        "finish_reason": "stop",
        "reward": float(passed == 4),
        "passed": passed,
        "total": 4,
        "feedback": "" if passed == 4 else f"{4 - passed} of 4 fail {HOSTILE}",
        "teacher_prompt": None if passed == 4 else f"What the teacher saw {HOSTILE}",
        "teacher_sections": [] if passed == 4 else ["playbook", "problem"],
        "weight": 1.0,
        "advantage": 0.0,
    }


def said(role: str, key: str, reply: Any) -> Row:
    output = reply if isinstance(reply, str) else json.dumps(reply)
    row = {"kind": "context", "step": 1, "role": role, "key": key, "prompt": "", "output": output, "cut": []}
    return {**row, "tokens": 5}


def samples(solved: dict[str, int], k: int = 4) -> list[Row]:
    """An evaluation: of each problem so many of k samples are solved."""
    return [
        {"problem": problem, "sample": i, "reward": float(i < n), "passed": 3 * (i < n), "total": 3}
        for problem, n in solved.items()
        for i in range(k)
    ]


def rollouts(step: int) -> list[Row]:
    """Problem p fails throughout, q is solved by its second round."""
    reflection = {"error": f"Bad end {HOSTILE}", "fix": "Mend it", "lessons": ["Look twice"], "tags": []}
    addition = {"type": "ADD", "section": "others", "content": "Curated lesson"}
    rows = [attempt("p", 0, 1), attempt("q", 0, 4 if step % 2 == 0 else 2, f"<think>hm</think>try {HOSTILE}")]
    rows.append(said("reflect", "p#0", "no JSON at all"))
    if step % 2:
        rows += [said("reflect", "q#0", reflection), said("curate", "q#0", {"operations": [addition]})]
    return rows


def playbook(steps: int) -> list[Row]:
    """One entry per update; the first is then tagged in every update."""
    rows: list[Row] = []
    for step in range(steps):
        if step:
            rows += [
                {"op": "tag", "id": "misc-00001", "tag": tag} for tag in ("helpful", "helpful", "harmful")
            ]
        text = f"Lesson {step} {HOSTILE}"
        rows += [{"op": "add", "id": f"misc-{step + 1:05d}", "section": "others", "content": text}]
        rows += [{"op": "advance"}]
    return rows


def write_lines(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A folder as a run of so many updates leaves it, evaluated at these steps."""

    def make(
        name: str = "run",
        steps: int = 4,
        evaluated: tuple[int, ...] = (0, 2, 4),
        algorithm: str = "resd",
        seed: int = 3,
        gain: float = 0.0,
    ) -> Path:
        folder = tmp_path / name
        resd = algorithm == "resd"
        rewards = {0: 0.1, 2: 0.5 + gain, 4: 0.3 + gain}
        rows = [evaluation(step, rewards[step]) for step in evaluated if step == 0]
        for step in range(1, steps + 1):
            rows.append(update(step, **(context_metrics(step) if resd else {})))
            rows += [evaluation(step, rewards[step]) for _ in range(step in evaluated)]
            write_lines(folder / f"rollouts/{step}.jsonl", rollouts(step))
        write_lines(folder / "metrics.jsonl", rows)
        for step in evaluated:
            write_lines(folder / f"evaluations/{step}.jsonl", samples({"a": step, "b": 1, "c": 2, "d": 0}))
        write_lines(folder / "timing.jsonl", [timing(step) for step in range(1, steps + 1)])
        if resd:
            write_lines(folder / "playbook.jsonl", playbook(steps))
        settings = {
            "algorithm": algorithm,
            "model": "lab",
            "seed": seed,
            "environment": {"name": "toy", "options": {"family": HOSTILE}},
            "rollout": {"n": 1},
            "stream": {"batch_size": 2, "max_updates": 8},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        return folder

    return make
