"""Feedback on a failed program. The verdict comes first: readers and budgets cut from the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resd.environments.answers import clip
from resd.environments.bouncingsim.judging import Prediction
from resd.environments.bouncingsim.programs import ENTRY
from resd.environments.sandbox import Limits, Result

MAX_CHARACTERS = 2000
SHOWN = 3
# Metres: a ball this far off, beside one that is so near, has gone wrong on its own.
_FAR, _NEAR = 100.0, 10.0
_TRACEBACK = 600
_STOPPED = {
    "wall_limit": "The program was stopped: it waited, or worked in the background, for too long.",
    "memory_limit": "The program was stopped: it used more memory than the {memory} MB allowed.",
    "output_limit": "The program was stopped: it printed or returned too much.",
    "killed": "The program ended before it had answered: it must neither exit nor crash.",
    "bad_payload": "What the program returned could not be read.",
}


def describe(
    predictions: Sequence[Prediction], result: Result, tolerance: float, limits: Limits, reveal: bool
) -> str:
    """Why some of the predictions failed, in at most `MAX_CHARACTERS` characters.

    `reveal` shows predicted and true positions for the first failing times; without it, only the errors.
    """
    parts = [
        _headline(predictions, tolerance),
        *_stopped(predictions, result, limits),
        *_raised(predictions, result),
        *_wrong_form(predictions),
        *_notes(predictions),
        *(_positions(prediction, reveal) for prediction in _far(predictions)[:SHOWN]),
    ]
    return clip("\n".join(parts), MAX_CHARACTERS)


def _headline(predictions: Sequence[Prediction], tolerance: float) -> str:
    """How many times pass, and until when all do."""
    passed = sum(prediction.kind == "ok" for prediction in predictions)
    first = next(index for index, prediction in enumerate(predictions) if prediction.kind != "ok")
    text = f"{passed} of {len(predictions)} times pass (mean error of the balls at most {tolerance:g} m)."
    if first == 0:
        return f"{text} The first time, t = {predictions[0].time:g}, already fails."
    return (
        f"{text} All pass up to t = {predictions[first - 1].time:g}; "
        f"the first to fail is t = {predictions[first].time:g}."
    )


def _stopped(predictions: Sequence[Prediction], result: Result, limits: Limits) -> Iterator[str]:
    """Why the program did not get to the last call."""
    finished = f"{len(result.values)} of {len(predictions)} calls finished."
    if result.status == "cpu_limit":
        yield (
            f"The program ran out of time: all calls together may take {limits.cpu_s:g} s of processor time. "
            f"{finished} Look for a loop that never ends, or for steps that are too small."
        )
    elif result.status in _STOPPED:
        yield f"{_STOPPED[result.status].format(memory=limits.memory_mb)} {finished}"
    elif result.status == "error" and not result.values:
        yield f"The program failed before {ENTRY} was called:\n{_last(result.stderr)}"


def _raised(predictions: Sequence[Prediction], result: Result) -> Iterator[str]:
    raised = [prediction for prediction in predictions if prediction.kind == "raised"]
    if raised:
        yield (
            f"{len(raised)} of the calls raised an exception; the first, {ENTRY}({raised[0].time:g}): "
            f"{clip(raised[0].problem, _TRACEBACK)}"
        )


def _wrong_form(predictions: Sequence[Prediction]) -> Iterator[str]:
    wrong = [prediction for prediction in predictions if prediction.kind == "form"]
    if wrong:
        yield (
            f"{len(wrong)} of the calls returned a value of the wrong form; the first, "
            f"{ENTRY}({wrong[0].time:g}): {wrong[0].problem}."
        )


def _notes(predictions: Sequence[Prediction]) -> Iterator[str]:
    """What the pattern of errors says about their cause."""
    far = _far(predictions)
    if far and far[-1].mean > 2 * far[0].mean:
        yield (
            f"The errors grow with time, from {_metres(far[0].mean)} m at t = {far[0].time:g} to "
            f"{_metres(far[-1].mean)} m at t = {far[-1].time:g}: what goes wrong early is carried along."
        )
    if far and max(far[0].errors) > _FAR and min(far[0].errors) < _NEAR:
        errors = far[0].errors
        worst = errors.index(max(errors)) + 1
        yield (
            f"At t = {far[0].time:g} ball {worst} is far off while another is right: "
            f"look at what ball {worst} collides with."
        )


def _far(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.kind == "far"]


def _positions(prediction: Prediction, reveal: bool) -> str:
    """One failing time, ball by ball."""
    lines = [f"t = {prediction.time:g}: mean error {_metres(prediction.mean)} m."]
    for number, error in enumerate(prediction.errors, start=1):
        line = f"  ball {number}: {_metres(error)} m off"
        if reveal and prediction.got is not None:
            got, wanted = prediction.got[number - 1], prediction.wanted[number - 1]
            line += f", predicted {_point(got)}, true {_point(wanted)}"
        lines.append(line)
    return "\n".join(lines)


def _last(text: str) -> str:
    """The end of a traceback, where the exception is."""
    stripped = text.strip()
    return stripped if len(stripped) <= _TRACEBACK else f"...{stripped[-_TRACEBACK:]}"


def _point(pair: Sequence[float]) -> str:
    return f"({_coordinate(pair[0])}, {_coordinate(pair[1])})"


def _coordinate(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.3g}"


def _metres(value: float) -> str:
    return f"{value:.1f}" if value < 1e6 else f"{value:.3g}"
