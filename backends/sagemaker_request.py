"""From a submission to SageMaker's CreateTrainingJob request: pure, without boto3."""

from __future__ import annotations

import functools
import re
from typing import Literal

from pydantic import Field, model_validator

from backends import cloud_request
from backends.aws_machines import machine_for
from backends.cloud_request import listing_digest, without_none
from backends.interface import (
    BackendError,
    BackendOptions,
    ContainerRequest,
    Json,
    Mount,
    Plan,
    Submission,
)
from training_image.secrets import VARIABLE as SECRET_VARIABLE

NAME = "sagemaker"
DATA_CHANNEL = "training"
SPEC_CHANNEL = "spec"
SPEC_FILE = f"/opt/ml/input/data/{SPEC_CHANNEL}/spec.json"
JOB_TAG = "ftlaunch:job"
SECRET_STORE = "aws:"  # noqa: S105  # beginning of that variable's value, see training_image.secrets
DAY = 86400
NUMBER = "([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"
"""A number as progress lines show it."""
ECR_IMAGE = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/.+")

HINTS = {
    "role": "set backends.sagemaker.role to the ARN of the execution role that the job runs as",
    "bucket": "set backends.sagemaker.bucket to an S3 bucket in the same region",
    "account": "log in to AWS, or set backends.sagemaker.account to the account's 12 digits",
    "image": "build one (ftlaunch image build), or set backends.sagemaker.image to an image in ECR",
}

placeholder = functools.partial(cloud_request.placeholder, NAME)
unresolved = functools.partial(cloud_request.unresolved, NAME, HINTS)
is_own_image = functools.partial(cloud_request.is_own_image, elsewhere=ECR_IMAGE)


