"""The benchmark runs, and counts what it says that it counts."""

import importlib.util
from pathlib import Path

FILE = Path(__file__).resolve().parents[3] / "benchmarks/bouncingsim.py"


def test_its_tables(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmarks_bouncingsim", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = {level: module.generated_rows(level, 0)[:60] for level in module.LEVELS}
    monkeypatch.setattr(module, "generated_rows", lambda level, seed: rows[level])
    module.main(["--solutions", "2", "--loops", "1"])
    printed = capsys.readouterr().out
    assert "easy: 2 of 2 solutions solved" in printed
    assert "medium: 2 of 2 solutions solved" in printed
    assert "1 endless loops (1 stopped for time) and 4 solutions (4 solved)" in printed
    for (name, level), published in module.PUBLISHED.items():
        times, problems = module.score(module.GUESSES[name], rows[level])
        line = next(line for line in printed.splitlines() if line.startswith(f"{name}, {level}"))
        assert line.split()[-4:] == [f"{times:.1f}", str(published[0]), f"{problems:.1f}", str(published[1])]
