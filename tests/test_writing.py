"""Disks that take no more are told in one sentence."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from resd import cli
from resd.records import ResdError
from resd.writing import refusal, writing


def test_any_error_of_the_disk_is_one_sentence() -> None:
    for reason in (OSError(errno.EACCES, "Permission denied"), OSError("Permission denied")):
        with (
            pytest.raises(ResdError, match=r"^file x: .* written \(Permission denied\); "),
            writing("file x"),
        ):
            raise reason


def test_other_errors_stay_what_they_are() -> None:
    for error in (RuntimeError("CUDA error"), ResdError("a mistake"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as told, writing("file x"):
            raise error
        assert told.value is error


def test_libraries_with_errors_of_their_own() -> None:
    assert refusal(Exception("I/O error: (os error 30)")) == "Read-only file system"
    with pytest.raises(RuntimeError) as told:
        torch.save({"a": torch.zeros(10_000)}, Path("/dev/full"))
    assert refusal(told.value) == "the disk may be full"
    assert refusal(RuntimeError("CUDA out of memory")) is None
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None


def test_the_command_line_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    monkeypatch.setattr(cli, "show_playbook", full)
    with pytest.raises(SystemExit) as stop:
        cli.main(["playbook", "show", "x"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("resd: /data/x: cannot be written (No space left on device);")
