"""Groups of runs that differ in their seed, and their averages."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resd.report.comparison import before_after, chosen_metrics
from resd.report.curves import evaluation
from resd.report.runs import load_runs
from resd.report.seeds import average, curve, differing, group_runs

MakeRun = Callable[..., Path]


def change(folder: Path, **settings: object) -> Path:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | settings))
    return folder


def test_groups_are_of_one_configuration(make_run: MakeRun) -> None:
    folders = [make_run(f"a{i}", seed=i) for i in range(2)]
    folders += [make_run("b", algorithm="sdpo"), make_run("a2", seed=2)]
    change(folders[0], output="elsewhere", device="cuda", checkpoint={"every_updates": 7})
    resd, sdpo = group_runs(load_runs(folders))
    assert [run.name for run in resd.runs] == ["a0", "a1", "a2"]
    assert (resd.name, resd.seeds) == ("RESD", "3 seeds")
    assert (sdpo.name, sdpo.seeds) == ("SDPO", "3")
    assert differing([resd, sdpo]) == ["algorithm"]


def test_what_changes_the_numbers_makes_another_group(make_run: MakeRun) -> None:
    folders = [make_run("a"), make_run("b"), change(make_run("c"), rollout={"n": 8})]
    change(folders[1], stream={"batch_size": 2, "max_updates": 9})  # schedules end later
    assert [group.name for group in group_runs(load_runs(folders))] == ["a", "b", "c"]
    folders.append(change(make_run("d", seed=9), rollout={"n": 8}))
    last = group_runs(load_runs(folders))[-1]
    assert (last.name, last.seeds) == ("n 8, max_updates 8", "2 seeds")


def test_a_setting_that_came_later_had_its_default(make_run: MakeRun) -> None:
    old, new = make_run("old"), change(make_run("new", seed=4), teacher={"update_rate": 1e-4})
    assert len(group_runs(load_runs([old, new]))) == 1
    change(new, teacher={"update_rate": 1e-3})
    assert len(group_runs(load_runs([old, new]))) == 2


def test_a_seed_that_was_run_twice_is_no_second_seed(make_run: MakeRun) -> None:
    (group,) = group_runs(load_runs([make_run("x-1"), make_run("x-2")]))
    assert group.seeds == "2 runs"


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9))
def test_averages(values: list[float]) -> None:
    found = average(values)
    assert (found.mean, found.n) == (pytest.approx(statistics.fmean(values)), len(values))
    if len(values) == 1:
        assert found.error is None
    else:
        n = len(values)
        squares = sum((value - found.mean) ** 2 for value in values)
        assert found.error == pytest.approx((squares / (n - 1) / n) ** 0.5, abs=1e-9)
    with pytest.raises(ValueError, match="nothing"):
        average([])


def test_a_curve_averages_the_runs_that_have_come_so_far(make_run: MakeRun) -> None:
    folders = [make_run("a", seed=0), make_run("b", seed=1, gain=0.2, steps=2, evaluated=(0, 2))]
    (group,) = group_runs(load_runs(folders))
    reward = evaluation("val/toy/reward/mean@2")
    # The second seed reaches the same steps at twice the cost.
    cost = {"a": 1.0, "b": 2.0}
    steps = curve(group, reward, lambda run: {step: step * cost[run.name] for step in range(5)})
    assert [step.x for step in steps] == [0.0, 3.0, 4.0]
    assert [step.y.mean for step in steps] == pytest.approx([0.1, 0.6, 0.3])
    assert [step.y.n for step in steps] == [2, 2, 1]
    metric = chosen_metrics(group.runs)[0]
    before, after = before_after(group.runs, metric)  # at the last step that both have
    assert before is not None
    assert after is not None
    assert (before.mean, after.mean) == pytest.approx((0.1, 0.6))
