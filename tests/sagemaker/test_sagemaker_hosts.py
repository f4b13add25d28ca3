"""Two machines: one adapter, one machine's loss, both machines' lines; one that dies ends the job."""

import pytest

from backends.interface import Reason
from tests.clouds.aws.machine_room import MACHINE_LOST
from tests.on_clouds import hosts


@pytest.fixture(scope="module")
def pair(harness):
    return hosts.pair(harness)


def test_sagemaker_two_hosts_have_one_hosts_loss_and_make_one_adapter(pair, harness):
    hosts.check_same_training(harness, pair)


def test_sagemaker_lines_of_both_hosts_are_told(pair):
    assert {line.source for line in pair.lines} == {"algo-1", "algo-2"}
    for host in ("algo-1", "algo-2"):
        told = [line.text for line in pair.lines if line.source == host]
        assert [line.text for line in pair.followed if line.source == host] == told


def test_sagemaker_bill_is_of_both_hosts(pair, harness):
    [job] = harness.jobs(pair.handle.job_name)
    assert pair.end.billable_seconds == 2 * job.description()["BillableTimeInSeconds"]


def test_sagemaker_one_host_killed_fails_the_job(harness, monkeypatch):
    """The service calls it an error of its own, and says no more."""
    handle = harness.fresh().find(hosts.check_one_killed_fails(harness, monkeypatch))
    told = harness.fresh().status(handle)
    assert (told.native_state, told.reason, told.message) == ("Failed", Reason.UNKNOWN, MACHINE_LOST)
