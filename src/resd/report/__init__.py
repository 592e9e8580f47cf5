"""One static HTML page for one run, or for several side by side; and the same page live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_report(runs: Sequence[Path], output: Path) -> list[str]:
    """Write the report of these run folders to the file `output`: no scripts, nothing from the network.

    A run that is still going is reported up to its current state. Returns a sentence for each run that is
    left out because one of its files is damaged. Raises ResdError for a folder that is not a run, if no run
    can be read, and for a file that cannot be written.
    """
    from resd.report.sound import render_sound
    from resd.writing import writing

    page, faults = render_sound(runs)
    with writing(f"report {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8", errors="replace")
    return faults
