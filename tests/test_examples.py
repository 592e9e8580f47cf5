"""Every recipe is a configuration that can be had, and its README row is there."""

import sys
from pathlib import Path

import pytest

from resd import environments
from resd.config import load_config
from resd.environments.manufactoria import extract_program, parse_program
from resd.training.plan import check_run

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("algorithm", ["resd", "sdpo", "grpo", "srpo", "rlsd"])
def test_a_recipe_can_be_had_with_each_algorithm(recipe: Path, algorithm: str) -> None:
    config = load_config(recipe, [f"algorithm={algorithm}", "rollout.n=8"])
    assert config.algorithm == algorithm
    assert config.output.startswith("runs/")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_explained(recipe: Path) -> None:
    assert f"## {recipe.name}" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_the_task_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = load_config(EXAMPLES / "own-task.yaml")
    environment, plan = check_run(config)
    assert (plan.problems, plan.updates) == (606, 8)
    problem = environment.problems("test")[0]
    gold = environments.load("manufactoria").solution(problem)  # type: ignore[attr-defined]
    assert environment.grade(problem, gold).solved
    endless = gold.replace("END end", "")
    assert environment.grade(problem, endless).feedback == "Parse error: no END node"
    assert environment.grade(problem, "I cannot.").feedback == "No program found."
    nodes = len(parse_program(extract_program(gold) or "").nodes)
    strict = environments.load(config.environment.name, most_nodes=nodes - 1)
    assert strict.grade(problem, gold).feedback == f"{nodes} nodes; {nodes - 1} are enough."
