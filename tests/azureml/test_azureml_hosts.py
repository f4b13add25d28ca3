"""Two machines: one adapter, one machine's loss, both machines' logs; one that dies ends the job."""

import pytest

from tests.on_clouds import hosts


@pytest.fixture(scope="module")
def pair(harness):
    return hosts.pair(harness)


def test_azureml_two_machines_have_one_machines_loss_and_make_one_adapter(pair, harness):
    hosts.check_same_training(harness, pair)


def test_azureml_lines_of_both_machines_are_told(pair):
    """The first process speaks for all; the other ones say where they are, and what goes wrong there."""
    sources = {line.source for line in pair.lines}
    assert sources == {"std_log_process_0", "std_log_process_1"}
    for source in sources:
        of_one = [[line.text for line in lines if line.source == source] for lines in (pair.followed, pair.lines)]
        assert of_one[0] == of_one[1]


def test_azureml_bill_is_of_both_machines(pair, harness):
    [job] = harness.jobs(pair.handle.job_name)
    assert pair.end.billable_seconds == pytest.approx(2 * job.active, abs=1e-3)


def test_azureml_one_machine_killed_fails_the_job(harness, monkeypatch):
    hosts.check_one_killed_fails(harness, monkeypatch)
