"""What the preflight finds, and the remedy that it names."""

import contextlib
import json
import secrets
import time

import pytest

from backends.interface import BackendError, Resources
from backends.sagemaker import SageMaker
from tests.clouds.aws.account import ROLE_POLICY, TRUST, policy_in_vpc
from tests.sagemaker.conftest import MACHINE
from tests.sagemaker.test_sagemaker_request import submission


@pytest.fixture
def look(aws, image):
    def find(options=None, resources=None, **more):
        facts = {"role": aws.role, "account": aws.account, "bucket": f"sagemaker-{aws.region}-{aws.account}"}
        made = submission(facts | (options or {}), resources or Resources(machine=MACHINE), image=image, **more)
        return SageMaker.create().preflight(SageMaker.create().plan(made))

    return find


def errors(findings):
    assert all(finding.hint for finding in findings if finding.level == "error")
    return {finding.code: finding for finding in findings if finding.level == "error"}


def test_sagemaker_preflight_finds_nothing_wrong(look, aws):
    before = aws.front.tags("ftlaunch")
    findings = look(secrets=("HF_TOKEN",))
    assert errors(findings) == {}
    assert {finding.level for finding in findings} <= {"note"}
    assert aws.front.tags("ftlaunch") == before


def test_sagemaker_preflight_names_expired_credentials(look, aws):
    with aws.trouble(expired=True):
        found = errors(look())
    assert list(found) == ["credentials"]
    assert "expired" in found["credentials"].message
    assert "log in" in found["credentials"].hint


