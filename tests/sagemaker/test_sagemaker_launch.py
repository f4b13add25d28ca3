"""The whole walk of a user: one command from the rows to the verdict, in the real image, on a loopback account."""

import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.sagemaker.conftest import MACHINE
from tests.tiny_model import MODEL, tasks

SECRET = "FTLAUNCH_TEST_TOKEN"


class Walk:
    """One job by the command, and all that was seen of it."""

    def __init__(self, aws, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        self.value = f"secret-{secrets.token_hex(12)}"
        self.environment = {
            **os.environ,
            SECRET: self.value,
            "HF_HUB_OFFLINE": "1",
            "FTLAUNCH_HOME": str(folder / "home"),
        }
        self.printed = ""

    def run(self, *arguments, code=0):
        command = [str(Path(sys.executable).with_name("ftlaunch")), *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=280
        )
        self.printed += done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def walk(aws, image, tmp_path_factory):
    folder = tasks.write(tmp_path_factory.mktemp("walk"), "colours", train=60, validation=30, test=30)
    job = {
        "model": {"id": str(MODEL)},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "max_length": 96},
        "task": {"type": "classification"},
        "train": {"epochs": 1.0, "rank": 8, "learning_rate": 0.003},
        "evaluate": {"enough": None, "forgetting": False, "resamples": 200},
        "backend": "sagemaker",
        "resources": {"machine": MACHINE, "spot": True},
        "budget": {"max_hours": 1.0},
        "secrets": [SECRET],
    }
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job))
    made = Walk(aws, folder)
    made.start = len(aws.calls)
    done = made.run("run", folder, "--json", "--yes", "--output", folder / "out")
    made.document = json.loads(done.stdout)
    made.job = aws.training.jobs[made.document["job"]]
    made.followed = done.stderr
    return made


def test_sagemaker_walk_ends_with_a_verdict(walk):
    assert walk.document["state"] == "SUCCEEDED"
    result = json.loads((walk.folder / "out" / "result.json").read_text())
    assert result["platform"]["name"] == "sagemaker"
    assert result["verdict"]["outcome"] in ("improved", "inconclusive", "degraded")
    assert (walk.folder / "out" / "adapter" / "adapter_model.safetensors").exists()
    assert walk.document["billable_seconds"] == walk.job.description()["BillableTimeInSeconds"]
    assert "train/loss" in walk.followed


def test_sagemaker_walk_filled_in_what_aws_knows(walk, aws):
    request = walk.job.request
    assert request["RoleArn"] == aws.role
    assert request["OutputDataConfig"]["S3OutputPath"] == f"s3://sagemaker-{aws.region}-{aws.account}/ftlaunch/output"
    assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == 3600


def test_sagemaker_request_sent_is_the_one_planned(walk):
    dry = json.loads(walk.run("run", walk.folder, "--dry-run", "--json", "--set", "train.seed=1").stdout)
    planned, sent = dry["request"]["CreateTrainingJob"], walk.job.request
    text = json.dumps(planned)
    for path, value in (
        ("role", sent["RoleArn"]),
        ("account", "123456789012"),
        ("bucket", "sagemaker-us-east-1-123456789012"),
    ):
        text = text.replace(f"<sagemaker.{path}>", value)
    assert json.loads(text.replace(dry["job"], walk.job.name)) == sent


def test_sagemaker_record_names_the_image_that_ran(walk, aws):
    handle = json.loads(walk.run("status", walk.job.name, "--json").stdout)["handle"]
    ran = aws.engine.images.get(walk.job.image)
    assert {ran.id} == walk.job.image_ids
    assert any(name.endswith(f"@{handle['data']['image_digest']}") for name in ran.attrs["RepoDigests"])


def test_sagemaker_console_shows_loss_and_metric(walk, aws):
    told = {each["MetricName"] for each in walk.job.description()["FinalMetricDataList"]}
    assert {"train/loss", "validation/macro_f1", "zero_shot/macro_f1", "tuned/macro_f1"} <= told
    dimensions = [{"Name": "TrainingJobName", "Value": walk.job.name}]
    listed = aws.cloudwatch.list_metrics(Namespace="/aws/sagemaker/TrainingJobs", Dimensions=dimensions)["Metrics"]
    assert told <= {each["MetricName"] for each in listed}
    last = re.findall(r"train/loss=(\S+)", walk.followed)[-1]
    assert walk.job.metrics["train/loss"][0] == float(last)


def test_sagemaker_secret_is_where_it_belongs_and_nowhere_else(walk, aws):
    read = [call for call in aws.calls[walk.start :] if call.operation == "GetSecretValue"]
    assert {aws.rights.owners[call.key] for call in read} == {aws.role}
    sent = [call for call in aws.calls if walk.value in json.dumps(call.content)]
    assert {call.operation for call in sent} == {"CreateSecret"}
    assert walk.value not in walk.printed
    for path in walk.folder.rglob("*"):
        if path.is_file():
            assert walk.value.encode() not in path.read_bytes(), path
    for page in aws.s3.get_paginator("list_objects_v2").paginate(Bucket=f"sagemaker-{aws.region}-{aws.account}"):
        for each in page["Contents"]:
            body = aws.s3.get_object(Bucket=page["Name"], Key=each["Key"])["Body"].read()
            assert walk.value.encode() not in body, each["Key"]


def test_sagemaker_finished_jobs_are_known_without_credentials(walk, aws):
    with aws.trouble(expired=True):
        listed = json.loads(walk.run("jobs", "--json").stdout)
        assert [(job["job"], job["state"]) for job in listed] == [(walk.job.name, "SUCCEEDED")]
        assert json.loads(walk.run("status", walk.job.name, "--json").stdout)["state"] == "SUCCEEDED"
        walk.run("fetch", walk.job.name)


def test_sagemaker_walk_sends_nothing_a_second_time(walk, aws):
    before, pushed = aws.received.value, aws.front.received.value
    again = json.loads(walk.run("run", walk.folder, "--json", "--yes", "--output", walk.folder / "again").stdout)
    assert again["job"] != walk.job.name
    assert again["state"] == "SUCCEEDED"
    assert aws.received.value - before < 10_000  # spec.json, which names the job
    assert aws.front.received.value == pushed
