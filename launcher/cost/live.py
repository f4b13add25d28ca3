"""Asks the live price sources, one adapter each; what fails leaves the prices before as they were, and is told.

Only the standard library is needed: HTTPS_PROXY, SSL_CERT_FILE and NO_PROXY hold. Every row goes through the same
checks as the bundled ones (`backends.prices.check`), against the row before it.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends import prices
from backends.prices import Price

TIMEOUT = 60.0
TRIES = 5
LONGEST_PAUSE = 30.0
"""Seconds that a throttled source may make us wait each time."""


class SourceError(Exception):
    """A price source that gave nothing usable; the message says what happened."""


@dataclass
class Outcome:
    """What one source gave."""

    source: str
    prices: list[Price] = field(default_factory=list)
    error: str = ""
    """Why it gave nothing; empty if it did."""
    complaints: list[str] = field(default_factory=list)
    """Rows that were not believed."""
    vanished: list[str] = field(default_factory=list)
    """Machines that had a price and are in the source no more: their old price stays, with its old date."""


Fetch = Callable[[str], Iterable[Price]]
"""Gives the prices of a region. Raises SourceError."""


def get_json(url: str, headers: Mapping[str, str] | None = None, pause: Callable[[float], None] = time.sleep) -> Any:
    """Fetch a JSON document; throttling and broken answers are tried again, a few times.

    Raises SourceError with what the source said last.
    """
    said = ""
    for attempt in range(TRIES):
        wait = min(LONGEST_PAUSE, 0.5 * 2**attempt)
        try:
            request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310  # https, below
            if not url.startswith("https://"):
                raise SourceError(f"{_shown(url)} is not https")
            # An opener of its own: urllib keeps the proxies of a process's first call for all later ones.
            with urllib.request.build_opener().open(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code}"
            if error.code not in (408, 429) and error.code < 500:
                raise SourceError(f"{_shown(url)} answered {said}") from error
            wait = min(LONGEST_PAUSE, _retry_after(error.headers.get("Retry-After"), wait))
        except json.JSONDecodeError as error:
            said = f"JSON that breaks off or is none ({error.msg})"
        except (OSError, http.client.HTTPException) as error:
            said = f"{error or type(error).__name__}"
        if attempt + 1 < TRIES:
            pause(wait)
    raise SourceError(f"{_shown(url)} gave nothing usable in {TRIES} tries: {said}")


def refresh(source: str, place: str, region: str, fetch: Fetch) -> Outcome:
    """Ask one source, keep what is believed of it; a source that gives nothing usable changes nothing."""
    outcome = Outcome(source)
    known = prices.listed().prices
    before = {key: price for key, price in known.items() if key[0] == place and key[1] in (region, "")}
    try:
        found = list(fetch(region))
    except SourceError as error:
        outcome.error = str(error)
        return outcome
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        outcome.error = f"{source} answered in a shape that is not known here ({type(error).__name__}: {error})"
        return outcome
    for price in found:
        wrong = prices.check(price, before.get(price.key))
        if wrong:
            outcome.complaints.append(wrong)
        else:
            outcome.prices.append(price)
    if not outcome.prices:
        outcome.error = f"{source} named none of the machines that are known here in {region}"
        return outcome
    now = {price.key for price in outcome.prices}
    lists = place != "colab"  # which tells of the one machine that is assigned
    gone = [key for key, price in before.items() if lists and key not in now and price.usd_per_hour is not None]
    outcome.vanished = sorted(key[2] for key in gone)
    prices.write_live((prices.read_live() | {price.key: price for price in outcome.prices}).values())
    return outcome


def pages(url: str, following: Callable[[Any], str | None], headers: Mapping[str, str] | None = None) -> Iterable[Any]:
    """The documents of a paged answer; a page that is asked for twice ends it."""
    seen: set[str] = set()
    there: str | None = url
    while there and there not in seen:
        seen.add(there)
        document = get_json(there, headers)
        yield document
        there = following(document)


def _retry_after(text: str | None, otherwise: float) -> float:
    return float(text) if text and text.strip().isdigit() else otherwise


def _shown(url: str) -> str:
    """An address without what may be a key in its query."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
