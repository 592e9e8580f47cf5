"""The order and batch size in which reflections go to the curator.

Curating all of a step's reflections against one snapshot writes the same lesson many times. So they go in
small waves, each of which sees what earlier waves added; one at a time while the playbook is small.
"""

from __future__ import annotations

from collections.abc import Iterable

from resd.config import ContextConfig
from resd.context.playbook import Playbook
from resd.context.reflection import Reflection, render_reflection
from resd.context.seeding import derive_seed
from resd.records import Attempt

Reflected = tuple[Attempt, Reflection]


class CurationQueue:
    """The reflections waiting for the curator of one playbook.

    `skipped` counts those with nothing to add: no text, or only lessons already in the playbook verbatim.
    """

    def __init__(
        self, playbook: Playbook, waiting: Iterable[Reflected], config: ContextConfig, seed: int, step: int
    ) -> None:
        def rank(item: Reflected) -> int:
            return derive_seed(seed, step, item[0].key, "curation order")

        self.playbook = playbook
        self.skipped = 0
        self._config = config
        self._waiting = sorted(waiting, key=rank)
        self._left = len(self._waiting) if config.max_curations is None else config.max_curations

    def next_wave(self) -> list[Reflected]:
        """The next reflections, largest share of new lessons first; [] at the end."""
        useful = [item for item in self._waiting if self._adds_something(item[1])]
        self.skipped += len(self._waiting) - len(useful)
        useful.sort(key=lambda item: self._known_share(item[1]))
        size = min(self._wave_size(), self._left)
        wave, self._waiting = useful[:size], useful[size:]
        self._left -= len(wave)
        return wave

    def _wave_size(self) -> int:
        small = len(self.playbook) < self._config.sequential_below
        return 1 if small else self._config.curation_wave

    def _adds_something(self, reflection: Reflection) -> bool:
        if reflection.parsed:
            return self._known_share(reflection) < 1.0
        return bool(render_reflection(reflection))

    def _known_share(self, reflection: Reflection) -> float:
        """The share of lessons already in the playbook; 1 without lessons, so that prose goes last."""
        lessons = reflection.lessons
        known = sum(self.playbook.find(lesson) is not None for lesson in lessons)
        return known / len(lessons) if lessons else 1.0
