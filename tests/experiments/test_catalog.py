"""Every variant is a configuration that can be, differs from the others, and says why it is there."""

import pytest

from conftest import REPOSITORY
from resd.config import load_config
from resd.experiments.catalog import EXPERIMENTS, find
from resd.experiments.definition import Experiment
from resd.records import ResdError
from resd.report.chart import COLORS
from resd.solve.effort import check_effort

VARIANTS = [(experiment, variant) for experiment in EXPERIMENTS for variant in experiment.variants]
LAB = REPOSITORY / "examples/lab.yaml"


@pytest.mark.parametrize(("experiment", "variant"), VARIANTS, ids=lambda value: value.name)
def test_a_variant_can_be_run(experiment: Experiment, variant) -> None:  # type: ignore[no-untyped-def]
    config = load_config(LAB, [*experiment.common, *variant.overrides])
    assert variant.why
    if variant.effort:
        check_effort(config, variant.effort)
    if variant.after:
        assert experiment.variant(variant.after).seed is not None


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_variants_differ_in_what_is_run_and_in_how_they_are_called(experiment: Experiment) -> None:
    runs, titles = set(), set()
    for variant in experiment.variants:
        config = load_config(LAB, [*experiment.common, *variant.overrides])
        runs.add((config.model_dump_json(), variant.faults, variant.effort))
        titles.add((variant.group, variant.title))
    assert len(runs) == len(titles) == len(experiment.variants)
    drawn = [
        variant.group for variant in experiment.variants if "stream.max_updates=0" not in variant.overrides
    ]
    assert all(drawn.count(group) <= COLORS for group in drawn)
    if experiment.reference:
        assert experiment.variant(experiment.reference)


def test_what_is_chosen_brings_what_it_needs() -> None:
    experiment = find("test_time")
    assert [variant.name for variant in experiment.chosen(["sdpo"])] == ["count", "sdpo"]
    assert experiment.chosen([]) == experiment.variants


def test_names_that_are_not_known() -> None:
    with pytest.raises(ResdError, match="choose from algorithms, ablations"):
        find("nothing")
    with pytest.raises(ResdError, match="has no variant x; choose from base, sdpo"):
        find("algorithms").chosen(["resd", "x"])
