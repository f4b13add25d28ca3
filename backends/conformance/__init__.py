"""The conformance suite: the contracts of `backends.interface` in executable form, one check a promise.

A backend's author writes a `Harness` (how to make the backend, a small real job, a few levers) and three lines of
wiring under pytest::

    @pytest.mark.parametrize("promise", **parameters(MyHarness))
    def test_keeps(promise, harness):
        promise.check(harness)

A promise that the capabilities do not make is left out by name (`left_out` says which and why); one that they make and
for which the harness lacks the lever fails. The suite needs no pytest: `Promise.check` raises `Violation`.
"""

from backends.conformance import ending, fetching, planning, remote, resuming, starting, watching
from backends.conformance.harness import Census, Harness, Levers, SmallJob, small_job
from backends.conformance.promise import PROMISES, Promise, Violation, left_out, parameters, promises_for

__all__ = [
    "PROMISES",
    "Census",
    "Harness",
    "Levers",
    "Promise",
    "SmallJob",
    "Violation",
    "ending",
    "fetching",
    "left_out",
    "parameters",
    "planning",
    "promises_for",
    "remote",
    "resuming",
    "small_job",
    "starting",
    "watching",
]
