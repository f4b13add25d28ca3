"""A model hub on the loopback interface: what its own client asks for when it loads a model or a set by its id."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0" * 40
"""The one revision of everything."""


class Hub(ThreadingHTTPServer):
    """Serves folders: ``{"models/org/name": folder, "datasets/org/name": folder}``."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.seen: list[str] = []

    @property
    def endpoint(self) -> str:
        """The address for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running(folders: Mapping[str, Path]) -> Iterator[Hub]:
    """A hub that answers for as long as the context lasts."""
    with Hub(folders) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def log_message(self, *_: object) -> None:
        """The requests are kept in `Hub.seen`."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.server.seen.append(f"{self.command} {path}")
        if not path:
            return self._send(b"a hub")
        if path.startswith("api/"):
            return self._tell(path.removeprefix("api/"))
        repository, _, name = path.partition("/resolve/")
        folder = self._folder(repository if repository.startswith("datasets/") else f"models/{repository}")
        file = None if folder is None else folder / name.partition("/")[2]
        if folder is None or file is None or not file.is_file():
            return self._missing("RepoNotFound" if folder is None else "EntryNotFound")
        content = file.read_bytes()
        etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._send(content, etag)

    def _tell(self, path: str) -> None:
        """The interface about a repository: what it is, and its files."""
        kind, organisation, name, *more = [*path.split("/"), "", ""]
        folder = self._folder(f"{kind}/{organisation}/{name}")
        if folder is None:
            return self._missing("RepoNotFound")
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        if more[0] == "tree":
            told: Any = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files]
        else:
            siblings = [{"rfilename": file.name} for file in files]
            told = {"id": f"{organisation}/{name}", "sha": COMMIT, "siblings": siblings, "tags": []}
        return self._send(json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _folder(self, repository: str) -> Path | None:
        return self.server.folders.get(repository)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
