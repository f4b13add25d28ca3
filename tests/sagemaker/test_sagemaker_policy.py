"""The shipped policies allow what is done, and nothing else. In these tests they are in force: a call that they do not
allow is refused, and fails its test."""

import json
import secrets
import tarfile

import pytest

from backends import aws_registry
from backends.aws_calls import Account
from backends.interface import State
from backends.sagemaker import SageMaker
from tests.clouds.aws.account import POLICY, ROLE_POLICY
from tests.sagemaker.test_sagemaker_storage import break_an_upload, make_bucket

NO_MORE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}],
}


def actions(path) -> set[str]:
    found = set()
    for statement in json.loads(path.read_text())["Statement"]:
        assert statement["Effect"] == "Allow"
        listed = statement["Action"]
        found |= {listed} if isinstance(listed, str) else set(listed)
    return found


@pytest.fixture(scope="module")
def everything(harness, aws, sdk, tmp_path_factory):
    """All that the backend does: the suite's shared jobs, and what they leave out."""
    runs = harness.runs
    assert runs.output
    assert runs.resumed.run.end.state is State.SUCCEEDED
    backend, job = SageMaker.create(), runs.finished.job
    bare = backend.plan(job.submission.model_copy(update={"options": {}}))
    plan = backend.resolve(bare)
    assert plan.unresolved == ()
    backend.resolve(backend.plan(job.submission.model_copy(update={"options": {"via": "sdk"}})))
    backend.preflight(plan)
    list(backend.known())
    make_bucket(aws)
    break_an_upload(aws, Account(aws.region).client("s3"), "ftlaunch/policy", tmp_path_factory.mktemp("broken"))
    push_new_image(aws, tmp_path_factory.mktemp("image"))
    backend.submit(again(job.plan, "with-secret-0123abcd"), {"NAME": harness.secret})
    handle = backend.find("with-secret-0123abcd")
    backend.cancel(handle)
    while not backend.status(handle).state.ended:
        pass
    backend.remove(handle)
    backend.remove(runs.cancelled.run.handle)
    return aws


def again(plan, name):
    """The same request for a job of another name, whose secret is there already."""
    request = json.loads(json.dumps(plan.request).replace(plan.job_name, name))
    manager = Account("us-east-1").client("secretsmanager")
    manager.create_secret(Name=f"ftlaunch/{name}/NAME", SecretString="older")
    return plan.model_copy(update={"job_name": name, "request": request})


def push_new_image(aws, folder):
    """An image whose layer the registry has never seen."""
    (folder / "new").write_text(secrets.token_hex(64))
    with tarfile.open(folder / "new.tar", "w") as tar:
        tar.add(folder / "new", "new")
    tag = secrets.token_hex(4)
    aws.engine.api.import_image_from_file(str(folder / "new.tar"), repository="ftlaunch-new", tag=tag)
    try:
        uri = f"{aws.front.host}/ftlaunch:{tag}"
        assert aws_registry.send(Account("us-east-1"), f"ftlaunch-new:{tag}", uri).startswith("sha256:")
    finally:
        aws.engine.images.remove(f"ftlaunch-new:{tag}")


def test_sagemaker_policy_is_what_the_backend_does(everything):
    key = everything.user["AWS_ACCESS_KEY_ID"]
    used = {action for call in everything.calls if call.key == key for action, _ in call.rights}
    used |= {action for who, action, _ in everything.images.used if who == key}
    used |= {"ecr:BatchGetImage"}  # Docker 20.10 never asks; engines since 25 look for the manifest before they push
    assert used == actions(POLICY)


def test_sagemaker_role_policy_is_what_its_jobs_do(everything):
    role = everything.role
    keys = {key for key, owner in everything.rights.owners.items() if owner == role}
    used = {action for call in everything.calls if call.key in keys for action, _ in call.rights}
    used |= {action for who, action in everything.role_used if who == role}
    assert used == actions(ROLE_POLICY)


def test_sagemaker_a_call_that_is_not_allowed_is_refused(aws, harness, monkeypatch):
    """The policies are in force: without this the two tests above would show nothing."""
    from backends.interface import BackendError, Reason

    weak = aws.rights.add_user(f"weak-{secrets.token_hex(4)}", json.dumps(NO_MORE))
    for name, value in weak.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BackendError, match="not authorized to perform: sagemaker:DescribeTrainingJob") as refused:
        SageMaker.create().find("any-0123abcd")
    assert refused.value.reason is Reason.CREDENTIALS
    assert "docs/sagemaker-policy.json" in refused.value.hint
    assert [action for _, action, _ in aws.denied] == ["sagemaker:DescribeTrainingJob"]
    aws.denied.clear()
