"""Attempts at the host's files, network, processes and kernel: all refused, nothing left behind."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import resd.records
from environments.together import run_jobs
from resd.environments.sandbox import Job, Limits, Result, Sandbox

from .refused import ATTACKS, program

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by x86_64 number")
SECRET = uuid.uuid4().hex
VARIABLE = "RESD_TEST_SECRET"


class Listener:
    """Servers of every kind on this machine that count who comes by."""

    def __init__(self, folder: Path) -> None:
        self.seen = 0
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix_path, self.abstract_name = str(folder / "socket"), f"\0resd-{uuid.uuid4().hex}"
        self.unix = self._unix(self.unix_path)
        os.chmod(self.unix_path, 0o777)
        self.abstract = self._unix(self.abstract_name)
        self.datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagram.bind(self.abstract_name + "-datagram")
        for server in (self.tcp, self.unix, self.abstract):
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        for receiver in (self.udp, self.datagram):
            threading.Thread(target=self._receive, args=(receiver,), daemon=True).start()

    @staticmethod
    def _unix(address: str) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(address)
        server.listen()
        return server

    def _accept(self, server: socket.socket) -> None:
        while True:
            server.accept()
            self.seen += 1

    def _receive(self, receiver: socket.socket) -> None:
        while True:
            receiver.recv(10)
            self.seen += 1


class Outcome:
    def __init__(self, results: dict[str, Result], listener: Listener, before: Any, after: Any) -> None:
        self.results, self.listener, self.before, self.after = results, listener, before, after


def _snapshot(folder: Path) -> list[tuple[str, bytes, int]]:
    return sorted(
        (p.name, p.read_bytes() if p.is_file() else b"", p.stat().st_mode) for p in folder.iterdir()
    )


@pytest.fixture(scope="module", params=["sandbox", "landlocked"])
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    """All attacks, run once, at each level that is said to withstand them."""
    sandbox: Sandbox = request.getfixturevalue(request.param)
    folder = Path(tempfile.mkdtemp())
    os.chmod(folder, 0o777)  # so that nothing but the sandbox is in the way
    (folder / "secret").write_text(SECRET)
    os.environ[VARIABLE] = SECRET
    listener = Listener(folder)
    here = {
        "secret": str(folder / "secret"),
        "folder": str(folder),
        "port": listener.tcp.getsockname()[1],
        "udp": listener.udp.getsockname()[1],
        "unix": listener.unix_path,
        "abstract": listener.abstract_name,
        "datagram": listener.abstract_name + "-datagram",
        "parent": os.getpid(),
        "source": str(Path(resd.records.__file__).resolve()),
        "venv": str(Path(os.__file__).parent / "site-packages"),
        "environment": VARIABLE,
    }
    before = _snapshot(folder)
    limits = Limits(cpu_s=1.0, wall_s=20.0)
    jobs = [Job(program(body), "f", [[here]], limits) for body in ATTACKS.values()]
    results = dict(zip(ATTACKS, run_jobs(sandbox, jobs), strict=True))
    yield Outcome(results, listener, before, _snapshot(folder))
    del os.environ[VARIABLE]
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attempt_is_refused(outcome: Outcome, name: str) -> None:
    result = outcome.results[name]
    assert result.status == "ok", result
    attempts = result.values[0]
    assert attempts
    assert [attempt for attempt in attempts if attempt[0] != "refused"] == []


def test_nothing_reached_the_host(outcome: Outcome) -> None:
    assert outcome.after == outcome.before
    assert outcome.listener.seen == 0
    assert SECRET not in repr(outcome.results)


def test_the_listener_does_count(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    with socket.create_connection(listener.tcp.getsockname(), 5):
        deadline = threading.Event()
        for _ in range(100):
            if listener.seen:
                break
            deadline.wait(0.02)
    assert listener.seen == 1


def test_the_attacks_work_where_nothing_is_in_the_way(weak: Sandbox, tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    here = {"port": listener.tcp.getsockname()[1], "udp": listener.udp.getsockname()[1]}
    here |= {"unix": "/nowhere", "abstract": listener.abstract_name, "folder": "/"}
    here |= {"datagram": listener.abstract_name + "-datagram"}
    names = ("subprocess", "tcp to loopback", "udp to loopback", "unix socket", "read system files")
    names += ("datagrams from a socketpair",)
    jobs = [Job(program(ATTACKS[name]), "f", [[here]]) for name in names]
    for name, result in zip(names, run_jobs(weak, jobs), strict=True):
        assert "worked" in [attempt[0] for attempt in result.values[0]], (name, result)


def test_other_flavours_of_system_calls_end_the_program(sandbox: Sandbox) -> None:
    result = sandbox.run(program("return raw(0x40000000 + 520, b'/bin/sh', 0, 0)"), "f", [[{}]])
    assert (result.status, result.values) == ("killed", [])
