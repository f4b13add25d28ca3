"""What is on its way to a place, told to whoever shows it: a launch that sends gigabytes is not silent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

Told = Callable[[str, int, int], None]
"""Takes what is being sent, the bytes that have been, and those that are known of in all (some come up on the way)."""

_told: ContextVar[Told | None] = ContextVar("told", default=None)


@contextlib.contextmanager
def shown_by(told: Told) -> Iterator[None]:
    """While this lasts, what the backends send is told to the function, in this thread."""
    before = _told.set(told)
    try:
        yield
    finally:
        _told.reset(before)


def tell(what: str, sent: int, known: int) -> None:
    """Tell how far something is."""
    told = _told.get()
    if told is not None:
        told(what, sent, known)


@contextlib.contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Tell of a file that is sent meanwhile, as a whole."""
    size = path.stat().st_size
    tell(path.name, 0, size)
    yield
    tell(path.name, size, size)


class Layers:
    """An image on its way, layers side by side: adds up the engine's messages of a push."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.sizes: dict[str, tuple[int, int]] = {}
        """Bytes sent and in all, by layer; a layer that the registry has is not among them."""

    def take(self, message: Mapping[str, Any]) -> None:
        """Take a message (``id``, ``status``, ``progressDetail``)."""
        layer, detail = message.get("id"), message.get("progressDetail") or {}
        if layer is None or not detail.get("total"):
            return
        total = int(detail["total"])
        self.sizes[layer] = (min(int(detail.get("current", 0)), total), total)  # the packing is counted too, above it
        sent, known = (sum(part) for part in zip(*self.sizes.values(), strict=True))
        tell(self.image, sent, known)
