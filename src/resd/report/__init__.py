"""One static HTML page for one run, or for several side by side; and the same page live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_report(runs: Sequence[Path], output: Path) -> None:
    """Write the report of these run folders to the file `output`: no scripts, nothing from the network.

    A run that is still going is reported as far as it is. Raises ResdError, in one sentence, for a folder
    that is no run, for a damaged journal, and for a file that cannot be written.
    """
    from resd.records import ResdError
    from resd.report.page import render
    from resd.report.runs import load_runs

    page = render(load_runs(runs))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ResdError(
            f"report {output}: cannot be written ({error.strerror}); choose another file"
        ) from error
