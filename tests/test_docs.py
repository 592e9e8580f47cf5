"""What the documentation says is so: settings, metrics, paths, and examples that run."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import toy
from conftest import REPOSITORY
from resd import environments
from resd.config import RunConfig, load_config
from resd.environments.importing import imported
from resd.environments.manufactoria import Manufactoria
from resd.training import journal
from resd.training.plan import check_run
from support import save_tiny

PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"),
    *sorted(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md")),
]


def read(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)


def first_cells(page: str) -> list[tuple[str, ...]]:
    """The leading cells in backticks of each table row, without the backticks."""
    rows = re.findall(r"^\| `([^`]+)` \|(?: `([^`]+)` \|)?", read(page), re.MULTILINE)
    return [tuple(cell for cell in row if cell) for row in rows]


def settings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and default of every value, as YAML has it."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def parse(cell: str) -> Any:
    """As an override is read: YAML, and floats such as 1e-6."""
    value = yaml.safe_load(cell)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def test_every_setting_is_there_with_its_default() -> None:
    defaults = dict(settings(RunConfig()))
    rows = [row for row in first_cells("docs/settings.md") if "." in row[0] or row[0] in defaults]
    # Manufactoria has an option called seed as well.
    documented = {key: parse(default) for key, default in reversed(rows)}
    assert documented == defaults


def test_every_option_of_manufactoria_is_there_with_its_default() -> None:
    text = read("docs/settings.md").partition("Options of `manufactoria`:")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    fields = Manufactoria.__dataclass_fields__
    options = {name: field.default for name, field in fields.items() if field.init}
    assert {name: parse(cell) for name, cell in rows.items()} == options


SECTIONS = {
    "bouncingsim": "## BouncingSim",
    "finer": "Options of `finer`:",
    "formula": "Options of `formula`:",
    "code": "## Code",
    "multiple_choice": "## Multiple choice",
    "math": "## Math",
    "tool_use": "## Tool use",
    "ifeval": "## IFEval",
    "trl": "## Reward functions of TRL",
    "verl": "## Reward functions of verl",
    "verifiers": "## Environments of verifiers",
}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_option_of_an_environment_is_there_with_its_default(name: str) -> None:
    text = read("docs/environments.md").partition(f"\n{SECTIONS[name]}")[2]
    table = re.search(r"^\| option \|.*?\n\n", text, re.DOTALL | re.MULTILINE)
    assert table is not None
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`)? ?\|", table[0], re.MULTILINE))
    module, attribute = environments.KNOWN[name].split(":")
    parameters = inspect.signature(imported(module, attribute)).parameters
    defaults = {key: None if p.default is p.empty else p.default for key, p in parameters.items()}
    assert {key: parse(cell) if cell else None for key, cell in rows.items()} == defaults


@pytest.mark.parametrize(
    "recipe", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_is_understood_and_explained(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"\n## {recipe.name}\n" in read("examples/README.md")
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.setenv("RESD_DATA", str(tmp_path))
    config = load_config(recipe)
    environments.load(config.environment.name, **config.environment.options)


def test_one_function_is_an_environment() -> None:
    names: dict[str, Any] = {}
    exec(blocks("docs/environments.md", "python")[0], names)
    environment = names["environment"]
    (problem, *others) = environment.problems("test")
    assert len(others) == 9
    assert environment.grade(problem, "97").solved
    assert environment.grade(problem, "8").feedback == "'8' is not the sum."


def run_toy(folder: Path, algorithm: str) -> set[str]:
    """Names of the metrics of a run, with placeholders for what depends on the run."""
    config = toy.toy_config(
        save_tiny(folder / "model"), folder / algorithm, algorithm=algorithm, stream={"batch_size": 2}
    )
    toy.build_toy(config).train()
    rows = [
        row for name in (journal.METRICS, journal.TIMING) for row in journal.read(folder / algorithm / name)
    ]
    names = {name for row in rows for name in row if "/" in name}
    return {re.sub(r"@\d+", "@k", name).replace("val/letters/", "val/<environment>/") for name in names}


def test_every_metric_is_explained_and_every_explained_one_exists(tmp_path: Path) -> None:
    algorithms = "resd", "sdpo", "srpo", "rlsd", "grpo"
    emitted = set().union(*(run_toy(tmp_path, algorithm) for algorithm in algorithms))
    documented = [row[0] for row in first_cells("docs/metrics.md")]
    assert len(documented) == len(set(documented))
    assert set(documented) == emitted


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = read(page)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    paths = re.findall(r"\b((?:src|docs|examples|tests|benchmarks)/[\w./-]*[\w/])", text)
    folder = (REPOSITORY / page).parent
    missing = [link for link in links if not (folder / link).exists()]
    missing += [path for path in paths if not (REPOSITORY / path).exists() and not (folder / path).exists()]
    assert not missing


def test_the_layout_of_the_readme() -> None:
    layout = next(block for block in blocks("README.md", "text") if block.startswith("src/resd/"))
    named = set(re.findall(r"\b\w+(?:\.py|/)", layout.replace("src/resd/", "")))
    package = REPOSITORY / "src/resd"
    folders = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= named
    assert all((package / name).exists() or (REPOSITORY / name).exists() for name in named)


def test_the_first_example_prints_what_the_readme_says() -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("README.md", "python")[0]], capture_output=True, text=True, check=True
    )
    assert done.stdout == blocks("README.md", "text")[0]


def test_the_environment_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.py").write_text(blocks("README.md", "python")[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "run.yaml").write_text(blocks("README.md", "yaml")[0])
    environment, plan = check_run(load_config(tmp_path / "run.yaml"))
    assert (plan.problems, plan.updates, plan.evaluation_samples) == (100, 4, 20)
    problem = environments.load("sums:Sums").problems("test")[0]
    assert environment.grade(problem, "<think>Hm.</think> 207").solved
    wrong = environment.grade(problem, "8")
    assert (wrong.solved, wrong.feedback) == (False, "'8' is not the sum.")


def test_the_models_command_of_the_readme() -> None:
    command = next(block for block in blocks("README.md", "sh") if "model=Qwen" in block)
    words = command.replace("\\\n", " ").split()
    assert words[:3] == ["resd", "train", "examples/lab.yaml"]
    _, plan = check_run(load_config(REPOSITORY / words[2], words[3:]))
    assert plan.updates == 20
