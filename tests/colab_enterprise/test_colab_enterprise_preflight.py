"""What the preflight finds, and the remedy that it names."""

import json

import pytest
from google.cloud.aiplatform_v1.types import MachineSpec, NotebookRuntimeTemplate

from backends.colab_enterprise import ColabEnterprise
from backends.interface import BackendError, Reason, Resources
from tests.clouds.google.project import NOTEBOOK_ACCOUNT
from tests.colab_enterprise.conftest import MACHINE
from tests.colab_enterprise.test_colab_enterprise_request import submission

GPU = "compute.googleapis.com/nvidia_l4_gpus"
EVERYWHERE = "compute.googleapis.com/gpus_all_regions"


@pytest.fixture
def look(google):
    def find(options=None, resources=None, **more):
        facts = {"project": google.project, "service_account": NOTEBOOK_ACCOUNT}
        made = submission(facts | (options or {}), resources or Resources(machine=MACHINE), **more)
        return ColabEnterprise.create().preflight(ColabEnterprise.create().plan(made))

    return find


@pytest.fixture
def template(google):
    """A runtime template with an L4."""
    name = f"{google.notebooks.parent}/notebookRuntimeTemplates/1234"
    machine = MachineSpec(machine_type="g2-standard-8", accelerator_type="NVIDIA_L4", accelerator_count=1)
    google.notebooks.templates[name] = NotebookRuntimeTemplate(name=name, display_name="mine", machine_spec=machine)
    yield "1234"
    del google.notebooks.templates[name]


@pytest.fixture
def limits(google):
    yield google.services.limits
    google.services.limits.clear()


def errors(findings):
    assert all(finding.hint for finding in findings if finding.level == "error")
    return {finding.code: finding for finding in findings if finding.level == "error"}


def test_colab_enterprise_preflight_finds_nothing_wrong(look):
    findings = look(secrets=("HF_TOKEN",))
    assert errors(findings) == {}
    assert {finding.level for finding in findings} <= {"note"}


def test_colab_enterprise_preflight_names_expired_credentials(look, google):
    with google.trouble(expired=True):
        found = errors(look())
    assert list(found) == ["credentials"]
    assert "gcloud auth application-default login" in found["credentials"].hint


@pytest.mark.parametrize(("api", "name"), [("compute", "Compute Engine"), ("secretmanager", "Secret Manager")])
def test_colab_enterprise_preflight_names_an_api_that_is_off(look, google, api, name):
    google.services.off.add(f"{api}.googleapis.com")
    try:
        found = errors(look(secrets=("HF_TOKEN",)))["apis"]
    finally:
        google.services.off.clear()
    assert name in found.message
    assert f"gcloud services enable {api}.googleapis.com --project {google.project}" in found.hint


def test_colab_enterprise_preflight_names_bucket_and_account(look):
    gone = "gone@loopback-project.iam.gserviceaccount.com"
    found = errors(look({"bucket": "gone-bucket", "service_account": gone}))
    assert "no bucket gone-bucket" in found["bucket"].message
    assert gone in found["service account"].message


def test_colab_enterprise_preflight_names_the_exact_quota(look, google, limits):
    found = errors(look(resources=Resources(gpu="L4")))["quota"]
    assert f"the quota {EVERYWHERE} is 0" in found.message  # the last of two
    limits[GPU] = limits[EVERYWHERE] = 1
    assert "quota" not in errors(look(resources=Resources(gpu="L4")))
    limits[GPU] = 0
    found = errors(look(resources=Resources(gpu="L4")))["quota"]
    assert f"the quota {GPU} is 0 in {google.region}, the job needs 1" in found.message
    limits["compute.googleapis.com/cpus"] = 3
    assert "needs 4" in errors(look())["quota"].message


def test_colab_enterprise_preflight_reads_the_runtime_template(look, limits, template):
    limits[GPU] = limits[EVERYWHERE] = 1
    assert errors(look({"runtime_template": template}, Resources())) == {}
    assert errors(look({"runtime_template": template}, Resources(gpu="L4"))) == {}
    found = errors(look({"runtime_template": template}, Resources(gpu="T4")))["runtime template"]
    assert "g2-standard-8" in found.message
    assert "n1-standard-4+1xT4" in found.message
    assert "there is no" in errors(look({"runtime_template": "gone"}, Resources()))["runtime template"].message
    limits[GPU] = 0
    assert "quota" in errors(look({"runtime_template": template}, Resources()))


def test_colab_enterprise_who_may_not_look_is_only_warned(look, google, monkeypatch, tmp_path):
    path = tmp_path / "login.json"
    path.write_text(json.dumps(google.tokens.user_file("weak@example.com")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    findings = look()
    with pytest.raises(BackendError, match=r"aiplatform\.notebookExecutionJobs\.get") as refused:
        ColabEnterprise.create().find("any-0123abcd")
    google.denied.clear()
    assert {finding.code for finding in findings if finding.level == "warning"} == {"apis", "bucket", "quota"}
    assert refused.value.reason is Reason.CREDENTIALS
