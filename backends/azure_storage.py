"""Files in a blob container: sent by content, fetched so that a broken transfer goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from backends import transfer
from backends.azure_calls import translated
from backends.interface import BackendError
from backends.staged_files import require_unchanged

DIGEST = "sha256"
"""The key of a blob's metadata under which we keep its content's digest."""


def path_in_datastore(uri: str) -> tuple[str, str]:
    """Datastore and path of an ``azureml://datastores/NAME/paths/PATH`` address, short or with its workspace."""
    parts = urlsplit(uri)
    place = f"{parts.netloc}{parts.path}".partition("datastores/")[2]
    name, _, path = place.partition("/paths/")
    return name, path.strip("/")


class Store:
    """One container below one prefix."""

    def __init__(self, container: Any, prefix: str) -> None:
        """``container`` is azure-storage-blob's ContainerClient."""
        self.container, self.prefix = container, prefix

    def send_files(self, pool: str, inputs: Mapping[str, str], files: Mapping[str, Path]) -> None:
        """Lay files here under their names. The bytes of each content go over the wire once for ever: to
        ``pool/SHA256`` in the same container; from there the service itself copies.

        Raises BackendError for a file that is no longer what ``inputs`` says.
        """
        there = self._names()
        for name, digest in sorted(inputs.items()):
            if f"{self.prefix}/{name}" in there:
                continue
            kept = self.container.get_blob_client(f"{pool}/{digest}")
            with translated():
                if not kept.exists():
                    self._send(files[name], digest, kept)
            self._copy(kept, f"{self.prefix}/{name}")

    def send_text(self, name: str, text: str) -> None:
        """Put a small file here, unless it is there with this very content."""
        content = text.encode()
        told = hashlib.sha256(content).hexdigest()
        blob = self.container.get_blob_client(f"{self.prefix}/{name}")
        with translated():
            if not (blob.exists() and blob.get_blob_properties().metadata.get(DIGEST) == told):
                blob.upload_blob(content, overwrite=True, metadata={DIGEST: told})

    def fetch(self, into: Path) -> int:
        """Copy all below the prefix into the folder; files that are there with the same content stay. The number."""
        with translated():
            blobs = [each for each in self.container.list_blobs(f"{self.prefix}/") if not _is_folder(each)]
        for blob in blobs:
            inner = PurePosixPath(blob.name[len(self.prefix) + 1 :])
            if inner.is_absolute() or ".." in inner.parts:
                raise BackendError(f"the container holds a file with the name {blob.name!r}", hint="remove it by hand")
            target = into / inner
            if not _is_there(target, blob):
                self._fetch(blob, target)
        return len(blobs)

    def delete(self) -> None:
        """Remove all below the prefix."""
        with translated():
            # folders of an account with a hierarchical namespace go when they are empty: the deepest first
            for name in sorted(self._names(), key=len, reverse=True):
                self.container.delete_blob(name)

    def _names(self) -> set[str]:
        with translated():
            return set(self.container.list_blob_names(name_starts_with=f"{self.prefix}/"))

    def _fetch(self, blob: Any, target: Path) -> None:
        """By the piece into a file beside it, which a later call goes on with."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{blob.etag.strip(chr(34))}.part")
        there = partial.stat().st_size if partial.exists() else 0
        with translated(), partial.open("ab") as file:
            if there < blob.size:
                self.container.download_blob(blob.name, offset=there, etag=blob.etag, match_condition=_same()).readinto(
                    file
                )
        partial.replace(target)

    def _send(self, path: Path, digest: str, blob: Any) -> None:
        require_unchanged(path, digest)
        with transfer.of_file(path), path.open("rb") as file:
            blob.upload_blob(file, overwrite=True, metadata={DIGEST: digest})

    def _copy(self, kept: Any, name: str) -> None:
        """Inside one account the service copies without us; a large file takes it some time."""
        blob = self.container.get_blob_client(name)
        with translated():
            state = blob.start_copy_from_url(kept.url)["copy_status"]
            while state == "pending":
                time.sleep(0.5)
                state = blob.get_blob_properties().copy.status
        if state != "success":
            raise BackendError(f"the storage account did not copy {name}: {state}", hint="run the command again")


def _same() -> Any:
    from azure.core import MatchConditions

    return MatchConditions.IfNotModified


def _is_folder(blob: Any) -> bool:
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def _is_there(target: Path, blob: Any) -> bool:
    """Whether the file is the blob's content, as far as the service keeps a checksum of it."""
    kept = blob.content_settings.content_md5
    if kept is None or not target.is_file() or target.stat().st_size != blob.size:
        return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest() == bytes(kept)
