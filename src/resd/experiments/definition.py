"""What an experiment is: a question, and variants of one run that answer it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from resd.experiments.faults import Faults
from resd.records import ResdError
from resd.solve.effort import Effort

NO_FAULTS = Faults()
# What a run is measured by beside its journals.
Measure = Literal["", "skills", "counts", "discovery"]


@dataclass(frozen=True)
class Variant:
    """One way to run, as `key=value` settings on top of the experiment's, and the reason for it.

    `label` is its name in tables; variants of one `group` share a table and a figure. With `seed` it is run
    once, with that seed; `after` names a variant whose result it needs.
    """

    name: str
    overrides: tuple[str, ...]
    why: str
    label: str = ""
    group: str = ""
    faults: Faults = NO_FAULTS
    measure: Measure = ""
    effort: Effort | None = None
    seed: int | None = None
    after: str = ""

    @property
    def title(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class Experiment:
    """Variants, compared with `reference`, or with the first of their group where that is "".

    `costs` and `lives` ask for tables of what success costs and of wrong lessons. `curves` is for groups that
    differ enough for curves to be told apart. What results say in words is beside them, in the documentation.
    """

    name: str
    title: str
    question: str
    variants: tuple[Variant, ...]
    reference: str = ""
    common: tuple[str, ...] = ()
    notes: str = ""
    costs: bool = False
    lives: bool = False
    curves: bool = True

    def variant(self, name: str) -> Variant:
        """The variant. Raises ResdError, listing the known names, if there is none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = ", ".join(variant.name for variant in self.variants)
        raise ResdError(f"experiment {self.name}: has no variant {name}; choose from {known}")

    def chosen(self, names: Sequence[str]) -> tuple[Variant, ...]:
        """The named variants and those they need, in the experiment's order; all if none is named."""
        wanted = {name for named in names for name in self._with_needs(named)}
        return tuple(v for v in self.variants if not names or v.name in wanted)

    def _with_needs(self, name: str) -> Iterator[str]:
        variant = self.variant(name)
        yield variant.name
        if variant.after:
            yield from self._with_needs(variant.after)
