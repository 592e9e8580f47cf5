"""All families by name, and the sets of problems made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from resd.environments.manufactoria.family import Family, Params
from resd.environments.manufactoria.has import HAS_FAMILIES, has_split

ProblemSet: TypeAlias = Callable[[str], Sequence[tuple[str, Params]]]

FAMILIES: Mapping[str, Family] = {family.name: family for family in HAS_FAMILIES}
SETS: Mapping[str, ProblemSet] = {"has": has_split}
