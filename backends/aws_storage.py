"""Files in S3: sent by content, fetched so that a broken transfer goes on, archives unpacked safely."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from backends import transfer
from backends.aws_calls import AwsError, call, pages
from backends.interface import BackendError, Json
from backends.staged_files import require_unchanged

PART = 1 << 20
ARCHIVE = ".model.tar.gz.{}.part"
"""An archive while it is being fetched, in the target folder; its ETag tells it from that of another run."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` address."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


class Store:
    """One bucket below one prefix."""

    def __init__(self, s3: Any, uri: str) -> None:
        """``uri`` is the ``s3://`` address of a folder; ``s3`` boto3's client."""
        self.s3 = s3
        self.bucket, self.prefix = split_uri(uri.rstrip("/"))

    def send_files(self, pool: str, inputs: Mapping[str, str], files: Mapping[str, Path]) -> None:
        """Lay files here under their names. The bytes of each content go over the wire once for ever: to
        ``pool/SHA256`` in the same bucket; from there S3 itself copies.

        Raises BackendError for a file that is no longer what ``inputs`` says.
        """
        for name, digest in sorted(inputs.items()):
            key = f"{self.prefix}/{name}"
            if self.size(key) is not None:
                continue
            kept = f"{pool}/{digest}"
            if self.size(kept) is None:
                self._send(files[name], digest, kept)
            source = {"Bucket": self.bucket, "Key": kept}
            call(self.s3.copy, source, self.bucket, key)

    def send_text(self, name: str, text: str) -> None:
        """Put a small file here, unless it is there with this very content."""
        content = text.encode()
        told = {"sha256": hashlib.sha256(content).hexdigest()}
        key = f"{self.prefix}/{name}"
        if self._head(key).get("Metadata") != told:
            call(self.s3.put_object, Bucket=self.bucket, Key=key, Body=content, Metadata=told)

    def size(self, key: str) -> int | None:
        """Bytes of an object; None if it is not there."""
        found = self._head(key)
        return int(found["ContentLength"]) if found else None

    def keys(self) -> dict[str, int]:
        """Bytes by key of all objects below the prefix."""
        return {str(each["Key"]): int(each["Size"]) for each in self._listed()}

    def fetch(self, into: Path) -> int:
        """Copy all below the prefix into the folder. The number of files.

        Files that are there with the same content stay, as far as S3 tells it: of what was sent in several parts, or
        is encrypted with a KMS key, it keeps no checksum of the content.
        """
        listed = list(self._listed())
        for each in listed:
            key = str(each["Key"])
            inner = PurePosixPath(key[len(self.prefix) + 1 :])
            if inner.is_absolute() or ".." in inner.parts:
                raise BackendError(f"the bucket holds a file with the name {key!r}", hint="remove it by hand")
            target = into / inner
            if _is_there(target, each):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".part")
            call(self.s3.download_file, self.bucket, key, str(partial))
            partial.replace(target)
        return len(listed)

    def delete(self) -> None:
        """Remove all below the prefix."""
        keys = [{"Key": key} for key in self.keys()]
        for start in range(0, len(keys), 1000):
            batch = {"Objects": keys[start : start + 1000], "Quiet": True}
            call(self.s3.delete_objects, Bucket=self.bucket, Delete=batch)

    def _listed(self) -> Iterator[Json]:
        where = {"Bucket": self.bucket, "Prefix": f"{self.prefix}/"}
        return pages(self.s3.list_objects_v2, "Contents", "NextContinuationToken", **where)

    def _head(self, key: str) -> Json:
        try:
            head: Json = call(self.s3.head_object, Bucket=self.bucket, Key=key)
        except AwsError as error:
            if error.code in ("404", "NoSuchKey", "NotFound"):
                return {}
            raise
        return head

    def _send(self, path: Path, digest: str, key: str) -> None:
        require_unchanged(path, digest)
        with transfer.of_file(path):
            call(self.s3.upload_file, str(path), self.bucket, key)


def fetch_archive(s3: Any, uri: str, into: Path) -> None:
    """Fetch a tar.gz and unpack it into the folder, going on where an earlier call broke off.

    Only plain files and folders that stay inside the folder are unpacked (PEP 706's data filter). Raises BackendError
    for an archive that holds anything else, or is broken.
    """
    bucket, key = split_uri(uri)
    head: Json = call(s3.head_object, Bucket=bucket, Key=key)
    archive = into / ARCHIVE.format(head["ETag"].strip('"'))
    for other in set(into.glob(ARCHIVE.format("*"))) - {archive}:
        other.unlink()
    while (there := archive.stat().st_size if archive.exists() else 0) < head["ContentLength"]:
        condition = {"Bucket": bucket, "Key": key, "IfMatch": head["ETag"], "Range": f"bytes={there}-"}
        _append(call(s3.get_object, **condition)["Body"], archive)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in _plain(tar):
                tar.extract(member, into, filter="data")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise BackendError(
            f"the archive {uri} cannot be unpacked: {error}", hint="look at it before you use it"
        ) from error
    finally:
        archive.unlink(missing_ok=True)


def _is_there(target: Path, listed: Json) -> bool:
    """Whether the file has the object's content by its ETag, which is the MD5 of what was sent in one part."""
    if not target.is_file() or target.stat().st_size != listed["Size"]:
        return False
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return digest == str(listed["ETag"]).strip('"')


def _plain(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name} is neither a file nor a folder")
        yield member


def _append(body: Any, archive: Path) -> None:
    """Take what comes; a connection that breaks off leaves the rest to the next request."""
    from botocore.exceptions import BotoCoreError

    try:
        with archive.open("ab") as file:
            shutil.copyfileobj(body, file, PART)
    except BotoCoreError:
        return
