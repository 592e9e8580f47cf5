"""The stand-in for a program in its own tests. This file's text is a program that runs in the sandbox.

Tests hold the answers, so they never run beside the program. Where they call it, `Replay` gives them what the
program was heard to return to such a call in a process of its own, or, where it has not been asked yet, an
`Unknown`; and it notes the call.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import json
import random
from typing import Any


def resd_encode(value: "Any") -> "Any":
    """JSON of a value: tuples, sets, and dicts whose keys are no texts get a tag. Raises TypeError."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [resd_encode(item) for item in value]
    if isinstance(value, tuple):
        return {"resd_tuple": [resd_encode(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"resd_set": [resd_encode(item) for item in value]}
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} cannot be compared")
    if all(isinstance(key, str) for key in value):
        return {key: resd_encode(item) for key, item in value.items()}
    return {"resd_dict": [[resd_encode(key), resd_encode(item)] for key, item in value.items()]}


def resd_decode(value: "Any") -> "Any":
    """The value again."""
    if isinstance(value, list):
        return [resd_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"resd_tuple"}:
        return tuple(resd_decode(value["resd_tuple"]))
    if set(value) == {"resd_set"}:
        return set(resd_decode(value["resd_set"]))
    if set(value) == {"resd_dict"}:
        return {resd_decode(key): resd_decode(item) for key, item in value["resd_dict"]}
    return {key: resd_decode(item) for key, item in value.items()}


class Unknown:
    """What a call that the program has not been asked yet would return. Nothing can be decided by it."""

    def __init__(self, call):
        self.call = call

    def __bool__(self):
        raise TypeError("not known yet")

    def __eq__(self, other):
        raise TypeError("not known yet")


class Replay:
    """`known` has [call, outcome] pairs: a call is [args, kwargs], an outcome [value], or [] for none."""

    def __init__(self, known):
        self.known = {json.dumps(call): outcome for call, outcome in known}
        self.calls = {}
        self.checks = []
        self.recent = []
        self.unknown = False

    def __call__(self, *args, **kwargs):
        call = [resd_encode(list(args)), resd_encode(kwargs)]
        key = json.dumps(call)
        number = self.calls.setdefault(key, (len(self.calls), call))[0]
        self.recent.append(number)
        if key not in self.known:
            self.unknown = True
            return Unknown(number)
        if not self.known[key]:
            raise RuntimeError("the program gave nothing")
        return resd_decode(self.known[key][0])

    def equal(self, line, left, right):
        """An assertion that two values are equal. Where one is a call's, what it must be is noted."""
        if isinstance(right, Unknown):
            left, right = right, left
        noted = {}
        if isinstance(left, Unknown):
            noted = {"call": left.call, "wanted": resd_encode(right)}
        self.truth(line, not self.unknown and left == right)
        self.checks[-1].update(noted)

    def truth(self, line, value):
        """Any other assertion."""
        passed = None if self.unknown else bool(value)
        self.checks.append({"line": line, "passed": passed, "calls": self.recent})
        self.recent = []

    def raised(self, line):
        """An assertion that could not be evaluated."""
        self.truth(line, False)


def replay_tests(source, helpers, entry, known):
    """Run a test source. All its calls and assertions, in order, and what ended it early."""
    replay = Replay(known)
    names: dict[str, Any] = {"__name__": "tests"}
    exec(helpers, names)
    names.update({"resd": replay, "candidate": replay, entry: replay})
    random.seed(0)
    error = None
    try:
        exec(source, names)
    except Exception as raised:
        error = type(raised).__name__ + ": " + str(raised)
    calls = [call for _, call in replay.calls.values()]
    return {"calls": calls, "checks": replay.checks, "error": error, "unknown": replay.unknown}
