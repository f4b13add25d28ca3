"""What is sent to a place is shown: a bar at a terminal, a line elsewhere for what is large."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from rich.console import Console

from backends import transfer
from launcher.cli.transfer import Bar, shown

PUSH = [
    {"status": "The push refers to repository [a]"},
    {"status": "Preparing", "progressDetail": {}, "id": "1"},
    {"status": "Layer already exists", "progressDetail": {}, "id": "2"},
    {"status": "Pushing", "progressDetail": {"current": 5_000_000, "total": 20_000_000}, "id": "1"},
    {"status": "Pushing", "progressDetail": {"current": 1_000_000, "total": 4_000_000}, "id": "3"},
    {"status": "Pushing", "progressDetail": {"current": 20_100_000, "total": 20_000_000}, "id": "1"},
    {"status": "Pushed", "progressDetail": {}, "id": "1"},
]
"""An engine's messages: a layer comes up when its turn has come, and its packing is counted in the end."""


def send() -> None:
    """As a backend does: an image, and a small file."""
    layers = transfer.Layers("host/image:tag")
    for message in PUSH:
        layers.take(message)
    with transfer.of_file(Path(__file__)):
        pass


def test_layers_are_added_up() -> None:
    told: list[tuple[str, int, int]] = []
    with transfer.shown_by(lambda *each: told.append(each)):
        send()
    send()  # nobody is told any more
    size = Path(__file__).stat().st_size
    assert told == [
        ("host/image:tag", 5_000_000, 20_000_000),
        ("host/image:tag", 6_000_000, 24_000_000),
        ("host/image:tag", 21_000_000, 24_000_000),
        ("test_transfer.py", 0, size),
        ("test_transfer.py", size, size),
    ]


def test_without_a_terminal_what_is_large_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        send()
    assert capsys.readouterr().err == "sending host/image:tag\n"


def test_at_a_terminal_there_is_one_bar_while_something_is_sent() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with contextlib.ExitStack() as stack, transfer.shown_by(Bar(stack, console).told):
        assert text.getvalue() == ""
        send()
    assert "sending host/image:tag" in text.getvalue()
    assert "5.0/20.0 MB" in text.getvalue()
    assert text.getvalue().endswith("\x1b[2K")  # gone when all is sent
