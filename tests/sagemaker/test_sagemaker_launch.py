"""The whole walk of a user: one command from the rows to the verdict, in the real image, on a loopback account."""

import json
import re

import pytest

from tests.clouds.aws.price_list import RATES
from tests.on_clouds.walk import Walk
from tests.sagemaker.conftest import MACHINE


@pytest.fixture(scope="module")
def walk(aws, image, tmp_path_factory):
    """While CloudWatch is some seconds behind."""
    start = len(aws.calls)
    aws.log_seconds = 4.0
    try:
        made = Walk(tmp_path_factory.mktemp("walk"), "sagemaker", MACHINE)
    finally:
        aws.log_seconds = 0.0
    made.calls = aws.calls[start:]
    made.job = aws.training.jobs[made.name]
    return made


def test_sagemaker_walk_ends_with_a_verdict(walk):
    walk.check_verdict()
    assert walk.document["billable_seconds"] == walk.job.description()["BillableTimeInSeconds"]


def test_sagemaker_walk_filled_in_what_aws_knows(walk, aws):
    request = walk.job.request
    assert request["RoleArn"] == aws.role
    assert request["OutputDataConfig"]["S3OutputPath"] == f"s3://sagemaker-{aws.region}-{aws.account}/ftlaunch/output"
    assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == 3600


def test_sagemaker_request_sent_is_the_one_planned(walk):
    dry = walk.planned()
    planned, sent = dry["request"]["CreateTrainingJob"], walk.job.request
    text = json.dumps(planned)
    for path, value in (
        ("role", sent["RoleArn"]),
        ("account", "123456789012"),
        ("bucket", "sagemaker-us-east-1-123456789012"),
    ):
        text = text.replace(f"<sagemaker.{path}>", value)
    assert json.loads(text.replace(dry["job"], walk.name)) == sent


def test_sagemaker_estimate_takes_the_price_that_aws_lists(walk):
    walk.run("prices", "refresh", "--source", "aws")
    there = ("--set", "resources.machine=ml.g5.xlarge", "--set", "resources.spot=false")
    price = json.loads(walk.run("run", walk.folder, "--dry-run", "--json", *there).stdout)["estimate"]["price"]
    assert (price["usd_per_hour"], price["kind"]) == (float(RATES["ml.g5.xlarge"]), "live")


def test_sagemaker_record_names_the_image_that_ran(walk, aws):
    walk.check_image([aws.engine.images.get(each) for each in walk.job.image_ids])


def test_sagemaker_console_shows_loss_and_metric(walk, aws):
    told = {each["MetricName"] for each in walk.job.description()["FinalMetricDataList"]}
    assert {"train/loss", "validation/macro_f1", "zero_shot/macro_f1", "tuned/macro_f1"} <= told
    dimensions = [{"Name": "TrainingJobName", "Value": walk.name}]
    listed = aws.cloudwatch.list_metrics(Namespace="/aws/sagemaker/TrainingJobs", Dimensions=dimensions)["Metrics"]
    assert told <= {each["MetricName"] for each in listed}
    last = re.findall(r"train/loss=(\S+)", walk.followed)[-1]
    assert walk.job.metrics["train/loss"][0] == float(last)


def test_sagemaker_secret_is_where_it_belongs_and_nowhere_else(walk, aws):
    read = [call for call in walk.calls if call.operation == "GetSecretValue"]
    assert {aws.rights.owners[call.key] for call in read} == {aws.role}
    sent = [call for call in aws.calls if walk.value in json.dumps(call.content)]
    assert {call.operation for call in sent} == {"CreateSecret"}
    bucket = f"sagemaker-{aws.region}-{aws.account}"
    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    walk.check_secret_nowhere((key, aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys)


def test_sagemaker_finished_jobs_are_known_without_credentials(walk, aws):
    walk.check_known_without_credentials(aws)


def test_sagemaker_slow_logs_are_shown_to_the_last_line(walk):
    walk.check_log(walk.name, walk.followed)


def test_sagemaker_walk_sends_nothing_a_second_time(walk, aws, monkeypatch):
    monkeypatch.setattr(aws, "starting_seconds", 60.0)  # stopped before it has a machine
    before, pushed = aws.received.value, aws.front.received.value
    done = walk.here("run", walk.folder, "--json", "--yes", "--detach", "--output", walk.folder / "again")
    document = json.loads(done.stdout)
    assert document["job"] != walk.name
    aws.training.jobs[document["job"]].stop("Stopped")
    assert aws.received.value - before < 10_000  # spec.json, which names the job
    assert aws.front.received.value == pushed
