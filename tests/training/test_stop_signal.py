"""A stop is heard wherever the program happens to be, and never mistaken for a library's own error."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from training_image.errors import Stopped
from training_image.platform import StopSignal


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    made = StopSignal()
    made.install()
    yield made
    for number, handler in before:
        signal.signal(number, handler)


def test_a_library_that_takes_every_error_for_its_own_does_not_hide_a_stop(stop: StopSignal) -> None:
    def library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise ModuleNotFoundError("Could not import module") from error

    with pytest.raises(Stopped):
        library()


def test_a_held_stop_comes_at_the_end_of_the_hold(stop: StopSignal) -> None:
    done = []

    def save() -> None:
        with stop.held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("saved")

    with pytest.raises(Stopped):
        save()
    assert done == ["saved"]
