"""One run of an experiment, in a process of its own: `python -m resd.experiments.worker SPECIFICATION`.

The specification is JSON: {"config": FILE, "overrides": ["key=value", ...], "faults": {"wrong_lessons": 0.04}}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from resd.config import load_config
from resd.experiments.faults import Faults, FaultyEngine
from resd.training.setup import build
from resd.training.stream import Stream


def prepare(config: str, overrides: Sequence[str], faults: Faults) -> Stream:
    """The run, resumed if it had begun, its context engine spoiled as `faults` says."""
    run = load_config(config, list(overrides))
    stream = build(run, resume=True)
    if stream.context and faults != Faults():
        stream.context.engine = FaultyEngine(stream.context.engine, faults, run.seed)
    return stream


def main(specification: str) -> None:
    given = json.loads(specification)
    prepare(given["config"], given["overrides"], Faults(**given.get("faults", {}))).train()


if __name__ == "__main__":
    main(sys.argv[1])
