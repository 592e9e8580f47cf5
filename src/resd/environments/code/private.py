"""Private tests as LiveCodeBench publishes them: base64 of zlib of a pickled JSON text.

Nothing is unpickled. The pickle's operations are read as data, and only a pickle that holds one text and does
nothing else is accepted.
"""

from __future__ import annotations

import base64
import json
import pickletools
import zlib
from typing import Any

from resd.records import ResdError

MAX_BYTES = 1 << 29  # of one problem's tests, unpacked
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_EMPTY = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


def decode_private(packed: str, where: str) -> list[Any]:
    """The tests in a row's `private_test_cases`: JSON as it is, or packed. Raises ResdError."""
    text = packed if packed.lstrip().startswith("[") else _unpacked(packed, where)
    try:
        cases = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResdError(f"{where}: its private tests are not JSON ({error})") from error
    if not isinstance(cases, list):
        raise ResdError(f"{where}: its private tests are not a JSON list")
    return cases


def _unpacked(packed: str, where: str) -> str:
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(packed, validate=True), MAX_BYTES)
    except (ValueError, zlib.error) as error:
        raise ResdError(
            f"{where}: its private tests are neither JSON nor base64 of zlib ({error})"
        ) from error
    if not unzip.eof:
        raise ResdError(f"{where}: its private tests are cut off, or unpack to more than {MAX_BYTES} bytes")
    return pickled_text(data, where)


def pickled_text(data: bytes, where: str) -> str:
    """The one text that a pickle holds. Raises ResdError for a pickle that holds or does anything else."""
    try:
        steps = [(operation.name, argument) for operation, argument, _ in pickletools.genops(data)]
    except Exception as error:  # whatever a malformed pickle makes the reader stumble over
        raise ResdError(f"{where}: its private tests are not a pickle ({error})") from error
    texts = [argument for name, argument in steps if name in _TEXTS]
    others = sorted({name for name, _ in steps} - _TEXTS - _EMPTY)
    if others or len(texts) != 1 or not isinstance(texts[0], str):
        raise ResdError(
            f"{where}: its private tests are a pickle of more than one text ({', '.join(others)}), "
            "which could run code; get them as JSON"
        )
    return texts[0]
