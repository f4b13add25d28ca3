"""What would make SageMaker refuse a job, looked up before anything is started or paid for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from backends import aws_registry
from backends.aws_calls import Account, AwsError, call, pages
from backends.aws_storage import split_uri
from backends.interface import BackendError, Finding, Json, Plan
from backends.sagemaker_request import ECR_IMAGE

SERVICE = "sagemaker.amazonaws.com"
ROLE_POLICY = "docs/sagemaker-role-policy.json is a policy that has all of them"
CONSOLE = "https://{region}.console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas/{code}"


def findings(account: Account, plan: Plan) -> list[Finding]:
    """All that can be found; nothing is changed."""
    request: Json = plan.request["CreateTrainingJob"]
    try:
        identity = account.identity()
    except BackendError as error:
        return [Finding(level="error", code="credentials", message=error.message, hint=error.hint)]
    found: list[Finding] = []
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("role", lambda: _role(account, request, plan)),
        ("bucket", lambda: _bucket(account, request, str(identity["Account"]))),
        ("image", lambda: _image(account, request, plan)),
        ("quota", lambda: _quota(account, request)),
    )
    for code, check in checks:
        try:
            found += check()
        except BackendError as error:
            # Whoever may not look may still be allowed to start the job.
            message = f"could not look at the {code}: {error.message}"
            found.append(Finding(level="warning", code=code, message=message, hint=error.hint))
    return found


def _role(account: Account, request: Json, plan: Plan) -> Iterator[Finding]:
    arn = str(request["RoleArn"])
    iam = account.client("iam")
    try:
        role = call(iam.get_role, RoleName=arn.rpartition("/")[2])["Role"]
    except AwsError as error:
        if error.code != "NoSuchEntity":
            raise
        yield _error("role", f"there is no role {arn}", "correct backends.sagemaker.role, or make the role")
        return
    if SERVICE not in json.dumps(role["AssumeRolePolicyDocument"]):
        hint = f'let "{SERVICE}" assume it (sts:AssumeRole in its trust policy)'
        yield _error("role", f"SageMaker may not assume the role {arn}", hint)
    denied = [right for actions, resource in _rights(request, plan) for right in _denied(iam, arn, actions, resource)]
    if denied:
        yield _error("role", f"the role {arn} lacks {', '.join(sorted(denied))}", ROLE_POLICY)


def _rights(request: Json, plan: Plan) -> Iterator[tuple[list[str], str]]:
    """What the job's role must be allowed: actions and on what."""
    bucket, key = split_uri(request["CheckpointConfig"]["S3Uri"])
    yield ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"arn:aws:s3:::{bucket}/{key}/any"
    yield ["s3:ListBucket"], f"arn:aws:s3:::{bucket}"
    place = f"{plan.request['region']}:{request['RoleArn'].split(':')[4]}"
    group = f"arn:aws:logs:{place}:log-group:/aws/sagemaker/TrainingJobs:log-stream:any"
    yield ["logs:CreateLogStream", "logs:PutLogEvents"], group
    yield ["cloudwatch:PutMetricData", "ecr:GetAuthorizationToken"], "*"
    image = aws_registry.parse(request["AlgorithmSpecification"]["TrainingImage"])
    repository = f"arn:aws:ecr:{image.region}:{image.account}:repository/{image.repository}"
    yield ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], repository
    if plan.request["secrets"]:
        yield ["secretsmanager:GetSecretValue"], f"arn:aws:secretsmanager:{place}:secret:ftlaunch/{plan.job_name}/any"


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
        region = call(account.client("s3").head_bucket, Bucket=bucket).get("BucketRegion")
    except AwsError as error:
        if error.code not in ("404", "NoSuchBucket", "NotFound"):
            raise
        if bucket == default_bucket(account.region, owner):
            message = f"the bucket {bucket} is not there yet; it is made with the first job"
            yield Finding(level="note", code="bucket", message=message)
            return
        hint = f"aws s3 mb s3://{bucket} --region {account.region}, or correct backends.sagemaker.bucket"
        yield _error("bucket", f"there is no bucket {bucket}", hint)
        return
    if region not in (None, account.region):
        hint = f"take a bucket in {account.region}, or set backends.sagemaker.region: {region}"
        yield _error("bucket", f"the bucket {bucket} is in {region}, the job in {account.region}", hint)


def _image(account: Account, request: Json, plan: Plan) -> Iterator[Finding]:
    uri = str(request["AlgorithmSpecification"]["TrainingImage"])
    if aws_registry.digest(account, uri) is not None:
        return
    if plan.image is None or ECR_IMAGE.fullmatch(plan.image) or uri.rpartition(":")[2] != plan.image.rpartition(":")[2]:
        yield _error("image", f"there is no image {uri}", "push it, or leave backends.sagemaker.image out")
        return
    message = f"the image {plan.image} is not in ECR yet; it is pushed with the job"
    yield Finding(level="note", code="image", message=message)


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
            yield _error("quota", message, hint)
        if not missing:
            return
    for name in sorted(missing):
        message = f"Service Quotas does not list {name!r}: is {machine} a training machine in {account.region}?"
        hint = "correct resources.machine; the SageMaker pricing page lists those of a region"
        yield Finding(level="warning", code="quota", message=message, hint=hint)


def default_bucket(region: str, account: str) -> str:
    """The bucket that SageMaker's own tools use by default."""
    return f"sagemaker-{region}-{account}"


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding(level="error", code=code, message=message, hint=hint)
