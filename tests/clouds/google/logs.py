"""Cloud Logging: entries:list, with as much of its query language as is needed, and refusing the rest."""

import datetime
import json
import re
import secrets
import threading
import time
from collections.abc import Callable

from tests.clouds.gateway import Request, Response
from tests.clouds.google.answers import Refused, json_answer

TERM = re.compile(r"([a-z_.]+)\s*(=|>=)\s*(?:\"([^\"]*)\"|\(([^)]*)\))\s*")
WORD = re.compile(r"(AND|OR|NOT|\(|\))\s*")

Holds = Callable[[dict], bool]
FIELDS = {"resourceNames", "filter", "orderBy", "pageSize", "pageToken"}


class Logs:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.entries: list[dict] = []
        self.given = 0
        """How many entries were given out."""
        self._lock = threading.Lock()
        self._last = 0

    def write(self, job: str, task: str, line: str) -> None:
        """One line of a job's machine, as the service's agent takes it: a JSON object comes taken apart."""
        try:
            parsed = json.loads(line)
        except ValueError:
            parsed = None
        payload = {"jsonPayload": parsed} if isinstance(parsed, dict) else {"textPayload": line}
        with self._lock:
            self._last = max(time.time_ns(), self._last + 1)
            seconds, rest = divmod(self._last, 10**9)
            stamp = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
            labels = {"job_id": job, "task_name": task, "project_id": self.cloud.project}
            self.entries.append(
                {
                    "logName": f"projects/{self.cloud.project}/logs/{task}",
                    "resource": {"type": "ml_job", "labels": labels},
                    "timestamp": f"{stamp}.{rest:09d}".rstrip("0").rstrip(".") + "Z",
                    "insertId": secrets.token_hex(8),
                    "severity": "INFO",
                    **payload,
                }
            )

    def serve(self, request: Request) -> Response:
        asked = json.loads(request.body)
        if unknown := asked.keys() - FIELDS:
            raise Refused(400, "INVALID_ARGUMENT", f"Invalid JSON payload received. Unknown name {sorted(unknown)}")
        if asked.get("orderBy") != "timestamp asc" or asked["resourceNames"] != [f"projects/{self.cloud.project}"]:
            raise Refused(400, "INVALID_ARGUMENT", "only this project's entries in the order of time are served here")
        holds = Query(asked["filter"]).holds
        with self._lock:
            found = [entry for entry in self.entries if holds(entry)]
        start, size = int(asked.get("pageToken") or 0), min(asked.get("pageSize", 50), 1000)
        more = {"nextPageToken": str(start + size)} if start + size < len(found) else {}
        self.given += len(found[start : start + size])
        return json_answer({"entries": found[start : start + size], **more})


class Query:
    """A query of comparisons, NOT, OR and AND (which bind in this order), and brackets."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.holds = self._all()
        if self.at < len(text):
            raise self._unreadable()

    def _all(self) -> Holds:
        parts = [self._any()]
        while self._word("AND"):
            parts.append(self._any())
        return lambda entry: all(part(entry) for part in parts)

    def _any(self) -> Holds:
        parts = [self._one()]
        while self._word("OR"):
            parts.append(self._one())
        return lambda entry: any(part(entry) for part in parts)

    def _one(self) -> Holds:
        if self._word("NOT"):
            inner = self._one()
            return lambda entry: not inner(entry)
        if self._word("("):
            within = self._all()
            if not self._word(")"):
                raise self._unreadable()
            return within
        match = TERM.match(self.text, self.at)
        if match is None:
            raise self._unreadable()
        self.at = match.end()
        values = {match[3]} if match[3] is not None else set(re.findall(r'"([^"]*)"', match[4]))
        return lambda entry: _holds(entry, (match[1], match[2], values))

    def _word(self, wanted: str) -> bool:
        match = WORD.match(self.text, self.at)
        there = match is not None and match[1] == wanted
        if there:
            self.at = match.end()
        return there

    def _unreadable(self) -> Refused:
        return Refused(400, "INVALID_ARGUMENT", f"Unparseable filter: {self.text[self.at :]}")


def _holds(entry: dict, term: tuple[str, str, set[str]]) -> bool:
    name, operator, values = term
    value = entry
    for part in name.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    if operator == ">=":
        return _padded(value) >= _padded(next(iter(values)))
    return value in values


def _padded(stamp: str) -> str:
    whole, _, rest = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{rest.ljust(9, '0')}"
