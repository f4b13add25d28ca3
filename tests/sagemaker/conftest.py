"""One loopback account for all tests of SageMaker: the shipped policies are in force, and no other host is reached."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "docs" / "sagemaker-policy.json"
ROLE_POLICY = ROOT / "docs" / "sagemaker-role-policy.json"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
MACHINE = "ml.m5.xlarge"


def pytest_collection_modifyitems(items):
    """All in one process, where several run: they share one account."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("sagemaker"))


def services() -> str | None:
    """What is missing to run containers; None if nothing is."""
    if os.geteuid() != 0 or not shutil.which("docker"):
        return "needs a Docker engine, a registry and root: tests/services.sh start"
    answer = subprocess.run(["bash", str(ROOT / "tests" / "services.sh"), "status"], capture_output=True, check=False)
    return None if answer.returncode == 0 else "no engine or registry answers: tests/services.sh start"


@pytest.fixture(scope="session")
def image() -> str:
    """The real training image, built if this content was not."""
    named = os.environ.get("FTLAUNCH_TEST_IMAGE")
    if named:
        return named
    from launcher.image import Image, build

    name, _ = build(Image("cpu"), ROOT / "wheels" if (ROOT / "wheels").is_dir() else None)
    return name


@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    missing = services()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    assert missing is None, missing
    from tests.clouds.aws import loopback_aws

    folder = Path(tempfile.mkdtemp(prefix="ftlaunch-aws-"))
    with loopback_aws(folder) as cloud, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        role = cloud.iam.create_role(RoleName="ftlaunch-training", AssumeRolePolicyDocument=json.dumps(TRUST))
        cloud.iam.put_role_policy(
            RoleName="ftlaunch-training", PolicyName="policy", PolicyDocument=ROLE_POLICY.read_text()
        )
        cloud.role = role["Role"]["Arn"]
        cloud.user = cloud.rights.add_user("launcher", POLICY.read_text())
        cloud.grace_seconds = 30.0
        cloud.images.front.forget("ftlaunch")
        for name, value in (cloud.environment() | cloud.user).items():
            patch.setenv(name, value)
        patch.setenv("FTLAUNCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield cloud
        refused = list(cloud.gateway.refused)
    shutil.rmtree(folder, ignore_errors=True)
    assert not refused, f"hosts outside of the cloud were asked for: {refused}"


@pytest.fixture(autouse=True)
def nothing_else_is_reached(request):
    """Each test fails that reaches for another host, or makes a call that the shipped policies do not allow."""
    yield
    if "aws" in request.fixturenames:
        cloud = request.getfixturevalue("aws")
        assert cloud.gateway.refused == []
        assert cloud.denied == []


@pytest.fixture(scope="session")
def harness(aws, image, tmp_path_factory):
    from tests.sagemaker.harness import SageMakerHarness

    with SageMakerHarness(tmp_path_factory.mktemp("sagemaker"), aws, image) as made:
        yield made
