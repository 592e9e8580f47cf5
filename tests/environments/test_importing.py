"""A user's code by name: what is found, and what is said of what is not."""

import sys
from pathlib import Path

import pytest

from resd.environments.importing import imported
from resd.records import ResdError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("name", ["sums_here", "sums_here.py", "./sums_here.py", "deep.sums", "deep/sums.py"])
def test_a_module_or_its_path(here: Path, name: str) -> None:
    (here / "sums_here.py").write_text("Sums = 7")
    (here / "deep").mkdir()
    (here / "deep" / "sums.py").write_text("Sums = 7")
    assert imported(name, "Sums") == 7


@pytest.mark.parametrize("file", ["code.py", "code/__init__.py", "pytest.py"])
def test_a_name_that_another_module_has(here: Path, file: str) -> None:
    path, name = here / file, file.partition("/")[0].removesuffix(".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text("Sums = 7")
    whose = "an installed module pytest" if name == "pytest" else "Python's own module code"
    with pytest.raises(ResdError) as error:
        imported(name, "Sums")
    mine = file.partition("/")[0]
    assert f"{whose} was found in place of ./{mine}, which has its name; rename yours" in str(error.value)


@pytest.mark.parametrize(
    ("place", "source", "words"),
    [
        (":Sums", "", "cannot be imported; write module:name, as in sums:Sums"),
        ("own_sums:", "", "cannot be imported; write module:name"),
        ("no_such_module:Sums", "", "no_such_module cannot be imported (ModuleNotFoundError: No module"),
        ("nowhere/sums.py:Sums", "", "there is no file"),
        ("../own_sums.py:Sums", "", "there is no file"),
        (
            "own_sums:sums",
            "Sums = 7",
            "has no attribute 'sums'; did you mean own_sums:Sums?",
        ),
        ("own_sums:Other", "", "no attribute 'Other'; name a class, a function or an environment"),
        ("own_sums:Sums", "\n1 / 0", "(ZeroDivisionError: division by zero, own_sums.py line 2)"),
        ("own_sums:Sums", "raise SystemExit", "own_sums cannot be imported (SystemExit, own_sums.py line 1)"),
        (
            "own_sums:Sums",
            "def :",
            "(SyntaxError: invalid syntax (own_sums.py, line 1)",
        ),
        ("code:Sums", "", "module 'code' has no attribute 'Sums'; name a class"),
    ],
)
def test_mistakes(here: Path, place: str, source: str, words: str) -> None:
    (here / "own_sums.py").write_text(source)
    with pytest.raises(ResdError) as error:
        imported(*place.split(":"))
    assert str(error.value).startswith(f"environment {place}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_another_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "sums_here.py").write_text("Sums = 7")
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    with pytest.raises(ResdError, match=r"is not in the current folder; start in .*, with sums_here:Sums"):
        imported("../sums_here.py", "Sums")
