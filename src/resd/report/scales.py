"""From numbers to positions in a chart: scales, ticks and their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Below this share of its size, a range is as good as a point.
_NARROW = 1e-9
# What is smaller is 0.
_TINY = 1e-100


@dataclass(frozen=True, slots=True)
class Scale:
    """The linear map from [low, high] to [start, end]; `start` may exceed `end`, as y does on a screen."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def widen(low: float, high: float) -> tuple[float, float]:
    """The range itself, or one around it when it is too narrow to draw."""
    size = max(abs(low), abs(high))
    if high - low > max(_NARROW * size, _TINY):
        return low, high
    pad = size / 2 if size > _TINY else 0.5
    return low - pad, high + pad


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> tuple[float, ...]:
    """About `count` evenly spaced round numbers, the first at or below `low`, the last at or above `high`.

    Their distance is 1, 2, 2.5 or 5 times a power of ten, and with `whole` an integer.
    """
    low, high = widen(low, high)
    step = _round_step((high - low) / max(count - 1, 1), whole=whole)
    first, last = math.floor(low / step + _NARROW), math.ceil(high / step - _NARROW)
    return tuple(step * i for i in range(first, max(last, first + 1) + 1))


def label(value: float, step: float) -> str:
    """A tick's text, with as many decimals as ticks that are `step` apart need."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or step < 1e-4:
        return f"{value:.2g}"
    if abs(value) >= 10_000 and step >= 100:
        return f"{value / 1000:g}k"
    decimals = max(0, -math.floor(math.log10(step) + _NARROW))
    exact = math.isclose(step, round(step, decimals), rel_tol=1e-6)
    return f"{value:.{decimals if exact else decimals + 1}f}"


def _round_step(rough: float, *, whole: bool) -> float:
    """The smallest round number that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    factors = (1.0, 2.0, 5.0, 10.0) if whole else (1.0, 2.0, 2.5, 5.0, 10.0)
    step = next((f * power for f in factors if f * power >= rough * (1 - _NARROW)), 10.0 * power)
    return max(step, 1.0) if whole else step
