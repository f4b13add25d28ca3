"""The plan's request, held against botocore's service model in all that the model says of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backends.aws_machines import MACHINES
from backends.cloud_request import run_name
from backends.interface import BackendError, Resources, Submission
from backends.sagemaker import SageMaker
from backends.sagemaker_request import SageMakerOptions
from tests.clouds.aws.shapes import model, problems
from training_image import progress
from training_image.spec import Data, Model, Spec, Task

FACTS = {"role": "arn:aws:iam::123456789012:role/r", "bucket": "my-bucket", "account": "123456789012"}
NAME = "stem-0123abcd"


def submission(options=None, resources=None, **more):
    spec = Spec(
        job=NAME,
        model=Model(id="org/name"),
        data=Data(train="train.jsonl"),
        task=more.pop("task", Task(type="classification")),
    )
    return Submission(
        job_name=more.pop("job_name", NAME),
        spec=spec,
        files=more.pop("files", {"train.jsonl": "a" * 64}),
        image=more.pop("image", "ftlaunch:cpu-0123456789ab"),
        resources=resources or Resources(),
        options=FACTS if options is None else options,
        **more,
    )


def request(*arguments, **keywords):
    return SageMaker.create().plan(submission(*arguments, **keywords)).request["CreateTrainingJob"]


WHOLE = {
    **FACTS,
    "subnets": ["subnet-0a"],
    "security_groups": ["sg-0a"],
    "kms_key": "alias/results",
    "volume_kms_key": "alias/disk",
    "network_isolation": True,
    "encrypt_between_machines": True,
    "keep_alive_seconds": 600,
    "retries": 3,
    "tags": {"team": "nlp", "cost centre": "a/b+c=d"},
}


@pytest.mark.parametrize(
    ("options", "resources", "more"),
    [
        (FACTS, Resources(), {}),
        (FACTS, Resources(spot=True, machines=2, gpu="L4"), {"max_seconds": 3600, "secrets": ("HF_TOKEN",)}),
        (WHOLE, Resources(machine="ml.p5.48xlarge", machines=4, disk_gb=500), {"max_seconds": 1}),
        ({**FACTS, "max_wait_hours": 0.1}, Resources(spot=True), {"max_seconds": 7200}),
        (FACTS, Resources(), {"task": Task(type="completion")}),
    ],
)
def test_sagemaker_request_is_valid(options, resources, more):
    assert problems("sagemaker", "CreateTrainingJob", request(options, resources, **more)) == []


def test_sagemaker_request_has_what_was_asked_for():
    made = request(WHOLE, Resources(machine="ml.g5.2xlarge", machines=2, disk_gb=99), max_seconds=5400)
    assert made["TrainingJobName"] == NAME
    assert made["ResourceConfig"] == {
        "InstanceType": "ml.g5.2xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 99,
        "VolumeKmsKeyId": "alias/disk",
        "KeepAlivePeriodInSeconds": 600,
    }
    assert made["StoppingCondition"] == {"MaxRuntimeInSeconds": 5400}
    assert made["VpcConfig"] == {"SecurityGroupIds": ["sg-0a"], "Subnets": ["subnet-0a"]}
    assert made["OutputDataConfig"]["KmsKeyId"] == "alias/results"
    assert made["EnableNetworkIsolation"]
    assert made["EnableInterContainerTrafficEncryption"]
    assert made["RetryStrategy"] == {"MaximumRetryAttempts": 3}
    assert {"Key": "team", "Value": "nlp"} in made["Tags"]
    assert made["AlgorithmSpecification"]["TrainingImage"] == (
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/ftlaunch:cpu-0123456789ab"
    )


def test_sagemaker_spot_waits_at_least_as_long_as_it_runs():
    for hours in (None, 0.01, 90.0):
        options = FACTS | ({} if hours is None else {"max_wait_hours": hours})
        made = request(options, Resources(spot=True), max_seconds=7200)
        assert made["EnableManagedSpotTraining"]
        assert made["CheckpointConfig"]["S3Uri"].startswith("s3://my-bucket/")
        assert made["StoppingCondition"]["MaxWaitTimeInSeconds"] >= 7200


def test_sagemaker_what_is_not_known_is_named():
    plan = SageMaker.create().plan(submission({}))
    assert {each.path for each in plan.unresolved} == {
        "backends.sagemaker.role",
        "backends.sagemaker.bucket",
        "backends.sagemaker.account",
    }
    assert plan.request["CreateTrainingJob"]["RoleArn"] == "<sagemaker.role>"
    assert plan.request["region"] == "us-east-1"
    without_image = SageMaker.create().plan(submission(FACTS, image=None))
    assert [each.path for each in without_image.unresolved] == ["backends.sagemaker.image"]


def test_sagemaker_image_in_ecr_is_taken_as_it_is():
    there = "210987654321.dkr.ecr.eu-west-1.amazonaws.com/team/image@sha256:" + "0" * 64
    assert request(image=there)["AlgorithmSpecification"]["TrainingImage"] == there
    assert request({**FACTS, "image": there})["AlgorithmSpecification"]["TrainingImage"] == there


def test_sagemaker_same_content_has_the_same_folder():
    one = request(files={"train.jsonl": "a" * 64, "test.jsonl": "b" * 64})["InputDataConfig"][0]
    other = request(files={"test.jsonl": "b" * 64, "train.jsonl": "a" * 64}, job_name="other-0123abcd")
    assert one == other["InputDataConfig"][0]
    assert one != request(files={"train.jsonl": "b" * 64, "test.jsonl": "a" * 64})["InputDataConfig"][0]


def test_sagemaker_metrics_read_the_progress_lines(capsys):
    progress.emit_mapping("train", {"step": 7, "train/loss": 0.000012345, "train/learning_rate": 2e-4})
    progress.emit_mapping("train", {"step": 8, "train/loss": 12.5, "validation/loss": 1.0, "validation/macro_f1": 0.75})
    progress.emit_mapping("tuned", {"n": 9, "macro_f1": 0.5, "seconds": 1.0})
    lines = capsys.readouterr().out.splitlines()
    import re

    found = {}
    for metric in request()["AlgorithmSpecification"]["MetricDefinitions"]:
        for line in lines:
            if match := re.search(metric["Regex"], line):
                found[metric["Name"]] = float(match[1])
    assert found == {
        "train/loss": 12.5,
        "train/learning_rate": 2e-4,
        "validation/loss": 1.0,
        "validation/macro_f1": 0.75,
        "tuned/macro_f1": 0.5,
    }


def test_sagemaker_machines_are_training_machines():
    known = set(model("sagemaker").shape_for("TrainingInstanceType").enum)
    assert {machine.name for machine in MACHINES} <= known
    for machine in MACHINES:
        resources = request(resources=Resources(gpu=machine.gpu))["ResourceConfig"]
        chosen = next(each for each in MACHINES if each.name == resources["InstanceType"])
        assert chosen.gpu == machine.gpu


@pytest.mark.parametrize(
    ("resources", "torch"),
    [
        (Resources(), "cuda"),
        (Resources(gpu="L4"), "cuda"),
        (Resources(machine="ml.p5.48xlarge"), "cuda"),
        (Resources(machine="ml.m5.xlarge"), "cpu"),
        (Resources(machine="ml.c7i.4xlarge"), "cpu"),
    ],
)
def test_sagemaker_image_fits_the_machine(resources, torch):
    assert SageMaker.create().torch(resources) == torch


def test_sagemaker_offers_are_priced_where_the_price_was_read():
    here = {offer.machine: offer for offer in SageMaker.create().offers(None)}
    there = {offer.machine: offer for offer in SageMaker.create().offers("eu-west-3")}
    assert here["ml.g5.xlarge"].usd_per_hour == 1.408
    assert all(offer.usd_per_hour is None for offer in there.values())


@pytest.mark.parametrize(
    ("options", "resources", "word"),
    [
        (FACTS, Resources(gpu="T800"), "T800"),
        (FACTS, Resources(machine="ml.trn1.2xlarge"), "accelerators"),
        ({**FACTS, "keep_alive_seconds": 60}, Resources(spot=True), "warm"),
    ],
)
def test_sagemaker_impossible_jobs_are_refused_at_once(options, resources, word):
    with pytest.raises(BackendError, match=word) as refused:
        request(options, resources)
    assert refused.value.hint


@pytest.mark.parametrize(
    "options",
    [{"subnets": ["subnet-1"]}, {"region": "mars"}, {"account": "12"}, {"bukket": "b"}, {"keep_alive_seconds": 99999}],
)
def test_sagemaker_options_are_strict(options):
    with pytest.raises(ValidationError):
        SageMakerOptions.model_validate(options)


STEM = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,52}[a-z0-9])?", fullmatch=True)


@given(stem=STEM, digits=st.from_regex(r"[0-9a-f]{8}", fullmatch=True), runs=st.integers(0, 120))
def test_sagemaker_names_of_resumed_jobs_are_valid_and_apart(stem, digits, runs):
    names = [run_name(f"{stem}-{digits}", run) for run in range(runs + 1)]
    assert len(set(names)) == len(names)
    for name in (names[0], names[-1]):
        assert problems("sagemaker", "DescribeTrainingJob", {"TrainingJobName": name.replace("--", "-")}) == []
        assert len(name) <= 63
        assert digits in name
