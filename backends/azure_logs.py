"""Lines of a job's log files in the workspace's storage, with a cursor.

A file is one process's output in one start. A cursor holds for each file when it was made and how many of its bytes
were read; a file that was made anew, by a start after a preemption, is read from its beginning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backends.azure_calls import AzureError, patience, translated
from backends.interface import BackendError, Cursor, LogLine

FOLDER = "user_logs/"
"""What the job itself prints; the folder beside it holds Azure ML's own words."""
PIECE = 4 << 20


class Place(NamedTuple):
    """How far a file was read."""

    made: int
    """Unix seconds at which the file was made."""
    read: int
    """Bytes."""


def lines(runs: Mapping[str, Mapping[str, str]], ended: bool, after: Cursor | None) -> Iterator[LogLine]:
    """The lines that are there now, file by file, after the cursor.

    ``runs`` has for each start the addresses of its log files by name; a last line without an end is given only where
    the job has ended.
    """
    position = _read(after)
    for run, files in runs.items():
        for name in sorted(each for each in files if each.startswith(FOLDER)):
            key = f"{run}/{name}"
            source = name.removeprefix(FOLDER).rpartition(".")[0]
            for place, text in _lines(files[name], position.get(key), ended):
                position[key] = place
                yield LogLine(text=text, cursor=_write(position), source=source)


def _lines(url: str, before: Place | None, ended: bool) -> Iterator[tuple[Place, str]]:
    from azure.storage.blob import BlobClient

    blob = BlobClient.from_blob_url(url, retry_policy=patience())
    try:
        with translated():
            told = blob.get_blob_properties()
    except AzureError as error:
        if error.status == 404:  # named before it has its first line
            return
        raise
    made, size = int(told.creation_time.timestamp()), int(told.size)
    read = before.read if before is not None and before.made == made and before.read <= size else 0
    rest = b""
    while read + len(rest) < size:
        with translated():
            begin = read + len(rest)
            rest += bytes(blob.download_blob(offset=begin, length=min(PIECE, size - begin)).readall())
        *whole, rest = rest.split(b"\n")
        for line in whole:
            read += len(line) + 1
            yield Place(made, read), _text(line)
    if rest and ended:
        yield Place(made, read + len(rest)), _text(rest)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r").replace("\r", " ")


def _read(cursor: Cursor | None) -> dict[str, Place]:
    try:
        return {str(key): Place(int(place[0]), int(place[1])) for key, place in json.loads(cursor or "{}").items()}
    except (ValueError, AttributeError, IndexError, TypeError) as error:
        raise BackendError(f"{cursor!r} is no cursor of this place", hint="read the log from its beginning") from error


def _write(position: dict[str, Any]) -> Cursor:
    return json.dumps(position, separators=(",", ":"), sort_keys=True)
