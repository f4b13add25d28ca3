"""The suite itself: who keeps every promise passes; who breaks a promise fails on that one alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.conformance import PROMISES, Levers, Violation, left_out, parameters, promises_for
from backends.interface import Capabilities
from tests.backends.broken import ending, imports_sdk, planning, reaching, starting, watching  # noqa: F401
from tests.backends.broken.catalogue import BROKEN
from tests.backends.broken.reference import HereHarness, ReferenceHarness

AT_ONCE = 5
"""Broken backends tried at the same time: their jobs mostly sleep, but more would starve the tests beside."""


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    os.environ["REFERENCE_PLACE"] = str(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def harness(place, tmp_path_factory):
    with ReferenceHarness(tmp_path_factory.mktemp("reference")) as harness:
        yield harness


@pytest.mark.parametrize("promise", **parameters(ReferenceHarness))
def test_reference_keeps(promise, harness):
    promise.check(harness)


def broken_promises(kind, folder):
    """Name of each promise that the backend breaks, with how."""
    found = {}
    with kind(folder) as harness:
        for promise in promises_for(kind):
            try:
                promise.check(harness)
            except Exception as error:
                found[promise.name] = f"{type(error).__name__}: {error}"
    return found


@pytest.fixture(scope="session")
def trials(request, place, tmp_path_factory):
    """The suite, run on each of the broken backends asked for, some at a time."""
    here = [item for item in request.session.items if item.path == Path(__file__)]
    params = [getattr(item, "callspec", None) and item.callspec.params for item in here]
    wanted = {each["broken"].name: each["broken"] for each in params if each and "broken" in each}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(broken_promises, each.harness, tmp_path_factory.mktemp("broken"))
            for name, each in wanted.items()
        }


@pytest.mark.parametrize("broken", BROKEN, ids=[each.name for each in BROKEN])
def test_broken_backend_fails_on_its_promise_alone(broken, trials, tmp_path):
    found = trials[broken.name].result()
    if list(found) != [broken.promise]:  # beside the others its job may have been late: once more, by itself
        found = broken_promises(broken.harness, tmp_path)
    assert list(found) == [broken.promise], "\n".join(f"{name}: {how}" for name, how in found.items())


def test_every_promise_has_a_broken_backend():
    assert {each.promise for each in BROKEN} == {promise.name for promise in PROMISES}


def test_a_place_on_this_machine_is_not_asked_for_remote_levers(place, tmp_path):
    assert set(left_out(HereHarness)) == {
        "throttled_calls_lose_nothing",
        "dropped_connections_lose_nothing",
        "expired_credentials_are_named",
        "failures_have_their_reason",
    }
    with HereHarness(tmp_path) as harness:
        next(each for each in PROMISES if each.where == "here").check(harness)


def test_what_the_capabilities_deny_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(ReferenceHarness.backend, "capabilities", Capabilities())
    excuses = left_out(ReferenceHarness)
    assert excuses["spot_interruption_resumes"] == "capabilities.spot is False"
    assert {each.needs for each in PROMISES if each.name in excuses} >= {
        "spot",
        "resume",
        "log_cursor",
        "partial_fetch",
    }


@pytest.mark.parametrize(
    "name",
    [
        "killed_job_fails",
        "spot_interruption_resumes",
        "throttled_calls_lose_nothing",
        "dropped_connections_lose_nothing",
        "expired_credentials_are_named",
        "failures_have_their_reason",
    ],
)
def test_a_lever_that_lacks_is_a_failure_and_no_skip(name, place, tmp_path):
    class Leverless(ReferenceHarness):
        def levers(self):
            return Levers()

    with Leverless(tmp_path) as harness, pytest.raises(Violation, match="the harness lacks"):
        next(each for each in PROMISES if each.name == name).check(harness)


def test_ids_carry_the_name_of_the_backend():
    assert all(each.startswith("reference-") for each in parameters(ReferenceHarness)["ids"])


def test_every_promise_says_what_it_is():
    assert all(promise.text and promise.name.isidentifier() for promise in PROMISES)
    assert len({promise.name for promise in PROMISES}) == len(PROMISES)
