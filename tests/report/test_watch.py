"""The server, asked by a real client."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from html import unescape
from pathlib import Path

import pytest

from resd.records import ResdError
from resd.report.watch import Server, is_local, make_server

from .conftest import update

MakeRun = Callable[..., Path]


@contextmanager
def serving(*folders: Path) -> Iterator[Server]:
    with make_server(folders, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: Server, path: str = "/", method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    return answer, answer.read().decode()


def test_the_page_is_served_until_something_changes(make_run: MakeRun) -> None:
    folder = make_run()
    with serving(folder) as server:
        answer, html = ask(server)
        assert (answer.status, answer.getheader("Content-Type")) == (200, "text/html; charset=utf-8")
        assert "4 of at most 8" in html
        tag = str(answer.getheader("ETag"))
        again, body = ask(server, If_None_Match=tag)
        assert (again.status, body, again.getheader("ETag")) == (304, "", tag)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(update(5)) + "\n")
        changed, html = ask(server, If_None_Match=tag)
        assert changed.status == 200
        assert changed.getheader("ETag") != tag
        assert "5 of at most 8" in html


@pytest.mark.parametrize("name", ["rollouts/9.jsonl", "evaluations/4.jsonl", "tokens/1.jsonl", "config.yaml"])
def test_any_journal_counts(make_run: MakeRun, name: str) -> None:
    folder = make_run()
    (folder / "tokens").mkdir()
    with make_server([folder], "127.0.0.1", 0) as server:
        before = server.watched.stamp()
        assert server.watched.stamp() == before
        with (folder / name).open("a") as file:
            file.write("\n")
        assert server.watched.stamp() != before


def test_head_has_no_body(make_run: MakeRun) -> None:
    with serving(make_run()) as server:
        answer, body = ask(server, method="HEAD")
        assert (answer.status, body) == (200, "")
        assert int(str(answer.getheader("Content-Length"))) > 1000


@pytest.mark.parametrize(
    "path",
    ["/config.yaml", "/../run/config.yaml", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/metrics.jsonl"],
)
def test_nothing_else_is_served(make_run: MakeRun, path: str) -> None:
    with serving(make_run()) as server:
        answer, body = ask(server, path)
        assert answer.status == 404
        assert body == "there is one page here: /\n"
        assert ask(server, method="POST")[0].status == 501


def test_other_names_of_this_machine_are_refused(make_run: MakeRun) -> None:
    with serving(make_run()) as server:
        for host, status in (("evil.example", 403), ("localhost:1", 200), ("[::1]:80", 200), ("[", 403)):
            assert ask(server, Host=host)[0].status == status


def test_only_our_script_may_run(make_run: MakeRun) -> None:
    with serving(make_run()) as server:
        _, html = ask(server)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in unescape(html)
    assert html.count("<script") == 1
    assert not re.search(r"""(src|href)=["'](?!#)""", html)


def test_every_part_that_opens_can_be_found_again(make_run: MakeRun) -> None:
    with serving(make_run(), make_run("other", algorithm="sdpo")) as server:
        _, html = ask(server)
    keys = re.findall(r'<details[^>]* data-key="([^"]+)"', html)
    assert len(keys) == len(set(keys)) == html.count("<details")


def test_damage_is_told_and_mended(make_run: MakeRun) -> None:
    folder = make_run()
    whole = (folder / "metrics.jsonl").read_text()
    with serving(folder) as server:
        (folder / "metrics.jsonl").write_text("no json\n")
        answer, body = ask(server)
        assert answer.status == 503
        assert "line 1: not valid JSON" in body
        (folder / "metrics.jsonl").write_text(whole)
        assert ask(server)[0].status == 200


def test_a_broken_run_is_left_out_and_told_once(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, broken = make_run("whole"), make_run("broken")
    with (broken / "playbook.jsonl").open("a") as file:
        file.write("no json\n")
    with serving(folder, broken) as server:
        answer, html = ask(server)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(update(5)) + "\n")
        assert "5 of at most 8" in ask(server)[1]
    assert answer.status == 200
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"resd: warning: {broken} is left out: journal {broken}/playbook.jsonl, line 1")
    assert f"{broken} is left out" in unescape(html)


def test_a_port_that_is_taken(make_run: MakeRun) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ResdError, match=f"--port {port}: is in use by another program"):
            make_server([make_run()], "127.0.0.1", port)


def test_what_cannot_be_served(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="give the folder of a run"):
        make_server([tmp_path], "127.0.0.1", 0)
    folder = make_run()
    with pytest.raises(ResdError, match="is not a port"):
        make_server([folder], "127.0.0.1", 70_000)
    with pytest.raises(ResdError, match="cannot listen there"):
        make_server([folder], "203.0.113.1", 0)


def test_local_names() -> None:
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "example.com", "", "::", "192.168.0.1")))


def test_the_command_ends_with_ctrl_c(make_run: MakeRun) -> None:
    words = [sys.executable, "-m", "resd", "watch", str(make_run()), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = re.match(r"http://127\.0\.0\.1:(\d+)/ shows ", process.stdout.readline())
        assert url is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
