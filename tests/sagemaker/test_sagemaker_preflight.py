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
def role(aws, policy, trust):
    name = f"role-{secrets.token_hex(4)}"
    arn = aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    aws.iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=json.dumps(policy))
    try:
        yield arn
    finally:
        aws.iam.delete_role_policy(RoleName=name, PolicyName="policy")
        aws.iam.delete_role(RoleName=name)
