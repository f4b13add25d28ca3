"""Where on Google Cloud jobs may be: the projects and regions that were submitted to from here, beside the default."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator

from backends.google_calls import Account
from backends.home import data_home
from backends.interface import BackendError, Handle


def in_every_place(backend: str, region: str, look: Callable[[Account], Iterable[Handle]]) -> Iterator[Handle]:
    """What ``look`` finds in the credentials' project in this region, and wherever a job of the backend was submitted
    from here, by the notes that its submit leaves.

    Raises BackendError behind the last one where a place could not be asked: the others may have jobs all the same.
    """
    complaints: list[BackendError] = []
    for account in _accounts(backend, region):
        try:
            yield from look(account)
        except BackendError as error:
            complaints.append(error)
    if complaints:
        raise complaints[0]


def _accounts(backend: str, region: str) -> list[Account]:
    own = Account(None, region)
    places = [(own.default_project, region)] if own.default_project else []
    for note in sorted((data_home() / backend).glob("*.json")):
        with contextlib.suppress(ValueError, KeyError):  # a launcher was killed while it wrote
            told = json.loads(note.read_text())
            places.append((str(told["project"]), str(told["region"])))
    return [Account(*place) for place in dict.fromkeys(places)] or [own]
