"""What a disk that takes no more says, in one sentence."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from resd.records import ResdError

ELSEWHERE = "make room there or make it writable, or choose another place"
RESUME = "make room there or make it writable, and the run goes on with --resume"
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def writing(what: str, remedy: str = ELSEWHERE) -> Iterator[None]:
    """Raises ResdError where `what`, a kind of thing and its path, cannot be written: why, and what to do."""
    try:
        yield
    except Exception as error:
        reason = refusal(error)
        if reason is None and isinstance(error, OSError):
            reason = error.strerror or str(error)
        if reason is None:
            raise
        raise ResdError(f"{what}: cannot be written ({reason}); {remedy}") from error


def refusal(error: Exception) -> str | None:
    """Why the disk took no more; None for any other error."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _REFUSALS else None
    # Libraries in other languages have errors of their own: safetensors tells the number, torch no reason.
    if told := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(told[1]))
    if re.search(r"inline_container\.cc|PytorchStreamWriter", str(error)):
        return "the disk may be full"
    return None
