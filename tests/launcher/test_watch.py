"""How often a followed job is looked at."""

from __future__ import annotations

import time

import pytest

from backends.interface import Handle, State, Status
from backends.local import Local
from launcher.store import Store
from launcher.watch import LONGEST, REST, Watch
from tests.launcher.test_store import record


class Slow(Local):
    """A place that takes its time to answer."""

    seconds = 0.0

    def status(self, handle):
        time.sleep(self.seconds)
        return Status(state=State.RUNNING)

    def logs(self, handle, after):
        return iter(())


class Nobody:
    """Is shown nothing."""

    def line(self, text, parsed): ...
    def status(self, status): ...
    def note(self, text): ...


@pytest.mark.parametrize("seconds", [0.2, 0.4])
def test_after_a_slow_look_the_place_is_left_alone_for_longer(tmp_path, seconds):
    store, backend = Store(tmp_path), Slow()
    backend.seconds = seconds
    store.add(record())
    followed = store.update("a-1", handle=Handle(backend="local", job_name="a-1"), state=State.RUNNING)
    pause = Watch(followed, store, backend, Nobody()).look()
    assert REST * seconds <= pause <= LONGEST


def test_a_quick_place_is_looked_at_again_at_once(tmp_path):
    store = Store(tmp_path)
    store.add(record())
    followed = store.update("a-1", handle=Handle(backend="local", job_name="a-1"), state=State.RUNNING)
    assert Watch(followed, store, Slow(), Nobody()).look() < 0.5