def test_sagemaker_preflight_needs_credentials(look, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no AWS credentials" in errors(look())["credentials"].message


def test_sagemaker_without_a_network_says_so_soon(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    began = time.monotonic()
    with pytest.raises(BackendError, match="AWS cannot be reached") as told:
        SageMaker.create().resolve(SageMaker.create().plan(submission({})))
    assert "HTTPS_PROXY" in told.value.hint
    assert time.monotonic() - began < 20


def test_sagemaker_preflight_names_the_missing_role(look, aws):
    gone = f"arn:aws:iam::{aws.account}:role/gone"
    assert gone in errors(look({"role": gone}))["role"].message


def test_sagemaker_preflight_names_a_role_that_sagemaker_may_not_assume(look, aws):
    trust = {**TRUST, "Statement": [aws_service("ec2.amazonaws.com")]}
    with role(aws, json.loads(ROLE_POLICY.read_text()), trust) as arn:
        found = errors(look({"role": arn}))["role"]
    assert "may not assume" in found.message
    assert "sagemaker.amazonaws.com" in found.hint


def test_sagemaker_preflight_names_every_right_that_the_role_lacks(look, aws):
    only_s3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    with role(aws, only_s3, TRUST) as arn:
        found = errors(look({"role": arn}, secrets=("HF_TOKEN",)))["role"]
    for right in (
        "logs:CreateLogGroup",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "ecr:BatchGetImage",
        "cloudwatch:PutMetricData",
        "secretsmanager:GetSecretValue",
    ):
        assert right in found.message
    assert "s3:" not in found.message
    assert "sagemaker-role-policy.json" in found.hint


WITHIN = {"subnets": ["subnet-0a"], "security_groups": ["sg-0a"], "kms_key": "1234-abcd", "volume_kms_key": "5678-abcd"}


def test_sagemaker_preflight_knows_what_vpc_and_kms_need(look, aws):
    """The page's own statements are enough, and the shipped policy without them is not."""
    found = errors(look(WITHIN))["role"]
    for right in ("ec2:CreateNetworkInterface", "kms:GenerateDataKey", "kms:CreateGrant"):
        assert right in found.message
    assert "docs/sagemaker.md" in found.hint
    with role(aws, policy_in_vpc(), TRUST) as arn:
        assert errors(look({"role": arn, **WITHIN})) == {}


def test_sagemaker_preflight_names_the_bucket(look, aws):
    assert "no bucket" in errors(look({"bucket": "sagemaker-gone"}))["bucket"].message
    aws.s3.create_bucket(Bucket="sagemaker-far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    found = errors(look({"bucket": "sagemaker-far"}))["bucket"]
    assert "eu-west-1" in found.message
    assert "backends.sagemaker.region: eu-west-1" in found.hint


@pytest.fixture
def foreign(aws):
    """The default bucket of another region, which somebody else took first."""
    region = "eu-west-1"
    bucket = f"sagemaker-{region}-{aws.account}"
    aws.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    aws.bucket_owners[bucket] = "999999999999"
    yield {"region": region, "bucket": bucket}
    del aws.bucket_owners[bucket]
    aws.s3.delete_bucket(Bucket=bucket)


def test_sagemaker_preflight_names_a_default_bucket_of_another_account(look, aws, foreign):
    found = errors(look(foreign))["bucket"]
    assert f"belongs to another account than {aws.account}" in found.message
    del aws.bucket_owners[foreign["bucket"]]
    try:
        assert "bucket" not in errors(look(foreign))
    finally:
        aws.bucket_owners[foreign["bucket"]] = "999999999999"


def test_sagemaker_no_data_goes_into_a_default_bucket_of_another_account(aws, foreign, tmp_path):
    rows = tmp_path / "train.jsonl"
    rows.write_text("rows")
    backend = SageMaker.create()
    plan = backend.plan(submission({"role": aws.role, "account": aws.account} | foreign))
    with pytest.raises(BackendError, match="belongs to another account"):
        backend.stage(plan, {"train.jsonl": rows})
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=foreign["bucket"])


def test_sagemaker_resolve_takes_no_role_that_a_service_has_for_itself(aws):
    with role(aws, json.loads(ROLE_POLICY.read_text()), TRUST, path="/aws-service-role/sagemaker.amazonaws.com/"):
        filled = SageMaker.create().resolve(SageMaker.create().plan(submission({})))
    assert filled.request["CreateTrainingJob"]["RoleArn"] == aws.role


def test_sagemaker_preflight_names_an_image_that_is_not_there(look, aws):
    gone = f"{aws.front.host}/ftlaunch:gone"
    assert gone in errors(look({"image": gone}))["image"].message


@pytest.mark.parametrize(
    ("resources", "use"),
    [
        (Resources(machine="ml.g4dn.xlarge"), "training job usage"),
        (Resources(gpu="H100", spot=True), "spot training job usage"),
    ],
)
def test_sagemaker_preflight_names_the_quota_by_its_code(look, aws, resources, use):
    found = errors(look(resources=resources))["quota"]
    machine = resources.machine or "ml.p5.4xlarge"
    assert f"'{machine} for {use}' is 0" in found.message
    quota = next(quota for quota in all_quotas(aws) if quota["QuotaName"] == f"{machine} for {use}")
    assert f"/quotas/{quota['QuotaCode']}" in found.hint
    aws.quotas.values[f"{machine} for {use}"] = 1.0
    try:
        assert "quota" not in errors(look(resources=resources))
        assert "quota" in errors(look(resources=resources.model_copy(update={"machines": 2})))
    finally:
        aws.quotas.values.clear()


def test_sagemaker_preflight_knows_the_quota_of_warm_pools(look, aws):
    aws.quotas.values["ml.g5.xlarge for training job usage"] = 1.0
    try:
        found = errors(look({"keep_alive_seconds": 600}, Resources(machine="ml.g5.xlarge")))["quota"]
    finally:
        aws.quotas.values.clear()
    assert "warm pool" in found.message


def test_sagemaker_preflight_warns_of_a_machine_that_has_no_quota(look):
    findings = look(resources=Resources(machine="ml.z9.huge"))
    assert [finding.level for finding in findings if finding.code == "quota"] == ["warning"]


def test_sagemaker_who_may_not_look_is_only_warned(look, aws, monkeypatch):
    few = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Resource": "*"}]}
    weak = aws.rights.add_user(f"weak-{secrets.token_hex(4)}", json.dumps(few))
    for name, value in weak.items():
        monkeypatch.setenv(name, value)
    findings = look()
    assert {finding.level for finding in findings} == {"warning"}
    assert {finding.code for finding in findings} == {"role", "bucket", "image", "quota"}
    aws.denied.clear()


def all_quotas(aws):
    token = {}
    while True:
        page = aws.quotas.list(token)
        yield from page["Quotas"]
        if "NextToken" not in page:
            return
        token = {"NextToken": page["NextToken"]}


def aws_service(name):
    return {"Effect": "Allow", "Principal": {"Service": name}, "Action": "sts:AssumeRole"}


@contextlib.contextmanager
def role(aws, policy, trust, path="/"):
    name = f"role-{secrets.token_hex(4)}"
    made = aws.iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(trust))
    arn = made["Role"]["Arn"]
    aws.iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=json.dumps(policy))
    try:
        yield arn
    finally:
        aws.iam.delete_role_policy(RoleName=name, PolicyName="policy")
        aws.iam.delete_role(RoleName=name)
