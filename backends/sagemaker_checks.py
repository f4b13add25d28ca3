"""What would make SageMaker refuse a job, looked up before anything is started or paid for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from backends import aws_registry
from backends.aws_calls import Account, AwsError, call, pages
from backends.aws_storage import split_uri
from backends.cloud_checks import looked, missing_image, wrong
from backends.interface import BackendError, Finding, Json, Plan, Reason
from backends.sagemaker_request import is_own_image

SERVICE = "sagemaker.amazonaws.com"
ROLE_POLICY = (
    "docs/sagemaker-role-policy.json is a policy that has all of them, docs/sagemaker.md tells what VPC and KMS add"
)
IN_VPC = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)
"""What the job's role needs for machines in a VPC. Source: AWS, SageMaker execution roles, CreateTrainingJob."""
CONSOLE = "https://{region}.console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas/{code}"


def findings(account: Account, plan: Plan) -> list[Finding]:
    """All that can be found; nothing is changed."""
    request: Json = plan.request["CreateTrainingJob"]
    try:
        identity = account.identity()
    except BackendError as error:
        return [wrong("credentials", error.message, error.hint)]
    return looked(
        ("role", lambda: _role(account, request, plan)),
        ("bucket", lambda: _bucket(account, request, str(identity["Account"]))),
        ("image", lambda: _image(account, request, plan)),
        ("quota", lambda: _quota(account, request)),
    )


def _role(account: Account, request: Json, plan: Plan) -> Iterator[Finding]:
    arn = str(request["RoleArn"])
    iam = account.client("iam")
    try:
        role = call(iam.get_role, RoleName=arn.rpartition("/")[2])["Role"]
    except AwsError as error:
        if error.code != "NoSuchEntity":
            raise
        yield wrong("role", f"there is no role {arn}", "correct backends.sagemaker.role, or make the role")
        return
    if SERVICE not in json.dumps(role["AssumeRolePolicyDocument"]):
        hint = f'let "{SERVICE}" assume it (sts:AssumeRole in its trust policy)'
        yield wrong("role", f"SageMaker may not assume the role {arn}", hint)
    denied = [right for actions, resource in _rights(request, plan) for right in _denied(iam, arn, actions, resource)]
    if denied:
        yield wrong("role", f"the role {arn} lacks {', '.join(sorted(denied))}", ROLE_POLICY)


def _rights(request: Json, plan: Plan) -> Iterator[tuple[list[str], str]]:
    """What the job's role must be allowed: actions and on what."""
    bucket, key = split_uri(request["CheckpointConfig"]["S3Uri"])
    yield ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"arn:aws:s3:::{bucket}/{key}/any"
    yield ["s3:ListBucket"], f"arn:aws:s3:::{bucket}"
    place = f"{plan.request['region']}:{request['RoleArn'].split(':')[4]}"
    group = f"arn:aws:logs:{place}:log-group:/aws/sagemaker/TrainingJobs"
    yield ["logs:CreateLogGroup", "logs:DescribeLogStreams"], f"{group}:*"
    yield ["logs:CreateLogStream", "logs:PutLogEvents"], f"{group}:log-stream:any"
    yield ["cloudwatch:PutMetricData", "ecr:GetAuthorizationToken"], "*"
    image = aws_registry.parse(request["AlgorithmSpecification"]["TrainingImage"])
    repository = f"arn:aws:ecr:{image.region}:{image.account}:repository/{image.repository}"
    yield ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], repository
    if plan.request["secrets"]:
        yield ["secretsmanager:GetSecretValue"], f"arn:aws:secretsmanager:{place}:secret:ftlaunch/{plan.job_name}/any"
    if "VpcConfig" in request or plan.request["via"] == "sdk":  # the SDK takes no role without them, VPC or not
        yield list(IN_VPC), "*"
    for key, actions in (
        (request["OutputDataConfig"].get("KmsKeyId"), ["kms:Encrypt", "kms:GenerateDataKey"]),
        (request["ResourceConfig"].get("VolumeKmsKeyId"), ["kms:CreateGrant"]),
    ):
        if key:
            yield actions, str(key) if str(key).startswith("arn:") else f"arn:aws:kms:{place}:key/{key}"


