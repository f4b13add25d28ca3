"""Amazon SageMaker: a training job with the image in ECR, data and results in S3, logs in CloudWatch.

A resume is another training job with the same checkpoints (``JOB-r1``). Nothing of boto3 is imported before a method
needs it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import SecretStr

from backends import (
    aws_logs,
    aws_machines,
    aws_registry,
    cloud_request,
    sagemaker_checks,
    sagemaker_request,
    sagemaker_status,
)
from backends.aws_calls import Account, AwsError, call, configured_region, pages
from backends.aws_storage import Store, fetch_archive
from backends.cloud import Cloud
from backends.cloud_request import run_name, runs_by_name
from backends.interface import (
    BackendError,
    BackendOptions,
    ContainerRequest,
    Cursor,
    Finding,
    Handle,
    Json,
    LogLine,
    Plan,
    Resources,
    Status,
    Submission,
)
from backends.sagemaker_request import JOB_TAG, SECRET_STORE, SageMakerOptions, secret_name
from training_image.secrets import VARIABLE as SECRET_VARIABLE

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CHANNELS = (sagemaker_request.DATA_CHANNEL, sagemaker_request.SPEC_CHANNEL)
REMOVED_TAG = "ftlaunch:removed"
NOT_FOUND = "requested resource not found"
OF_SERVICES = "/aws-service-role/"
"""Path of the roles that a service has for itself (service-linked): no job can be handed one."""
RESCUED = "output"
"""The copy of the output tree in the checkpoint folder, for jobs that SageMaker makes no model.tar.gz of."""
KEPT = (
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "CheckpointConfig",
    "Environment",
    "RetryStrategy",
    "EnableManagedSpotTraining",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
)
"""What a resumed job takes over from the description of the one before."""


class SageMaker(Cloud[Account, Json]):
    """Trains on Amazon SageMaker."""

    name: ClassVar[str] = sagemaker_request.NAME
    service: ClassVar[str] = "SageMaker"
    options: ClassVar[type[BackendOptions]] = SageMakerOptions
    summary: ClassVar[str] = "Amazon SageMaker training jobs, spot or on demand, billed by the second"
    extra: ClassVar[str] = "aws"

    def __init__(self) -> None:
        """Asks nothing; an account's session lives as long as the backend, so that one login serves a whole watch."""
        self._session = functools.cache(Account)

    def plan(self, submission: Submission) -> Plan:
        """The CreateTrainingJob request, exactly as it is sent, with what else the submit needs beside it."""
        return sagemaker_request.make_plan(submission)

    def torch(self, resources: Resources) -> Literal["cpu", "cuda"]:
        """By the machine's family: ml.g and ml.p have GPUs."""
        return "cuda" if aws_machines.has_gpu(aws_machines.machine_for(resources)) else "cpu"

    def container(self, plan: Plan) -> ContainerRequest:
        """The part of the request that the container sees."""
        return sagemaker_request.container(plan)

    def resolve(self, plan: Plan) -> Plan:
        """Fill account, bucket and role from what AWS knows."""
        missing = {each.path.rpartition(".")[2] for each in plan.unresolved} - {"image"}
        if not missing:
            return plan
        known = _known(self._account(plan.request), plan.request["via"], missing)
        request = cloud_request.filled(self.name, plan.request, known)
        return plan.model_copy(update={"request": request, "unresolved": sagemaker_request.unresolved(request)})

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look at credentials, role, bucket, image and quota."""
        return sagemaker_checks.findings(self._account(plan.request), plan)

    def lacks_image(self, plan: Plan) -> bool:
        """Ask ECR, where the request names the job's own image."""
        uri = str(plan.request["CreateTrainingJob"]["AlgorithmSpecification"]["TrainingImage"])
        if not sagemaker_request.is_own_image(uri, plan.image):
            return False
        return aws_registry.digest(self._account(plan.request), uri) is None

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Send data to S3 by content, spec.json beside it, and the image to ECR."""
        account = self._account(plan.request)
        request: Json = plan.request["CreateTrainingJob"]
        data, spec = (Store(account.client("s3"), sagemaker_request.source(request, name)) for name in CHANNELS)
        _make_default_bucket(account, data.bucket)
        data.send_files(f"{data.prefix.rpartition('/data/')[0]}/files", plan.inputs, files)
        spec.send_text("spec.json", plan.spec.model_dump_json(by_alias=True, indent=1))
        aws_registry.send(account, plan.image, request["AlgorithmSpecification"]["TrainingImage"])

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Put the secrets into Secrets Manager and create the training job; one of that name is given as it is."""
        account, request = self._to_submit(plan), plan.request["CreateTrainingJob"]
        if self._get(account, plan.job_name) is None:
            _put_secrets(account, plan.job_name, secrets)
            try:
                _create(account, request, plan.request["via"])
            except BackendError:
                if self._get(account, plan.job_name) is None:  # it may be there, and only the answers were lost
                    _delete_secrets(account, request)
                    raise
        image = request["AlgorithmSpecification"]["TrainingImage"]
        return self._handle(account, plan.job_name, [plan.job_name], image)

    def known(self) -> Iterable[Handle]:
        """The training jobs that carry our tag, in all accounts and regions that jobs were started in from this
        machine, and in the regions that AWS's tools and ours take by default.

        Raises BackendError at the end, where one of these places could not be asked.
        """
        noted = (self._noted(path.stem) for path in sorted(self._notes.glob("*.json")))
        places = [*(each for each in noted if each is not None), self._default()]
        if (region := configured_region()) is not None:
            places.append(self._session(region, None))
        refused: BackendError | None = None
        for account in dict.fromkeys(places):
            try:
                yield from self._tagged(account)
            except BackendError as error:
                refused = error
        if refused is not None:
            raise refused

    def _tagged(self, account: Account) -> Iterator[Handle]:
        """What the search tells of each is enough; to describe hundreds one by one would be throttled."""
        tagged = {"Filters": [{"Name": f"Tags.{JOB_TAG}", "Operator": "Exists"}]}
        search = account.client("sagemaker").search
        found = pages(search, "Results", Resource="TrainingJob", SearchExpression=tagged, MaxResults=100)
        jobs = (each["TrainingJob"] for each in found)
        named = ((tag["Value"], job) for job in jobs for tag in job["Tags"] if tag["Key"] == JOB_TAG)
        yield from self._of_listed(account, named, lambda run: run["CreationTime"])

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines in CloudWatch of all machines, in all lives."""
        account, names = self._of_handle(handle)
        if after is None:
            self._existing(account, names[-1])
        yield from aws_logs.lines(account.client("logs"), LOG_GROUP, [f"{name}/" for name in names], after)

    def _account(self, place: Json) -> Account:
        return self._session(str(place["region"]), place["profile"])

    def _place(self, account: Account) -> Json:
        return {"region": account.region, "profile": account.profile}

    def _default(self) -> Account:
        return self._session(SageMakerOptions().region, None)

    def _get(self, account: Account, name: str) -> Json | None:
        try:
            job: Json = call(account.client("sagemaker").describe_training_job, TrainingJobName=name)
        except AwsError as error:
            if NOT_FOUND in error.message.lower():
                return None
            raise
        return job

    def _runs(self, account: Account, job_name: str) -> list[Json]:
        return runs_by_name(functools.partial(self._get, account), job_name)

    def _name(self, run: Json) -> str:
        return str(run["TrainingJobName"])

    def _told(self, account: Account, run: Json) -> Status:
        return sagemaker_status.status(run)

    def _image(self, account: Account, run: Json) -> str:
        return str(run["AlgorithmSpecification"]["TrainingImage"])

    def _digest(self, account: Account, image: str) -> str | None:
        return aws_registry.digest(account, image)

    def _stop(self, account: Account, run: Json) -> None:
        """StopTrainingJob: SIGTERM, and SIGKILL after 120 s."""
        try:
            call(account.client("sagemaker").stop_training_job, TrainingJobName=self._name(run))
        except AwsError as error:
            if error.code != "ValidationException":  # it ended in this moment
                raise

    def _was_removed(self, account: Account, run: Json) -> bool:
        return REMOVED_TAG in _tags(account, run["TrainingJobArn"])

    def _go_on(self, account: Account, job_name: str, runs: list[Json]) -> list[Json]:
        before = runs[-1]
        request = {key: before[key] for key in KEPT if key in before}
        tags = _tags(account, before["TrainingJobArn"])
        request["TrainingJobName"] = run_name(job_name, len(runs))
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        _create(account, request, "boto3")
        return self._runs(account, job_name)

    def _bring(self, account: Account, run: Json, into: Path) -> None:
        """Unpack model.tar.gz; of a job that SageMaker made none of, the copy beside its checkpoints."""
        archive = run.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        if archive:
            fetch_archive(account.client("s3"), archive, into)
        else:
            Store(account.client("s3"), f"{run['CheckpointConfig']['S3Uri']}/{RESCUED}").fetch(into)

    def _free(self, account: Account, run: Json) -> None:
        mark = [{"Key": REMOVED_TAG, "Value": "true"}]
        call(account.client("sagemaker").add_tags, ResourceArn=run["TrainingJobArn"], Tags=mark)
        _delete_secrets(account, run)
        Store(account.client("s3"), run["CheckpointConfig"]["S3Uri"]).delete()


def _create(account: Account, request: Json, via: str) -> None:
    try:
        if via == "sdk":
            from backends import sagemaker_sdk

            sagemaker_sdk.create(account, request)
        else:
            call(account.client("sagemaker").create_training_job, **request)
    except AwsError as error:
        if error.code != "ResourceInUse":  # it is there already: by an earlier call whose answer was lost
            raise


def _known(account: Account, via: str, missing: set[str]) -> dict[str, str]:
    """What AWS knows of the missing facts."""
    if via == "sdk":
        from backends import sagemaker_sdk

        return {key: value for key, value in sagemaker_sdk.known(account, missing).items() if key in missing}
    identity = account.identity()
    number = str(identity["Account"])
    found = {"account": number, "bucket": sagemaker_checks.default_bucket(account.region, number)}
    if "role" in missing and (role := _role(account, str(identity["Arn"]))):
        found["role"] = role
    return {key: value for key, value in found.items() if key in missing}


def _role(account: Account, caller: str) -> str | None:
    """The role that the caller acts as if SageMaker may assume it, else the only one in the account that it may."""
    trusted = [
        str(role["Arn"])
        for role in pages(account.client("iam").list_roles, "Roles", "Marker")
        if sagemaker_checks.SERVICE in json.dumps(role["AssumeRolePolicyDocument"])
        and not role["Path"].startswith(OF_SERVICES)
    ]
    own = caller.split("/")[1] if ":assumed-role/" in caller else None
    same = [arn for arn in trusted if arn.rpartition("/")[2] == own]
    if same:
        return same[0]
    return trusted[0] if len(trusted) == 1 else None


def _make_default_bucket(account: Account, bucket: str) -> None:
    owner = str(account.identity()["Account"])
    if sagemaker_checks.find_bucket(account, bucket, owner) is not None:
        return
    if bucket != sagemaker_checks.default_bucket(account.region, owner):
        raise BackendError(f"there is no bucket {bucket}", hint="correct backends.sagemaker.bucket")
    there = {} if account.region == "us-east-1" else {"LocationConstraint": account.region}
    s3 = account.client("s3")
    call(s3.create_bucket, Bucket=bucket, **({"CreateBucketConfiguration": there} if there else {}))


def _put_secrets(account: Account, job_name: str, secrets: Mapping[str, SecretStr]) -> None:
    for name, value in secrets.items():
        manager, full = account.client("secretsmanager"), secret_name(job_name, name)
        text = value.get_secret_value()
        try:
            call(manager.create_secret, Name=full, SecretString=text, Tags=[{"Key": JOB_TAG, "Value": job_name}])
        except AwsError as error:
            if error.code != "ResourceExistsException":
                raise
            call(manager.put_secret_value, SecretId=full, SecretString=text)


def _delete_secrets(account: Account, request: Json) -> None:
    named = [value for key, value in request.get("Environment", {}).items() if key.startswith(SECRET_VARIABLE)]
    for name in (value.removeprefix(SECRET_STORE) for value in named):
        try:
            call(account.client("secretsmanager").delete_secret, SecretId=name, ForceDeleteWithoutRecovery=True)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise


def _tags(account: Account, arn: str) -> dict[str, str]:
    found = pages(account.client("sagemaker").list_tags, "Tags", ResourceArn=arn)
    return {str(tag["Key"]): str(tag["Value"]) for tag in found}
