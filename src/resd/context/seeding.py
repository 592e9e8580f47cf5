"""Seeds that depend on names, not on the order of events, so that a resumed run draws the same values."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: str | int) -> int:
    """Hash the parts to 63 bits by blake2b; the same in every process and on every machine."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
