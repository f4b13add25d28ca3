"""A model hub on loopback that can be written to, as its own client does: repositories, commits, large files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

SMALL = 1024
"""Bytes up to which a file is committed as it is; a larger one goes by the large-file store."""


class Hub:
    """What the hub holds. ``token`` is the one that may write."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.large: dict[str, bytes] = {}
        self.url = ""

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.repositories[name], self.private[name] = {}, body.get("visibility") == "private"
        return 200, {"url": f"{self.url}/{name}", "name": name, "id": "1"}

    def batch(self, body: dict[str, Any]) -> tuple[int, Any]:
        found = [
            {**each, "actions": {"upload": {"href": f"{self.url}/large/{each['oid']}"}}} for each in body["objects"]
        ]
        return 200, {"transfer": "basic", "objects": found}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
        sha = hashlib.sha1(json.dumps(sorted(files)).encode()).hexdigest()
        return 200, {
            "success": True,
            "commitOid": sha,
            "commitUrl": f"{self.url}/{name}/commit/{sha}",
            "hookOutput": "",
        }


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path.endswith("/commit/main"):
            lines = [json.loads(line) for line in body.decode().splitlines() if line]
            return self._answer(*self.hub.commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), lines))
        told = json.loads(body)
        if path == "/api/repos/create":
            return self._answer(*self.hub.create(told))
        if path == "/api/validate-yaml":
            yaml.safe_load(told["content"].split("---")[1])
            return self._answer(200, {"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] > SMALL else "regular",
                    "shouldIgnore": False,
                }
                for each in told["files"]
            ]
            return self._answer(200, {"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            return self._answer(*self.hub.batch(told))
        return self._answer(404, {"error": path})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != oid:
            return self._answer(400, {"error": "checksum"})
        self.hub.large[oid] = content
        return self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(404, {"error": self.path})

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def running(token: str) -> Iterator[Hub]:
    """The hub, served on a free port."""
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
