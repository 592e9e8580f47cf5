"""From a reply to a program that the sandbox can run."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CHARACTERS = 200_000
PYTHON = ("python", "py", "python3")
_FENCE = re.compile(r" {0,3}`{3,}[ \t]*([\w+-]*)")
_NAME = re.compile(r"[A-Za-z_]\w*")
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
_LINE = re.compile(r'(?<=", line )\d{1,9}|(?<=\(line )\d{1,9}')
_OURS = re.compile(r" \(line \d+, in resd_\w+\)")
# What LeetCode imports before a solution; each is imported only where the program speaks of it.
_MODULES = (
    *("bisect", "collections", "copy", "functools", "heapq", "io", "itertools", "json", "math", "operator"),
    *("random", "re", "string", "sys", "typing"),
)
_NAMES = {
    "bisect": ("bisect_left", "bisect_right", "insort"),
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "functools": ("cache", "cmp_to_key", "lru_cache", "reduce"),
    "heapq": ("heapify", "heappop", "heappush", "heappushpop", "heapreplace", "nlargest", "nsmallest"),
    "itertools": ("accumulate", "chain", "combinations", "groupby", "pairwise", "permutations", "product"),
    "math": ("ceil", "comb", "floor", "gcd", "inf", "isqrt", "lcm", "sqrt"),
    "typing": (
        *("Any", "Callable", "Deque", "Dict", "FrozenSet", "Generator", "Iterable", "Iterator", "List"),
        *("Mapping", "Optional", "Sequence", "Set", "Tuple", "Union"),
    ),
}


@dataclass(frozen=True, slots=True)
class Program:
    """`text` is what runs: `source`, the reply's own, comes after `shift` lines of imports and helpers."""

    source: str
    text: str
    shift: int

    def own_lines(self, message: str) -> str:
        """A message with its line numbers counted from the reply's own first line."""
        return _LINE.sub(lambda match: str(int(match[0]) - self.shift), _OURS.sub("", message))

    def line(self, message: str) -> str:
        """The line of the reply that a message names last, stripped; "" where it names none."""
        numbers = [int(number) for number in _LINE.findall(message)]
        lines = self.source.split("\n")
        return lines[numbers[-1] - 1].strip() if numbers and 0 < numbers[-1] <= len(lines) else ""


def extract_program(answer: str) -> str | None:
    """The last fenced block tagged as Python; without such, the last without a tag; None without either.

    The last, since replies correct themselves (the references take the longest). A block that is never
    closed does not count.
    """
    blocks = _blocks(answer)
    tagged = [text for tag, text in blocks if tag.lower() in PYTHON]
    untagged = [text for tag, text in blocks if not tag]
    return next(reversed(tagged or untagged), None)


def compose(source: str, helpers: str = "") -> Program:
    """The program with the imports that it leaves out, and after `helpers` that its task promises."""
    future = _FUTURE.findall(source)
    rest = _FUTURE.sub("", source)
    before = [*dict.fromkeys(future), *_imports(rest), *(helpers.splitlines() if helpers else [])]
    return Program(source, "\n".join([*before, rest]), len(before))


def entry_of(source: str, name: str) -> str:
    """How the sandbox finds a function: as a method of class Solution, or at the top level."""
    method = re.search(rf"^[ \t]+(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b", source, re.MULTILINE)
    solution = re.search(r"^class[ \t]+Solution\b", source, re.MULTILINE)
    return f"Solution.{name}" if method and solution else name


def _imports(source: str) -> list[str]:
    spoken = set(_NAME.findall(source))
    whole = [f"import {name}" for name in _MODULES if name in spoken]
    return whole + [
        f"from {module} import {', '.join(found)}"
        for module, names in _NAMES.items()
        if (found := [name for name in names if name in spoken])
    ]


def _blocks(text: str) -> list[tuple[str, str]]:
    """(tag, content) of each fenced block, in order. A tagged fence within a block begins another one."""
    found: list[tuple[str, str]] = []
    tag, content = "", list[str]()
    inside = False
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if fence and inside and not line.strip().strip("`"):
            found.append((tag, "\n".join(content)))
            inside = False
        elif fence and (fence[1] or not inside):
            tag, content, inside = fence[1], [], True
        elif inside:
            content.append(line)
    return found
