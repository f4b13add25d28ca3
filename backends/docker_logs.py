"""Reads a container's log on from a cursor, over restarts of container, engine and reader.

A cursor is ``SECOND:COUNT``: since that second COUNT lines have been given. The second lies a minute before the last
line, because the two output streams may be recorded a little out of order; the engine filters by it, we skip by count,
so that no line is lost or repeated where many bear one time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from backends.docker_engine import errors
from backends.interface import BackendError, Cursor, LogLine
from backends.secret_values import Secrets, mask

BACK = 60
"""Seconds that a reader looks back behind the newest line."""
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z ")
_CURSOR = re.compile(r"(\d+):(\d+)")


def read(api: Any, container: str, after: Cursor | None, secrets: Secrets) -> Iterator[LogLine]:
    """Give the lines after the cursor that are there now, secrets masked and redrawn bars left out."""
    since, skip = _parse(after)
    place = _Place(since)
    for second, raw in _lines(api, container, since):
        cursor = place.advance(second)
        if skip > 0:
            skip -= 1
            continue
        text = raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
        yield LogLine(text=mask(text, secrets), cursor=cursor)


class _Place:
    """Where a reader stands."""

    def __init__(self, since: int) -> None:
        self._base = since
        self._newest = since
        self._counts: Counter[int] = Counter()
        self._mixed: set[int] = set()
        """Seconds that do not part the lines before them from those after them."""

    def advance(self, second: int) -> Cursor:
        """Count a line of that second; the cursor behind it."""
        self._counts[second] += 1
        self._mixed.update(range(second + 1, self._newest + 1))
        self._newest = max(self._newest, second)
        base = self._newest - BACK
        while base in self._mixed:
            base -= 1
        if base > self._base:
            self._base = base
            for gone in [each for each in self._counts if each < base]:
                del self._counts[gone]
        return f"{self._base}:{self._counts.total()}"


def _parse(cursor: Cursor | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BackendError(f"{cursor!r} is no cursor of this backend", hint="read the log from its beginning")
    return int(match[1]), int(match[2])


def _lines(api: Any, container: str, since: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines with the second of their record; a line that is not finished yet is left for the next reader."""
    line, second = b"", 0
    with errors():
        for frame in api.logs(
            container, stdout=True, stderr=True, timestamps=True, stream=True, follow=False, since=since or None
        ):
            match = _STAMP.match(frame)
            if match:
                second = int(datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp())
                frame = frame[match.end() :]
            line += frame
            if line.endswith(b"\n"):
                yield second, line
                line = b""