class SageMakerOptions(BackendOptions):
    """``backends.sagemaker``."""

    region: str = Field("us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="AWS region of job and bucket.")
    role: str | None = Field(None, description="ARN of the execution role; default: the only one SageMaker may use.")
    bucket: str | None = Field(None, description="Bucket for data and results; default: sagemaker-REGION-ACCOUNT.")
    account: str | None = Field(None, pattern=r"^\d{12}$", description="The account's number; default: asked of AWS.")
    profile: str | None = Field(None, description="Profile of ~/.aws/config; default: as the AWS tools do.")
    prefix: str = Field("ftlaunch", pattern=r"^[\w.-]+(/[\w.-]+)*$", description="Prefix of everything in the bucket.")
    repository: str = Field(
        "ftlaunch",
        pattern=r"^[a-z0-9][a-z0-9._/-]*$",
        description="ECR repository of the image; made if missing.",
    )
    image: str | None = Field(None, description="Image in ECR that is there already, instead of the job's own.")
    via: Literal["boto3", "sdk"] = Field("boto3", description="What sends the request; sdk: SageMaker's ModelTrainer.")
    subnets: list[str] = Field(default_factory=list, description="Subnets of your VPC; with security_groups.")
    security_groups: list[str] = Field(default_factory=list, description="Security groups in your VPC; with subnets.")
    kms_key: str | None = Field(None, description="KMS key that encrypts the results in S3.")
    volume_kms_key: str | None = Field(None, description="KMS key that encrypts the machine's disk.")
    network_isolation: bool = Field(False, description="No network for the container; model and data come by S3.")
    encrypt_between_machines: bool = Field(False, description="Encrypt the traffic between several machines.")
    keep_alive_seconds: int | None = Field(
        None, ge=1, le=3600, description="Keep the machine warm for the next job, at its full price; not with spot."
    )
    max_wait_hours: float | None = Field(
        None, gt=0, description="Longest run and wait for spot machines together; default: the run time and a day."
    )
    retries: int | None = Field(None, ge=1, le=30, description="Restarts by SageMaker itself after its own errors.")
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the training job, for the bill.")

    @model_validator(mode="after")
    def _vpc_is_whole(self) -> SageMakerOptions:
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups belong together: give both or none")
        return self


def make_plan(submission: Submission) -> Plan:
    """The plan with the exact request; what is not known stands as ``<sagemaker.KEY>``."""
    options = SageMakerOptions.model_validate(submission.options)
    if options.keep_alive_seconds and submission.resources.spot:
        raise BackendError(
            "SageMaker keeps no spot machine warm", hint="leave out keep_alive_seconds, or set resources.spot: false"
        )
    job = _request(submission, options)
    request: Json = {
        "region": options.region,
        "profile": options.profile,
        "via": options.via,
        "secrets": dict.fromkeys(submission.secrets, "***"),
        "CreateTrainingJob": job,
    }
    return Plan(
        backend=NAME,
        job_name=submission.job_name,
        request=request,
        inputs=submission.files,
        image=submission.image,
        unresolved=unresolved(request),
        spec=submission.spec,
        max_seconds=submission.max_seconds,
        machine=job["ResourceConfig"]["InstanceType"],
        kept_seconds=options.keep_alive_seconds or 0,
        region=options.region,
    )


def container(plan: Plan) -> ContainerRequest:
    """What SageMaker starts for the request."""
    request: Json = plan.request["CreateTrainingJob"]
    algorithm = request["AlgorithmSpecification"]
    uri = algorithm["TrainingImage"]
    mounts = [
        Mount(name=each["ChannelName"], holds="spec" if each["ChannelName"] == SPEC_CHANNEL else "data")
        for each in request["InputDataConfig"]
    ]
    mounts += [
        Mount(name="model", holds="output"),
        Mount(name=request["CheckpointConfig"]["LocalPath"], holds="checkpoints"),
    ]
    name, region = request["TrainingJobName"], plan.request["region"]
    return ContainerRequest(
        service=NAME,
        mounts=tuple(mounts),
        entrypoint=algorithm.get("ContainerEntrypoint"),
        arguments=algorithm.get("ContainerArguments", () if "ContainerEntrypoint" in algorithm else None),
        environment=request["Environment"],
        derived={
            "TRAINING_JOB_NAME": name,
            "TRAINING_JOB_ARN": f"arn:aws:sagemaker:{region}:{placeholder('account')}:training-job/{name}",
            "AWS_REGION": region,
        },
        hyperparameters=request.get("HyperParameters", {}),
        metrics={each["Name"]: each["Regex"] for each in algorithm["MetricDefinitions"]},
        network=not request["EnableNetworkIsolation"],
        image=None if is_own_image(uri, plan.image) else uri,
    )


def secret_name(job_name: str, name: str) -> str:
    """The name of a job's secret in Secrets Manager."""
    return f"ftlaunch/{job_name}/{name}"


def _request(submission: Submission, options: SageMakerOptions) -> Json:
    resources = submission.resources
    place = f"s3://{options.bucket or placeholder('bucket')}/{options.prefix}"
    longest = submission.max_seconds or DAY
    tags = {JOB_TAG: submission.job_name} | options.tags
    stopping = {"MaxRuntimeInSeconds": longest}
    if resources.spot:
        wait = round(options.max_wait_hours * 3600) if options.max_wait_hours else longest + DAY
        stopping["MaxWaitTimeInSeconds"] = max(longest, wait)
    request: Json = {
        "TrainingJobName": submission.job_name,
        "AlgorithmSpecification": {
            "TrainingImage": image_uri(submission.image, options),
            "TrainingInputMode": "File",
            "MetricDefinitions": _metrics(submission.spec.task.metric_name),
        },
        "RoleArn": options.role or placeholder("role"),
        "InputDataConfig": [
            _channel(DATA_CHANNEL, f"{place}/data/{listing_digest(submission.files)}/"),
            _channel(SPEC_CHANNEL, f"{place}/jobs/{submission.job_name}/spec/"),
        ],
        "OutputDataConfig": without_none({"S3OutputPath": f"{place}/output", "KmsKeyId": options.kms_key}),
        "ResourceConfig": without_none(
            {
                "InstanceType": machine_for(resources),
                "InstanceCount": resources.machines,
                "VolumeSizeInGB": resources.disk_gb,
                "VolumeKmsKeyId": options.volume_kms_key,
                "KeepAlivePeriodInSeconds": options.keep_alive_seconds,
            }
        ),
        "StoppingCondition": stopping,
        "CheckpointConfig": {
            "S3Uri": f"{place}/jobs/{submission.job_name}/checkpoints",
            "LocalPath": "/opt/ml/checkpoints",
        },
        "Environment": _environment(submission),
        "EnableManagedSpotTraining": resources.spot,
        "EnableNetworkIsolation": options.network_isolation,
        "EnableInterContainerTrafficEncryption": options.encrypt_between_machines,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    if options.subnets:
        request["VpcConfig"] = {"SecurityGroupIds": options.security_groups, "Subnets": options.subnets}
    if options.retries:
        request["RetryStrategy"] = {"MaximumRetryAttempts": options.retries}
    return request


def image_uri(image: str | None, options: SageMakerOptions) -> str:
    """The image's name in ECR, which the job's own image is pushed under."""
    if options.image or (image and ECR_IMAGE.fullmatch(image)):
        return str(options.image or image)
    if image is None:
        return placeholder("image")
    # A tag of the content: the same image has the same name in every account.
    _, colon, tag = image.rpartition("/")[2].partition(":")
    domain = "amazonaws.com.cn" if options.region.startswith("cn-") else "amazonaws.com"
    host = f"{options.account or placeholder('account')}.dkr.ecr.{options.region}.{domain}"
    return f"{host}/{options.repository}:{tag if colon else 'latest'}"


def source(request: Json, channel: str) -> str:
    """The ``s3://`` folder of a request's channel."""
    uris = {each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"] for each in request["InputDataConfig"]}
    return str(uris[channel])


def _channel(name: str, uri: str) -> Json:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _environment(submission: Submission) -> dict[str, str]:
    named = {
        f"{SECRET_VARIABLE}{name}": f"{SECRET_STORE}{secret_name(submission.job_name, name)}"
        for name in submission.secrets
    }
    limit = {} if submission.max_seconds is None else {"FTLAUNCH_MAX_SECONDS": str(submission.max_seconds)}
    return {"FTLAUNCH_SPEC": SPEC_FILE, **limit, **named}


def _metrics(metric: str) -> list[Json]:
    """What the console draws, read from the container's progress lines."""
    curves = ["train/loss", "train/grad_norm", "train/learning_rate", "validation/loss", f"validation/{metric}"]
    found = [{"Name": name, "Regex": rf"\[train\].* {name}={NUMBER}"} for name in dict.fromkeys(curves)]
    for stage in ("zero_shot", "few_shot", "tuned"):
        found.append({"Name": f"{stage}/{metric}", "Regex": rf"\[{stage}\].* {metric}={NUMBER}"})
    return found
