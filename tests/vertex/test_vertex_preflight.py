"""What the preflight finds, and the remedy that it names."""

import json

import pytest

from backends.google_calls import Account
from backends.google_storage import make_bucket
from backends.interface import Reason, Resources
from backends.vertex import Vertex
from tests.clouds.google.project import JOB_ACCOUNT, USER
from tests.vertex.conftest import MACHINE
from tests.vertex.test_vertex_request import submission

CPUS = "aiplatform.googleapis.com/custom_model_training_cpus"


@pytest.fixture
def look(google):
    def find(options=None, resources=None, **more):
        facts = {"project": google.project, "service_account": JOB_ACCOUNT}
        made = submission(facts | (options or {}), resources or Resources(machine=MACHINE), **more)
        return Vertex.create().preflight(Vertex.create().plan(made))

    return find


def errors(findings):
    assert all(finding.hint for finding in findings if finding.level == "error")
    return {finding.code: finding for finding in findings if finding.level == "error"}


def test_vertex_preflight_finds_nothing_wrong(look):
    findings = look(secrets=("HF_TOKEN",))
    assert errors(findings) == {}
    assert {finding.level for finding in findings} <= {"note"}


def test_vertex_preflight_takes_a_service_accounts_key_file(look, google, tmp_path, monkeypatch):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(google.tokens.key_file(USER)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert errors(look()) == {}
    wrong = google.tokens.key_file(USER) | {"private_key_id": "0" * 16}
    path.write_text(json.dumps(wrong))
    assert "expired or were revoked" in errors(look())["credentials"].message


def test_vertex_preflight_names_expired_credentials(look, google):
    with google.trouble(expired=True):
        found = errors(look())
    assert list(found) == ["credentials"]
    assert "gcloud auth application-default login" in found["credentials"].hint


def test_vertex_preflight_needs_credentials(look, monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    assert "no Google credentials" in errors(look())["credentials"].message
    (tmp_path / "broken.json").write_text("{")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "broken.json"))
    assert "no Google credentials" in errors(look())["credentials"].message


def test_vertex_preflight_names_an_api_that_is_off(look, google):
    google.services.off.add("secretmanager.googleapis.com")
    try:
        assert "apis" not in errors(look())
        found = errors(look(secrets=("HF_TOKEN",)))["apis"]
    finally:
        google.services.off.clear()
    assert "Secret Manager" in found.message
    assert f"gcloud services enable secretmanager.googleapis.com --project {google.project}" in found.hint


def test_vertex_preflight_names_the_bucket(look, google):
    assert "no bucket" in errors(look({"bucket": "gone-bucket"}))["bucket"].message
    google.buckets.make("far-bucket", "EUROPE-WEST4")
    google.buckets.make("wide-bucket", "US")
    assert "europe-west4" in errors(look({"bucket": "far-bucket"}))["bucket"].hint
    assert "bucket" not in errors(look({"bucket": "wide-bucket"}))


def test_vertex_preflight_names_a_bucket_that_others_have_taken(look, google, monkeypatch):
    name = f"{google.project}-ftlaunch-{google.region}"
    make_bucket(Account(google.project, google.region), name)
    assert "bucket" not in errors(look())
    monkeypatch.setitem(google.buckets.storage.buckets[name], "projectNumber", "1")
    assert "another project" in errors(look())["bucket"].message


def test_vertex_preflight_names_an_image_that_is_not_there(look, google):
    gone = f"{google.front.host}/{google.project}/ftlaunch/other:gone"
    assert gone in errors(look({"image": gone}))["image"].message


def test_vertex_preflight_names_the_service_account(look, google):
    gone = "gone@loopback-project.iam.gserviceaccount.com"
    assert gone in errors(look({"service_account": gone}))["service account"].message
    google.accounts.acting[gone] = set()
    try:
        found = errors(look({"service_account": gone}))["service account"]
    finally:
        del google.accounts.acting[gone]
    assert "roles/iam.serviceAccountUser" in found.hint


@pytest.mark.parametrize(
    ("resources", "metric", "needed"),
    [
        (Resources(gpu="T4"), "custom_model_training_nvidia_t4_gpus", 1),
        (Resources(gpu="A100", spot=True), "custom_model_training_preemptible_nvidia_a100_gpus", 1),
        (Resources(gpu="H100", spot=True), "custom_model_training_preemptible_nvidia_h100_gpus", 1),
        (Resources(machine="g2-standard-24", machines=3), "custom_model_training_nvidia_l4_gpus", 6),
    ],
)
def test_vertex_preflight_names_the_exact_quota(look, google, resources, metric, needed):
    name = f"aiplatform.googleapis.com/{metric}"
    found = errors(look(resources=resources))["quota"]
    assert f"the quota {name} is 0 in {google.region}, the job needs {needed}" in found.message
    assert google.project in found.hint
    google.services.limits[name] = needed
    try:
        assert "quota" not in errors(look(resources=resources))
        google.services.limits[name] = needed - 1
        assert "quota" in errors(look(resources=resources)) or needed == 1
    finally:
        google.services.limits.clear()


def test_vertex_preflight_counts_cpus_where_there_is_no_gpu(look, google):
    google.services.limits[CPUS] = 7
    try:
        assert "quota" not in errors(look())
        assert "needs 8" in errors(look(resources=Resources(machine=MACHINE, machines=2)))["quota"].message
    finally:
        google.services.limits.clear()


def test_vertex_who_may_not_look_is_only_warned(look, google, monkeypatch, tmp_path):
    path = tmp_path / "login.json"
    path.write_text(json.dumps(google.tokens.user_file("weak@example.com")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    findings = look({"service_account": JOB_ACCOUNT})
    google.denied.clear()
    assert {finding.code for finding in findings if finding.level == "warning"} == {"apis", "bucket", "image", "quota"}


def test_vertex_a_call_that_is_not_allowed_is_refused(google, monkeypatch, tmp_path):
    """The role is in force: without this `test_vertex_roles` would show nothing."""
    from backends.interface import BackendError

    path = tmp_path / "login.json"
    path.write_text(json.dumps(google.tokens.user_file("weak@example.com")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(BackendError, match=r"aiplatform\.customJobs\.list") as refused:
        Vertex.create().find("any-0123abcd")
    assert refused.value.reason is Reason.CREDENTIALS
    assert "docs/vertex.md" in refused.value.hint
    google.denied.clear()
