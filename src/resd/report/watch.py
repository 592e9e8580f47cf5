"""`resd watch`: serves the live report of runs that are still going."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from urllib.parse import urlsplit

from resd.records import ResdError
from resd.report.heat import TOKENS
from resd.report.runs import CONFIG
from resd.report.sound import render_sound
from resd.training import journal

_FILES = (CONFIG, journal.METRICS, journal.TIMING, journal.PLAYBOOK)
_FOLDERS = (journal.ROLLOUTS, journal.EVALUATIONS, TOKENS)


@dataclass
class Watched:
    """The page of some runs, rendered again when any of their files has changed."""

    folders: Sequence[Path]
    faults: Sequence[str] = ()  # of the runs that the page leaves out
    _stamp: str = ""
    _page: bytes = b""
    _lock: Lock = field(default_factory=Lock)

    def stamp(self) -> str:
        """Changes whenever a file of the runs does."""
        seen = "\n".join(line for folder in self.folders for line in _state(folder))
        return hashlib.sha256(seen.encode(errors="replace")).hexdigest()[:32]

    def page(self) -> tuple[str, bytes]:
        """The stamp and the document. Raises ResdError if no run can be read.

        Each run that is left out is reported once in the terminal.
        """
        with self._lock:
            stamp = self.stamp()
            if stamp != self._stamp:
                page, faults = render_sound(self.folders, live=True)
                for fault in faults:
                    if fault not in self.faults:
                        print(f"resd: warning: {fault}", file=sys.stderr, flush=True)
                self._stamp, self._page, self.faults = stamp, page.encode(errors="replace"), faults
            return stamp, self._page


class Server(ThreadingHTTPServer):
    """Serves one page and nothing else: no file is ever opened by a name that a request gives."""

    daemon_threads = True

    def __init__(self, watched: Watched, host: str, port: int) -> None:
        self.watched = watched
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.local = is_local(host)
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of `/`, with an entity tag: 304 while nothing has changed."""

    server: Server
    server_version, sys_version = "resd", ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a page that polls every two seconds would fill the terminal."""

    def _answer(self) -> None:
        if self.server.local and not is_local(_host_name(self.headers.get("Host", ""))):
            # Another site's name that was pointed here must not read the run through the reader's browser.
            self._send(HTTPStatus.FORBIDDEN, b"ask for localhost, or start resd watch with --host\n")
        elif urlsplit(self.path).path != "/":
            self._send(HTTPStatus.NOT_FOUND, b"there is one page here: /\n")
        else:
            self._send_page()

    def _send_page(self) -> None:
        try:
            stamp, page = self.server.watched.page()
        except ResdError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode(), {"Refresh": "5"})
            return
        tag = f'"{stamp}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, b"", {"ETag": tag})
        else:
            self._send(HTTPStatus.OK, page, {"ETag": tag, "Content-Type": "text/html; charset=utf-8"})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-cache"}
        for name, value in {**always, "X-Content-Type-Options": "nosniff", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def make_server(folders: Sequence[Path], host: str, port: int) -> Server:
    """A server that listens, and answers once `serve_forever` is called. Port 0 takes any free one.

    Raises ResdError for a folder that is not a run or cannot be read, and for an unavailable address.
    """
    watched = Watched(folders)
    watched.page()
    try:
        return Server(watched, host, port)
    except OverflowError as error:
        raise ResdError(f"--port {port}: is not a port; give a number from 0 to 65535") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ResdError(
                f"--port {port}: is in use by another program; give another port, or 0 for any free one"
            ) from error
        raise ResdError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); give another address"
        ) from error


def watch(folders: Sequence[Path], host: str, port: int) -> None:
    """Serve until Ctrl-C."""
    with make_server(folders, host, port) as server:
        print(f"{server.url} shows {', '.join(map(str, folders))}; Ctrl-C ends it", flush=True)
        if not server.local:
            print("Whoever can reach this machine can read the run.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def is_local(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(header: str) -> str:
    """The name in a Host header, without port and brackets; "" if it is not valid."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _state(folder: Path) -> Iterator[str]:
    """One line per file: its path, length and time."""
    for name in _FILES:
        yield _line(folder / name)
    for name in _FOLDERS:
        if (folder / name).is_dir():
            yield from sorted(_line(Path(entry.path)) for entry in os.scandir(folder / name))


def _line(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} -"
    return f"{path} {status.st_size} {status.st_mtime_ns}"
