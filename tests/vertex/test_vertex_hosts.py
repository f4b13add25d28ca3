"""Two machines from CLUSTER_SPEC: one adapter, one machine's loss, both machines' lines; one that dies ends the job."""

import pytest

from tests.on_clouds import hosts


@pytest.fixture(scope="module")
def pair(harness):
    return hosts.pair(harness)


def test_vertex_two_hosts_have_one_hosts_loss_and_make_one_adapter(pair, harness):
    hosts.check_same_training(harness, pair)


def test_vertex_lines_of_both_hosts_are_told(pair):
    assert {line.source for line in pair.lines} >= {"workerpool0-0", "workerpool1-0"}


def test_vertex_bill_is_of_both_hosts(pair, harness):
    [job] = harness.jobs(pair.handle.job_name)
    told = job.description()
    assert pair.end.billable_seconds == 2 * (told.end_time - told.start_time).total_seconds()


def test_vertex_one_host_killed_fails_the_job(harness, monkeypatch):
    [job] = harness.jobs(hosts.check_one_killed_fails(harness, monkeypatch))
    assert len(job.lives) == 1  # not spot: not started again
