"""Runs one program in a confined child and writes what its calls gave, one line each, to `RESULTS`.

Lines: "v" and a JSON value, "e" and a JSON string (the call raised), "m" (it ran out of memory; nothing
follows), "d" (done). The program can write such lines itself: it gains nothing that it could not return.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import json
import linecache
import os
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

STDIN, STDOUT, STDERR, RESULTS, REQUEST = range(5)
FILENAME = "program.py"
SCRIPT = "__main__"
MAX_DEPTH = 100  # of nested lists and dicts in a value
MAX_DIGITS = 4000  # of an integer in a value
MAX_ITEMS = (
    1_000_000  # lists, dicts and commas in all values: an empty list is 2 characters, and then 64 bytes
)
_MAX_MESSAGE = 300


def main() -> NoReturn:
    """Never returns: the exit code is 0 only when the program was run to its end."""
    code = 1
    try:
        with open(REQUEST, "rb") as file:
            request = json.loads(file.read())
        _fresh_streams()
        gc.enable()
        if request["entry"] == SCRIPT:
            code = _run_script(request["program"])
        else:
            code = _run_calls(request["program"], request["entry"], request["calls"])
    except BaseException as error:  # whatever the program did to us: no line, a code that is not 0
        _complain(f"the program could not be run: {short(error)}\n")
    os._exit(code)


def _fresh_streams() -> None:
    """sys.stdin, stdout and stderr on the child's own descriptors: the launcher's are not ours."""
    sys.stdin = open(STDIN, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = [FILENAME]


def _run_calls(program: str, entry: str, calls: Sequence[Sequence[Any]]) -> int:
    write, encode, describe, out_of_memory, flush = os.write, _encoded, short, MemoryError, _flush
    try:
        function = _entry(_executed(program, "program"), entry)
    except BaseException as error:
        _complain(formatted(error))
        if isinstance(error, out_of_memory):
            _write_all(write, b"m\n")
        return 3
    for arguments in calls:
        try:
            line = b"v" + encode(function(*arguments))
        except out_of_memory:
            _write_all(write, b"m\n")
            return 3
        except BaseException as error:
            line = b"e" + json.dumps(describe(error)).encode()
        _write_all(write, line + b"\n")
    flush()
    _write_all(write, b"d\n")
    return 0


def _run_script(program: str) -> int:
    try:
        _executed(program, SCRIPT)
        _end_of_script()
    except SystemExit as error:
        if error.code in (None, 0):
            _end_of_script()
            return 0
        return _script_error(error, "" if isinstance(error.code, int) else f"{error.code}\n")
    except MemoryError:
        _write_all(os.write, b"m\n")
        return 3
    except BaseException as error:
        return _script_error(error, formatted(error))
    return 0


def _script_error(error: BaseException, text: str) -> int:
    line = b"e" + json.dumps(short(error)).encode() + b"\n"
    _flush()
    _complain(text)
    _write_all(os.write, line)
    return 3


def _end_of_script() -> None:
    """As an interpreter ends: other threads finish, exit functions run."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _flush()


def _executed(program: str, name: str) -> dict[str, Any]:
    """The names that the program defines."""
    linecache.cache[FILENAME] = (len(program), None, program.splitlines(keepends=True), FILENAME)
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module  # dataclasses and others look themselves up
    exec(compile(program, FILENAME, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _entry(names: dict[str, Any], entry: str) -> Callable[..., Any]:
    head, _, method = entry.partition(".")
    if head not in names:
        raise NameError(f"the program defines no {head!r}")
    found = names[head]
    if method:
        if not hasattr(found, method):
            raise NameError(f"{head!r} has no {method!r}")
        return lambda *arguments: getattr(found(), method)(*arguments)
    if not callable(found):
        raise TypeError(f"{head!r} is not a function")
    return found  # type: ignore[no-any-return]


def _encoded(value: Any) -> bytes:
    try:
        text = _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise ValueError("a value holds text that is not Unicode (lone surrogates)") from None
    brackets, commas = brackets_and_commas(text)
    if len(brackets) // 2 + commas > MAX_ITEMS:
        raise ValueError(f"a value has more than {MAX_ITEMS} items")
    if deeper_than(brackets, MAX_DEPTH):
        raise ValueError(f"a value is nested more than {MAX_DEPTH} deep")
    return text


def _not_json(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_not_json)


_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)  # the last one may lack its end
_OTHERS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def brackets_and_commas(text: bytes) -> tuple[bytes, int]:
    """The brackets of JSON text, of one kind, and how many commas there are beside them."""
    bare = _STRINGS.sub(b"", text)
    return bare.translate(_ONE_KIND, _OTHERS), bare.count(b",")


def deeper_than(brackets: bytes, limit: int) -> bool:
    """Whether lists and dicts are nested more than `limit` deep, or not properly. No recursion."""
    for _ in range(limit):
        fewer = brackets.replace(b"[]", b"")  # without the innermost level
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    return bool(brackets)


def short(error: BaseException) -> str:
    """ "ZeroDivisionError: division by zero (line 12, in f)"."""
    try:
        message = str(error.msg if isinstance(error, SyntaxError) else error).strip()
        text = _cut(": ".join(filter(None, [type(error).__name__, message])))
        if isinstance(error, SyntaxError) and error.filename == FILENAME:
            return f"{text} (line {error.lineno})"
        frames = _own_frames(error)
        return f"{text} (line {frames[-1].lineno}, in {_cut(frames[-1].name)})" if frames else text
    except BaseException:  # an exception whose text raises
        return _cut(type(error).__name__)


def formatted(error: BaseException) -> str:
    """A traceback of the program's own frames."""
    try:
        frames = _own_frames(error)
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
        return "".join(lines + traceback.format_exception_only(type(error), error))[-4000:]
    except BaseException:
        return _cut(type(error).__name__) + "\n"


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    summary = traceback.extract_tb(error.__traceback__, limit=-2000)
    own = [frame for frame in summary if frame.filename == FILENAME]
    return own if len(own) <= 12 else [*own[:6], *own[-6:]]


def _cut(text: str) -> str:
    return str(text)[:_MAX_MESSAGE].encode("utf-8", "backslashreplace").decode()


def _write_all(write: Callable[[int, bytes], int], data: bytes) -> None:
    while data:
        data = data[write(RESULTS, data) :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue  # the program's own doing


def _complain(text: str) -> None:
    _flush()
    os.write(STDERR, text.encode("utf-8", "backslashreplace"))
