"""Folders of a machine and prefixes of a bucket, copied as the service does it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit


def split_uri(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


class Bucket:
    """A prefix of a bucket; `put` takes it for the key itself."""

    def __init__(self, s3, bucket: str, prefix: str, may: Callable[[str, str], None]) -> None:
        """``may`` is asked with action and resource before anything is done, and raises where it is not allowed."""
        self.s3, self.bucket, self.prefix, self.may = s3, bucket, prefix, may

    def _arn(self, key: str) -> str:
        return f"arn:aws:s3:::{self.bucket}/{key}"

    def fetch(self, folder: Path) -> int:
        """Copy all below the prefix into the folder; the number of files. A prefix is one of names, not of folders."""
        folder.mkdir(parents=True, exist_ok=True)
        keys = self._keys()
        for key in keys:
            inner = key[len(self.prefix) :].lstrip("/") or key.rpartition("/")[2]
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            self.may("s3:GetObject", self._arn(key))
            self.s3.download_file(self.bucket, key, str(target))
        return len(keys)

    def mirror(self, folder: Path, delete: bool) -> None:
        """Make the prefix what the folder is."""
        there = self._keys()
        prefix = self.prefix.rstrip("/")
        here = {}
        for path in folder.rglob("*"):
            if path.is_file():
                here[f"{prefix}/{path.relative_to(folder)}"] = path
        for key, path in here.items():
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # the training moved it in this moment
                continue
            if there.get(key) != hashlib.md5(content).hexdigest():
                self.may("s3:PutObject", self._arn(key))
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        if delete:
            for key in there.keys() - here.keys():
                self.may("s3:DeleteObject", self._arn(key))
                self.s3.delete_object(Bucket=self.bucket, Key=key)

    def put(self, path: Path) -> None:
        self.may("s3:PutObject", self._arn(self.prefix))
        self.s3.upload_file(str(path), self.bucket, self.prefix)

    def _keys(self) -> dict[str, str]:
        self.may("s3:ListBucket", f"arn:aws:s3:::{self.bucket}")
        found = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix):
            found |= {each["Key"]: each["ETag"].strip('"') for each in page.get("Contents", [])}
        return found
