"""Files in Cloud Storage: sent by content, fetched with their checksums, and a claim that only one launcher gets."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from backends import transfer
from backends.google_calls import Account, GoogleError, call
from backends.interface import BackendError, Reason
from backends.staged_files import require_unchanged

TAKE_OWN = "name a bucket of your own: the option bucket"
SERVICE = "storage.googleapis.com"
FAILED_PRECONDITION = 412
NOT_FOUND = 404


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and name of a ``gs://`` address."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.strip("/")


def mounted(uri: str) -> str:
    """Where a ``gs://`` address lies in Vertex AI's containers."""
    return uri.replace("gs://", "/gcs/", 1)


class Store:
    """One bucket below one prefix."""

    def __init__(self, account: Account, uri: str) -> None:
        """``uri``: the ``gs://`` address of a folder."""
        name, self.prefix = split_uri(uri)
        self.bucket = account.bucket(name)

    def send_files(self, pool: str, inputs: Mapping[str, str], files: Mapping[str, Path]) -> None:
        """Lay files here under their names. The bytes of each content go over the wire once for ever: to
        ``pool/SHA256`` in the same bucket; from there the service itself copies.

        Raises BackendError for a file that is no longer what ``inputs`` says.
        """
        for name, digest in sorted(inputs.items()):
            target = self._blob(name)
            if self._there(target):
                continue
            kept = self.bucket.blob(f"{pool}/{digest}")
            if not self._there(kept):
                _send(files[name], digest, kept)
            token = None
            while True:  # a large object takes more than one call
                token, _, _ = call(target.rewrite, kept, token=token)
                if token is None:
                    break

    def send_text(self, name: str, text: str) -> None:
        """Put a small file here, unless it is there with this very content."""
        content = text.encode()
        there = call(self.bucket.get_blob, f"{self.prefix}/{name}")
        if there is None or there.md5_hash != _base64(hashlib.md5(content, usedforsecurity=False)):
            call(self._blob(name).upload_from_string, content, checksum="crc32c")

    def text(self, name: str) -> str | None:
        """A small file's content; None if there is none."""
        try:
            return bytes(call(self._blob(name).download_as_bytes, checksum="auto")).decode()
        except GoogleError as error:
            if error.code != NOT_FOUND:
                raise
            return None

    def create(self, name: str) -> bool:
        """Make a file; False where it is there already. Of several callers one gets True, by content of its own: it
        is told apart from the others also where the answer was lost and the call made again."""
        own = secrets.token_hex(8)
        try:
            call(self._blob(name).upload_from_string, own, if_generation_match=0)
        except GoogleError as error:
            if error.code != FAILED_PRECONDITION:
                raise
            return self.text(name) == own
        return True

    def remove(self, name: str) -> None:
        """Take a file away; none is no error."""
        try:
            call(self._blob(name).delete)
        except GoogleError as error:
            if error.code != NOT_FOUND:
                raise

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return self._there(self._blob(name))

    def names(self) -> list[str]:
        """Names below the prefix of all objects there; folders' own placeholders are none."""
        found = call(lambda: list(self.bucket.client.list_blobs(self.bucket, prefix=f"{self.prefix}/")))
        return sorted(each.name[len(self.prefix) + 1 :] for each in found if not each.name.endswith("/"))

    def fetch(self, into: Path) -> int:
        """Copy all below the prefix into the folder, each checked against the service's checksum; files that are there
        with the same content stay. The number of files."""
        names = self.names()
        for name in names:
            inner = PurePosixPath(name)
            if inner.is_absolute() or ".." in inner.parts:
                raise BackendError(f"the bucket holds a file with the name {name!r}", hint="remove it by hand")
            self._fetch(name, into / inner)
        return len(names)

    def delete(self) -> None:
        """Remove all below the prefix."""
        for name in self.names():
            self.remove(name)

    def _fetch(self, name: str, target: Path) -> None:
        blob = call(self.bucket.get_blob, f"{self.prefix}/{name}")
        if blob is None:
            raise BackendError(f"{name} was removed from the bucket while it was fetched", hint="fetch again")
        if target.is_file() and blob.md5_hash and _md5(target) == blob.md5_hash:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        # Not through the listed blob: its media link may lead past a proxy.
        call(self._blob(name).download_to_filename, str(partial), checksum="auto")
        partial.replace(target)

    def _blob(self, name: str) -> Any:
        return self.bucket.blob(f"{self.prefix}/{name}")

    @staticmethod
    def _there(blob: Any) -> bool:
        return bool(call(blob.exists))


def make_bucket(account: Account, name: str) -> bool:
    """Make the bucket in the account's region unless it is there; whether it was made.

    Access is by the project's roles alone and never public; a second one of that name, anybody's, is an error. One that
    is there has to be the project's: the name can be foretold, and whoever took it first would get the data.
    """
    bucket = account.bucket(name)
    if call(bucket.exists):
        if not is_own(account, name):
            raise BackendError(strange(account, name), hint=TAKE_OWN, reason=Reason.CREDENTIALS)
        return False
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    call(bucket.create, location=account.region)
    return True


def is_own(account: Account, name: str) -> bool:
    """Whether the bucket belongs to the project. Raises BackendError where that cannot be told."""
    found = call(account.bucket(name).client.lookup_bucket, name)
    return found is not None and str(found.project_number) == _project_number(account, name)


def strange(account: Account, name: str) -> str:
    """What to say of a bucket that is not the project's."""
    return f"the bucket {name} belongs to another project than {account.project}: no data is sent there"


def _project_number(account: Account, bucket: str) -> str:
    """The number by which buckets name their project; Service Usage tells it with every service."""
    parent = f"projects/{account.project}"
    address = f"https://serviceusage.googleapis.com/v1/{parent}/services:batchGet"
    try:
        told = account.rest("GET", address, names=[f"{parent}/services/{SERVICE}"])
    except GoogleError as error:
        message = f"whose the bucket {bucket} is cannot be told: {error.message}"
        raise BackendError(message, hint=f"{error.hint}, or name another bucket: the option bucket") from error
    return str(told["services"][0]["name"]).split("/")[1]


def location(account: Account, name: str) -> str | None:
    """Where the bucket is, in capitals (``US-CENTRAL1``, ``US``); None if there is none."""
    found = call(account.bucket(name).client.lookup_bucket, name)
    return None if found is None else str(found.location).upper()


def _send(path: Path, digest: str, blob: Any) -> None:
    require_unchanged(path, digest)
    with transfer.of_file(path):
        call(blob.upload_from_filename, str(path), content_type="application/octet-stream", checksum="crc32c")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return _base64(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)))


def _base64(digest: Any) -> str:
    return base64.b64encode(digest.digest()).decode()
