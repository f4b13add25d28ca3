"""Amazon SageMaker: a training job with the image in ECR, data and results in S3, logs in CloudWatch.

A resume is another training job with the same checkpoints (``JOB-r1``), for SageMaker starts none twice; `Handle.data`
says how many there were. Nothing of boto3 is imported before a method needs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from backends import aws_logs, aws_machines, aws_registry, sagemaker_checks, sagemaker_request, sagemaker_status
from backends.aws_calls import Account, AwsError, call, pages
from backends.aws_storage import Store, fetch_archive
from backends.home import data_home
from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    Cursor,
    Finding,
    Handle,
    JobNotFound,
    Json,
    LogLine,
    Offer,
    Plan,
    State,
    Status,
    Submission,
)
from backends.sagemaker_request import JOB_TAG, SECRET_STORE, SECRET_VARIABLE, SageMakerOptions, run_name, secret_name

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CHANNELS = (sagemaker_request.DATA_CHANNEL, sagemaker_request.SPEC_CHANNEL)
REMOVED_TAG = "ftlaunch:removed"
NOT_FOUND = "requested resource not found"
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


class SageMaker(Backend):
    """Trains on Amazon SageMaker."""

    name: ClassVar[str] = sagemaker_request.NAME
    capabilities: ClassVar[Capabilities] = Capabilities(
        spot=True,
        several_machines=True,
        secrets=True,
        log_cursor=True,
        resume=True,
        partial_fetch=True,
        billable_seconds=True,
    )
    options: ClassVar[type[BackendOptions]] = SageMakerOptions
    summary: ClassVar[str] = "Amazon SageMaker training jobs, spot or on demand, billed by the second"
    extra: ClassVar[str] = "aws"

    def plan(self, submission: Submission) -> Plan:
        """The CreateTrainingJob request, exactly as it is sent, with what else the submit needs beside it."""
        return sagemaker_request.make_plan(submission)

    def resolve(self, plan: Plan) -> Plan:
        """Fill account, bucket and role from what AWS knows."""
        known = _known(plan)
        text = json.dumps(plan.request)
        for key, value in known.items():
            text = text.replace(sagemaker_request.placeholder(key), value)
        request = json.loads(text)
        return plan.model_copy(
            update={"request": request, "unresolved": sagemaker_request.unresolved(request)} if known else {}
        )

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look at credentials, role, bucket, image and quota."""
        return sagemaker_checks.findings(_account(plan.request), plan)

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Send data to S3 by content, spec.json beside it, and the image to ECR."""
        account = _account(plan.request)
        request: Json = plan.request["CreateTrainingJob"]
        data, spec = (Store(account.client("s3"), sagemaker_request.source(request, name)) for name in CHANNELS)
        _make_default_bucket(account, data.bucket)
        data.send_files(f"{data.prefix.rpartition('/data/')[0]}/files", plan.inputs, files)
        spec.send_text("spec.json", plan.spec.model_dump_json(by_alias=True, indent=1))
        aws_registry.send(account, plan.image, request["AlgorithmSpecification"]["TrainingImage"])

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Put the secrets into Secrets Manager and create the training job; one of that name is given as it is."""
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        request: Json = plan.request["CreateTrainingJob"]
        account = _account(plan.request)
        _note(plan)
        if _describe(account, plan.job_name) is None:
            _put_secrets(account, plan.job_name, secrets)
            try:
                _create(account, request, plan.request["via"])
            except BackendError:
                _delete_secrets(account, request)
                raise
        return _handle(account, plan.job_name, 0, request["AlgorithmSpecification"]["TrainingImage"])

    def find(self, job_name: str) -> Handle | None:
        """Ask for a training job of that name where it was to be submitted, and for its resumed ones."""
        account = _noted(job_name)
        job, last = _describe(account, job_name), 0
        while job is not None and (later := _describe(account, run_name(job_name, last + 1))) is not None:
            job, last = later, last + 1
        return None if job is None else _handle(account, job_name, last, job["AlgorithmSpecification"]["TrainingImage"])

    def known(self) -> Iterable[Handle]:
        """The account's training jobs that carry our tag, in the region that AWS's tools take by default."""
        account = Account(SageMakerOptions().region)
        tagged = {"Filters": [{"Name": f"Tags.{JOB_TAG}", "Operator": "Exists"}]}
        found = pages(account.client("sagemaker").search, "Results", Resource="TrainingJob", SearchExpression=tagged)
        names = [tag["Value"] for each in found for tag in each["TrainingJob"]["Tags"] if tag["Key"] == JOB_TAG]
        return [handle for name in dict.fromkeys(names) if (handle := self.find(name)) is not None]

    def status(self, handle: Handle) -> Status:
        """Describe the training job; billed seconds are those of all its lives and machines."""
        account, run = _of_handle(handle)
        told = sagemaker_status.status(_existing(account, handle.job_name, run))
        if told.billable_seconds is None or run == 0:
            return told
        before = [sagemaker_status.status(_existing(account, handle.job_name, earlier)) for earlier in range(run)]
        seconds = told.billable_seconds + sum(each.billable_seconds or 0.0 for each in before)
        return told.model_copy(update={"billable_seconds": seconds})

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines in CloudWatch of all machines, in all lives."""
        account, run = _of_handle(handle)
        if after is None:
            _existing(account, handle.job_name, run)
        prefixes = [f"{run_name(handle.job_name, each)}/" for each in range(run + 1)]
        yield from aws_logs.lines(account.client("logs"), LOG_GROUP, prefixes, after)

    def cancel(self, handle: Handle) -> None:
        """StopTrainingJob: SIGTERM, and SIGKILL after 120 s."""
        account, run = _of_handle(handle)
        job = _existing(account, handle.job_name, run)
        if job["TrainingJobStatus"] != "InProgress":
            return
        try:
            call(account.client("sagemaker").stop_training_job, TrainingJobName=job["TrainingJobName"])
        except AwsError as error:
            if error.code != "ValidationException":  # it ended in this moment
                raise

    def resume(self, handle: Handle) -> Handle:
        """Create the next training job with the same request and checkpoints."""
        account, run = _of_handle(handle)
        latest = self.find(handle.job_name)
        if latest is not None:
            run = int(latest.data["run"])
        job = _existing(account, handle.job_name, run)
        image = job["AlgorithmSpecification"]["TrainingImage"]
        state = sagemaker_status.status(job).state
        if state.ended and state is not State.SUCCEEDED:
            tags = _tags(account, job["TrainingJobArn"])
            if REMOVED_TAG in tags:
                raise BackendError(f"the checkpoints of {handle.job_name} were removed", hint="run the job again")
            run += 1
            request = {key: job[key] for key in KEPT if key in job}
            request["TrainingJobName"] = run_name(handle.job_name, run)
            request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
            _create(account, request, "boto3")
        return _handle(account, handle.job_name, run, image)

    def fetch(self, handle: Handle, into: Path) -> None:
        """Fetch and unpack model.tar.gz; of a job that SageMaker made none of, the copy beside its checkpoints."""
        account, run = _of_handle(handle)
        job = _existing(account, handle.job_name, run)
        if not sagemaker_status.status(job).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch logs -f {handle.job_name}")
        archive = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        if archive:
            fetch_archive(account.client("s3"), archive, into)
        else:
            Store(account.client("s3"), f"{job['CheckpointConfig']['S3Uri']}/{RESCUED}").fetch(into)

    def remove(self, handle: Handle) -> None:
        """Delete the ended job's secrets and checkpoints; its results stay in the bucket, its record at SageMaker."""
        account, run = _of_handle(handle)
        job = _existing(account, handle.job_name, run)
        if not sagemaker_status.status(job).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch cancel {handle.job_name}")
        mark = [{"Key": REMOVED_TAG, "Value": "true"}]
        call(account.client("sagemaker").add_tags, ResourceArn=job["TrainingJobArn"], Tags=mark)
        _delete_secrets(account, job)
        Store(account.client("s3"), job["CheckpointConfig"]["S3Uri"]).delete()

    def offers(self, region: str | None) -> Iterable[Offer]:
        """The machines with GPUs and their bundled prices."""
        return aws_machines.offers(self.name, region)


