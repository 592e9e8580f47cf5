"""Every recipe is a configuration that can be had, and its README row is there."""

from pathlib import Path

import pytest

from resd.config import load_config

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
