"""Lines from CloudWatch Logs, over all streams of a job, with a cursor.

A stream is one machine's output in one life. A cursor holds for each stream the time of its last line that was read and
how many lines of that millisecond were: the service's own page tokens expire after a day, a cursor does not.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from backends.aws_calls import AwsError, call, pages
from backends.interface import BackendError, Cursor, Json, LogLine

PAGE = 10_000
"""Most events that the service gives at once."""


class Event(NamedTuple):
    """One line where it stands."""

    timestamp: int
    """Unix milliseconds."""
    stream: str
    seen: int
    """How many lines of this stream have this timestamp, this one included."""
    message: str


def lines(logs: Any, group: str, prefixes: list[str], after: Cursor | None) -> Iterator[LogLine]:
    """The lines that are there now in the streams that begin so, in the order of time, after the cursor."""
    position = _read(after)
    streams = [stream for prefix in prefixes for stream in _streams(logs, group, prefix)]
    readers = [_events(logs, group, stream, *position.get(stream, (0, 0))) for stream in streams]
    for event in heapq.merge(*readers):
        position[event.stream] = (event.timestamp, event.seen)
        text = event.message.rstrip("\r\n").replace("\n", " ")
        yield LogLine(text=text, cursor=_write(position), source=event.stream.rpartition("/")[2].rpartition("-")[0])


def _streams(logs: Any, group: str, prefix: str) -> list[str]:
    found: Iterator[Json] = pages(
        logs.describe_log_streams, "logStreams", "nextToken", logGroupName=group, logStreamNamePrefix=prefix
    )
    try:
        return sorted(str(stream["logStreamName"]) for stream in found)
    except AwsError as error:
        if error.code == "ResourceNotFoundException":  # the account's first job has not begun to print
            return []
        raise


def _events(logs: Any, group: str, stream: str, since: int, skip: int) -> Iterator[Event]:
    """The events from ``since`` on, without the first ``skip`` of that very millisecond."""
    timestamp, seen = -1, 0
    for event in _pages(logs, group, stream, since):
        now = int(event["timestamp"])
        seen = seen + 1 if now == timestamp else 1
        timestamp = now
        if (now, seen) > (since, skip):
            yield Event(now, stream, seen, str(event["message"]))


def _pages(logs: Any, group: str, stream: str, since: int) -> Iterator[Json]:
    token: str | None = None
    while True:
        more = {} if token is None else {"nextToken": token}
        answer = call(
            logs.get_log_events,
            logGroupName=group,
            logStreamName=stream,
            startTime=since,
            startFromHead=True,
            limit=PAGE,
            **more,
        )
        yield from answer["events"]
        if answer["nextForwardToken"] == token:  # the service's sign of the end; a page may be empty before it
            return
        token = str(answer["nextForwardToken"])


def _read(cursor: Cursor | None) -> dict[str, tuple[int, int]]:
    try:
        return {str(stream): (int(place[0]), int(place[1])) for stream, place in json.loads(cursor or "{}").items()}
    except (ValueError, AttributeError, IndexError, TypeError) as error:
        raise BackendError(f"{cursor!r} is no cursor of this place", hint="read the log from its beginning") from error


def _write(position: dict[str, tuple[int, int]]) -> Cursor:
    return json.dumps(position, separators=(",", ":"), sort_keys=True)
