"""Lines from Cloud Logging, over all machines and lives of a job, with a cursor.

A cursor holds for each machine the time and id of its last line that was read: the service's own page tokens are bound
to one query, a cursor is not. Within one machine the service gives the lines in the order of time, and of id within the
same moment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from backends.google_calls import Account, pages
from backends.interface import BackendError, Cursor, Json, LogLine

ADDRESS = "https://logging.googleapis.com/v2/entries:list"
PAGE = 1000
"""Most entries that the service gives at once."""
EPOCH = "1970-01-01T00:00:00.000000000Z"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")

Place = tuple[str, str]
"""Time and id of an entry; sorts as the service sorts."""


def lines(account: Account, query: str, source: str, after: Cursor | None) -> Iterator[LogLine]:
    """The lines that are there now, in the order of time, after the cursor.

    ``query`` is in Logging's own language; ``source`` names the resource label that tells the machines apart.
    """
    position = _read(after)
    body = {
        "resourceNames": [f"projects/{account.project}"],
        "filter": f"{query} AND {_behind(position, source)}",
        "orderBy": "timestamp asc",
        "pageSize": PAGE,
    }
    for entry in pages(account, ADDRESS, "entries", body):
        machine = str(entry.get("resource", {}).get("labels", {}).get(source, ""))
        place = (_comparable(str(entry["timestamp"])), str(entry["insertId"]))
        if place <= position.get(machine, ("", "")):
            continue
        position[machine] = place
        yield LogLine(text=_text(entry), cursor=_write(position), source=machine)


def _behind(position: dict[str, Place], source: str) -> str:
    """The query for what may be new. Each machine is asked from its own last line on: one that spoke once, in the
    beginning, must not have all lines of the others sent at every look."""
    label, since = f"resource.labels.{source}", min((place[0] for place in position.values()), default=EPOCH)
    whole = f'timestamp>="{since}"'
    if not position:
        return whole
    known = {machine: json.dumps(machine) for machine in sorted(position)}
    each = [f'({label}={name} AND timestamp>="{position[machine][0]}")' for machine, name in known.items()]
    return f"{whole} AND ({' OR '.join(each)} OR NOT {label}=({' OR '.join(known.values())}))"


def _text(entry: Json) -> str:
    """Plain lines come as they were printed; a line that is a JSON object comes taken apart."""
    if "textPayload" in entry:
        return str(entry["textPayload"]).rstrip("\r\n").replace("\n", " ")
    payload = entry.get("jsonPayload", {})
    text = payload["message"] if isinstance(payload.get("message"), str) else json.dumps(payload, ensure_ascii=False)
    return str(text).rstrip("\r\n").replace("\n", " ")


def _comparable(timestamp: str) -> str:
    """A time with all nine digits, so that texts sort as times do."""
    match = _TIME.fullmatch(timestamp)
    if match is None:
        raise BackendError(f"Cloud Logging gave the time {timestamp!r}", hint="please report this")
    return f"{match[1]}.{(match[2] or '').ljust(9, '0')}Z"


def _read(cursor: Cursor | None) -> dict[str, Place]:
    try:
        told = json.loads(cursor or "{}")
        return {str(machine): (_comparable(place[0]), str(place[1])) for machine, place in told.items()}
    except (ValueError, AttributeError, IndexError, TypeError, BackendError) as error:
        raise BackendError(f"{cursor!r} is no cursor of this place", hint="read the log from its beginning") from error


def _write(position: dict[str, Place]) -> Cursor:
    return json.dumps(position, separators=(",", ":"), sort_keys=True)
