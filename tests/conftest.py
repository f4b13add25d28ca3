"""Rules for all tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a script: children would not hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: the tests' processes share the cores
hypothesis.settings.register_profile("shared cores", deadline=None)
hypothesis.settings.load_profile("shared cores")

TOGETHER = {"azureml", "colab", "docker", "rehearse", "sagemaker", "vertex"}
"""Folders whose files share something that there is once: a cloud's network, or the engine."""
BESIDE = {"colab_enterprise": "vertex"}
"""Folders that share it with another one: both are on the loopback Google."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """The frameworks that the test modules import stay: looking them through for garbage takes half of this time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several workers share the tests, a file stays with one of them, or a folder: fixtures are made once."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        folder = BESIDE.get(folder, folder)
        item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else str(item.path)))
        # Real processes and containers on shared cores get a second try, which the summary names as a rerun.
        if folder in TOGETHER or os.environ.get("CI"):
            item.add_marker(pytest.mark.flaky(reruns=1))
