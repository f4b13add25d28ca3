"""Cloud Storage: an emulator, with the preconditions that it lacks, mounted as a folder as the jobs' machines see it.

Before each request what the machines wrote into the folder goes into the buckets, after each what was sent goes into
the folder, so that both see the same at any time.
"""

import contextlib
import json
import re
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.handlers.objects import _checksums, _make_object_resource
from gcp_storage_emulator.server import create_server

from tests.clouds.gateway import Request, Response, Tally, forward
from tests.clouds.google.answers import Refused

OBJECT = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")
UPLOAD = re.compile(r"/upload/storage/v1/b/(?P<bucket>[^/]+)/o")
REWRITE = re.compile(r"/storage/v1/b/[^/]+/o/[^/]+/rewriteTo/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")


class Buckets:
    def __init__(self, folder: Path, project_number: str, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        folder.mkdir()
        self.emulator = create_server("127.0.0.1", 0, in_memory=True)
        self.emulator.start()
        stack.callback(self.emulator.stop)
        self.storage = self.emulator._storage
        self.storage.project_number = project_number
        self.received, self.sent = Tally(), Tally()
        """Bytes of data that came into the buckets, and that went out."""
        self._lock = threading.RLock()
        self._synced: dict[tuple[str, str], tuple] = {}
        """State of the file and generation of the object when both were the same, by bucket and name."""

    def serve(self, request: Request) -> Response:
        with self._lock:
            self._from_folder()
            self._check(request)
            if UPLOAD.fullmatch(urlsplit(request.path).path):
                self.received.add(_carried(request))
            response = forward(request, self.emulator._api._httpd.server_address, host=request.host)
            if not isinstance(response.body, bytes):
                response.body = b"".join(response.body)
            if (request.method, urlsplit(request.path).path) == ("POST", "/storage/v1/b") and response.status == 200:
                self._keep_settings(json.loads(request.body))
            self._to_folder()
        if "alt=media" in request.path:
            self.sent.add(len(response.body))
        response.headers = [
            (name, value.replace("http://", "https://", 1) if name.lower() == "location" else value)
            for name, value in response.headers
        ]
        return response

    def contents(self, bucket: str) -> dict[str, bytes]:
        """All objects, for tests that look at what is really there."""
        with self._lock:
            self._from_folder()
            return {name: self.storage.get_file(bucket, name) for name in self.storage.objects.get(bucket, {})}

    def make(self, bucket: str, location: str) -> None:
        """One of another project."""
        (self.folder / bucket).mkdir()
        self.storage.create_bucket(bucket, {"name": bucket, "location": location, "projectNumber": "1"})

    def exists(self, bucket: str) -> bool:
        return bucket in self.storage.buckets

    def sync(self) -> None:
        with self._lock:
            self._from_folder()

    def _keep_settings(self, asked: dict) -> None:
        """Where a new bucket is and who may see it, which the emulator does not keep."""
        told = {"location": asked["location"].upper(), "iamConfiguration": asked["iamConfiguration"]}
        self.storage.buckets[asked["name"]] |= told

    def _check(self, request: Request) -> None:
        """ifGenerationMatch, which the emulator does not know."""
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        wanted = query.get("ifGenerationMatch")
        if wanted is None or "upload_id" in query or request.method == "GET":
            return
        match = REWRITE.fullmatch(parts.path) or OBJECT.fullmatch(parts.path) or UPLOAD.fullmatch(parts.path)
        name = query["name"][0] if "name" in query else unquote(match.groupdict().get("name") or _named(request))
        found = self.storage.objects.get(match["bucket"], {}).get(name)
        if str(found["generation"] if found else 0) != wanted[0]:
            message = "At least one of the pre-conditions you specified did not hold."
            raise Refused(412, "FAILED_PRECONDITION", message)

    def _from_folder(self) -> None:
        there: set[tuple[str, str]] = set()
        for bucket in self.storage.buckets:
            root = self.folder / bucket
            for path in root.rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # the training moved it in this moment
                    if path.is_file():
                        key = (bucket, str(path.relative_to(root)))
                        there.add(key)
                        self._take(path, key)
        for bucket, name in self._synced.keys() - there:
            del self._synced[bucket, name]
            if name in self.storage.objects.get(bucket, {}):
                self.storage.delete_file(bucket, name)

    def _take(self, path: Path, key: tuple[str, str]) -> None:
        state = _state(path)
        if self._synced.get(key, (None,))[0] == state:
            return
        content = path.read_bytes()
        made = _make_object_resource("", *key, "application/octet-stream", str(len(content)))
        self.storage.create_file(*key, content, _checksums(content, made))
        self._synced[key] = (state, made["generation"])

    def _to_folder(self) -> None:
        for bucket in self.storage.buckets:
            (self.folder / bucket).mkdir(exist_ok=True)
            objects = self.storage.objects.get(bucket, {})
            for name, told in list(objects.items()):
                if self._synced.get((bucket, name), (None, None))[1] != told["generation"]:
                    path = self.folder / bucket / name
                    if ".." in Path(name).parts:  # a test's evil name, which no machine shall see
                        continue
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(self.storage.get_file(bucket, name))
                    self._synced[bucket, name] = (_state(path), told["generation"])
        for bucket, name in list(self._synced):
            if name not in self.storage.objects.get(bucket, {}):
                del self._synced[bucket, name]
                (self.folder / bucket / name).unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino


def _carried(request: Request) -> int:
    """Bytes of a file's content that an upload carries; a multipart one has a JSON part beside."""
    if "uploadType=resumable" in request.path and request.method == "POST":
        return 0
    return len(request.body)


def _named(request: Request) -> str:
    """The name in a multipart upload's JSON part."""
    match = re.search(rb'"name": ?"((?:[^"\\]|\\.)*)"', request.body)
    return match[1].decode()