def _account(request: Json) -> Account:
    return Account(str(request["region"]), request["profile"])


def _handle(account: Account, job_name: str, run: int, image: str) -> Handle:
    place = {"region": account.region, "profile": account.profile, "run": run}
    return Handle(
        backend=SageMaker.name,
        job_name=job_name,
        data=place | {"image": image, "image_digest": aws_registry.digest(account, image)},
    )


def _of_handle(handle: Handle) -> tuple[Account, int]:
    try:
        return Account(str(handle.data["region"]), handle.data["profile"]), int(handle.data["run"])
    except (KeyError, ValueError, TypeError) as error:
        message = f"the record of {handle.job_name} does not say where it runs"
        raise BackendError(message, hint="run the job again; it is found by its name") from error


def _note(plan: Plan) -> None:
    """Keep where the job is being created, for a launcher that is killed before it hears of it."""
    folder = data_home() / SageMaker.name
    folder.mkdir(parents=True, exist_ok=True)
    place = {key: plan.request[key] for key in ("region", "profile")}
    (folder / f"{plan.job_name}.json").write_text(json.dumps(place))


def _noted(job_name: str) -> Account:
    path = data_home() / SageMaker.name / f"{job_name}.json"
    place: Json = json.loads(path.read_text()) if path.exists() else {}
    return Account(str(place.get("region") or SageMakerOptions().region), place.get("profile"))


def _describe(account: Account, name: str) -> Json | None:
    try:
        job: Json = call(account.client("sagemaker").describe_training_job, TrainingJobName=name)
    except AwsError as error:
        if NOT_FOUND in error.message.lower():
            return None
        raise
    return job


def _existing(account: Account, job_name: str, run: int) -> Json:
    job = _describe(account, run_name(job_name, run))
    if job is None:
        message = f"SageMaker in {account.region} knows no training job {run_name(job_name, run)}"
        raise JobNotFound(message, hint="ftlaunch jobs lists those that were started")
    return job


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


def _known(plan: Plan) -> dict[str, str]:
    missing = {each.path.rpartition(".")[2] for each in plan.unresolved} - {"image"}
    if not missing:
        return {}
    account = _account(plan.request)
    if plan.request["via"] == "sdk":
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
    ]
    own = caller.split("/")[1] if ":assumed-role/" in caller else None
    same = [arn for arn in trusted if arn.rpartition("/")[2] == own]
    if same:
        return same[0]
    return trusted[0] if len(trusted) == 1 else None


def _make_default_bucket(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    try:
        call(s3.head_bucket, Bucket=bucket)
    except AwsError as error:
        if error.code not in ("404", "NoSuchBucket", "NotFound"):
            raise
        if bucket != sagemaker_checks.default_bucket(account.region, str(account.identity()["Account"])):
            raise BackendError(f"there is no bucket {bucket}", hint="correct backends.sagemaker.bucket") from error
        there = {} if account.region == "us-east-1" else {"LocationConstraint": account.region}
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