def _denied(iam: Any, arn: str, actions: list[str], resource: str) -> Iterator[str]:
    results = pages(
        iam.simulate_principal_policy,
        "EvaluationResults",
        "Marker",
        PolicySourceArn=arn,
        ActionNames=actions,
        ResourceArns=[resource],
    )
    for each in results:
        if each["EvalDecision"] != "allowed":
            yield f"{each['EvalActionName']} on {resource}"


def _bucket(account: Account, request: Json, owner: str) -> Iterator[Finding]:
    bucket, _ = split_uri(request["OutputDataConfig"]["S3OutputPath"])
    try:
        told = find_bucket(account, bucket, owner)
    except ForeignBucket as error:
        yield wrong("bucket", error.message, error.hint)
        return
    if told is None:
        if bucket == default_bucket(account.region, owner):
            message = f"the bucket {bucket} is not there yet; it is made with the first job"
            yield Finding(level="note", code="bucket", message=message)
            return
        hint = f"aws s3 mb s3://{bucket} --region {account.region}, or correct backends.sagemaker.bucket"
        yield wrong("bucket", f"there is no bucket {bucket}", hint)
        return
    region = told.get("BucketRegion")
    if region not in (None, account.region):
        hint = f"take a bucket in {account.region}, or set backends.sagemaker.region: {region}"
        yield wrong("bucket", f"the bucket {bucket} is in {region}, the job in {account.region}", hint)


def _image(account: Account, request: Json, plan: Plan) -> Iterator[Finding]:
    uri = str(request["AlgorithmSpecification"]["TrainingImage"])
    if aws_registry.digest(account, uri) is None:
        yield missing_image(plan, uri, is_own_image(uri, plan.image))


def _quota(account: Account, request: Json) -> Iterator[Finding]:
    resources = request["ResourceConfig"]
    machine, count = resources["InstanceType"], resources["InstanceCount"]
    uses = ["spot training job usage" if request["EnableManagedSpotTraining"] else "training job usage"]
    if resources.get("KeepAlivePeriodInSeconds"):
        uses.append("training warm pool usage")
    missing = {f"{machine} for {use}" for use in uses}
    service = account.client("service-quotas")
    for quota in pages(service.list_service_quotas, "Quotas", ServiceCode="sagemaker", MaxResults=100):
        name = quota["QuotaName"]
        if name not in missing:
            continue
        missing.discard(name)
        if quota["Value"] < count:
            link = CONSOLE.format(region=account.region, code=quota["QuotaCode"])
            hint = f"request {count} or more: quota {quota['QuotaCode']} in the Service Quotas console, {link}"
            message = f"the quota {name!r} is {quota['Value']:.0f} in {account.region}, the job needs {count}"
            yield wrong("quota", message, hint)
        if not missing:
            return
    for name in sorted(missing):
        message = f"Service Quotas does not list {name!r}: is {machine} a training machine in {account.region}?"
        hint = "correct resources.machine; the SageMaker pricing page lists those of a region"
        yield Finding(level="warning", code="quota", message=message, hint=hint)


class ForeignBucket(BackendError):
    """The bucket with the account's default name belongs to another account."""


def find_bucket(account: Account, bucket: str, owner: str) -> Json | None:
    """What S3 tells of a bucket; None if there is none.

    The default bucket's name can be foretold, and whoever took it first would get the data: raises ForeignBucket where
    it is not ``owner``'s, the account's. A bucket that the user has named may be anybody's.
    """
    head = account.client("s3").head_bucket
    ours = {"ExpectedBucketOwner": owner} if bucket == default_bucket(account.region, owner) else {}
    try:
        told: Json = call(head, Bucket=bucket, **ours)
    except AwsError as error:
        if error.code in ("404", "NoSuchBucket", "NotFound"):
            return None
        if ours and error.code == "403" and _answers(head, bucket):
            message = f"the bucket {bucket} belongs to another account than {owner}: no data is sent there"
            hint = "set backends.sagemaker.bucket to a bucket of your own"
            raise ForeignBucket(message, hint=hint, reason=Reason.CREDENTIALS) from error
        raise
    return told


def _answers(head: Any, bucket: str) -> bool:
    """Whether S3 refused a bucket for its owner alone: it gives the same 403 to whoever may not look at all."""
    try:
        call(head, Bucket=bucket)
    except AwsError:
        return False
    return True


def default_bucket(region: str, account: str) -> str:
    """The bucket that SageMaker's own tools use by default."""
    return f"sagemaker-{region}-{account}"
