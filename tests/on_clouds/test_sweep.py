"""A sweep is ours at every place: its trials, side by side, and the best one's training are jobs of the service."""

import json

import pytest

from tests.clouds.fixtures import image, services  # noqa: F401
from tests.on_clouds.walk import ftlaunch, write_job

pytestmark = pytest.mark.timeout(1800)  # the cloud may be in use by its own suite, in another process


def test_a_sweep_runs_at_a_service_with_two_trials_at_once(image, tmp_path):
    from tests.clouds.aws.account import logged_in

    train = {"rank": 2, "batch_size": 2, "max_steps": 4, "patience": 0}
    job = write_job(tmp_path, backend="sagemaker", resources={"machine": "ml.m5.xlarge"}, train=train)
    search = ("--search", "train.learning_rate=1e-4..1e-3", "--trials", "2", "--at-once", "2", "--max-hours", "2")
    with logged_in(tmp_path / "home") as aws:
        done = ftlaunch(job, "sweep", job, *search, "--json", "--output", tmp_path / "out")
        jobs = sorted(aws.training.jobs.values(), key=lambda each: each.created)
    told = json.loads(done.stdout)
    assert {trial["state"] for trial in told["trials"]} <= {"COMPLETE", "PRUNED"}
    assert (told["job"]["backend"], told["job"]["state"]) == ("sagemaker", "SUCCEEDED")
    one, two, best = [each.description() for each in jobs]
    assert two["CreationTime"] < one["TrainingEndTime"]  # side by side
    assert max(one["TrainingEndTime"], two["TrainingEndTime"]) < best["CreationTime"]
    assert json.loads((tmp_path / "out" / "result.json").read_text())["platform"]["name"] == "sagemaker"
