"""What the preflight finds, and the remedy that it names."""

import contextlib

import pytest

from backends.azureml import AzureML
from backends.interface import BackendError, Resources, Submission
from tests.clouds.azure.account import CLUSTER, MACHINE
from tests.clouds.azure.quotas import LOW_PRIORITY
from training_image.spec import Data, Model, Spec, Task

GPU_MACHINE = "Standard_NC4as_T4_v3"


@pytest.fixture
def submission(harness, image):
    def make(options=None, resources=None, **more):
        return Submission(
            job_name="glosses-0123abcd",
            spec=Spec(job="j", model=Model(id="m"), data=Data(train="train.jsonl"), task=Task(type="classification")),
            files={"train.jsonl": "a" * 64},
            image=more.pop("image", image),
            resources=resources or Resources(machine=MACHINE),
            options=harness.facts() | (options or {}),
            **more,
        )

    return make


@pytest.fixture
def look(submission):
    def find(*arguments, **more):
        backend = AzureML.create()
        return backend.preflight(backend.plan(submission(*arguments, **more)))

    return find


def errors(findings):
    assert all(finding.hint for finding in findings if finding.level == "error")
    return {finding.code: finding for finding in findings if finding.level == "error"}


def warnings(findings):
    return {finding.code: finding for finding in findings if finding.level == "warning"}


def test_azureml_preflight_finds_nothing_wrong(look, azure):
    before = dict(azure.arm.environments), azure.registry.front.tags("ftlaunch"), dict(azure.vault.values)
    findings = look(secrets=("HF_TOKEN",))
    assert {finding.level for finding in findings} <= {"note"}, findings
    assert before == (azure.arm.environments, azure.registry.front.tags("ftlaunch"), azure.vault.values)


def test_azureml_preflight_names_a_wrong_client_secret(look, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not the secret")
    found = errors(look())
    assert list(found) == ["credentials"]
    assert "AADSTS7000215" in found["credentials"].message
    assert "az login" in found["credentials"].hint


def test_azureml_preflight_names_expired_credentials(look, azure):
    with azure.trouble(expired=True):
        found = errors(look())
    assert "does not take the credentials" in found["workspace"].message
    assert "az login" in found["workspace"].hint


def test_azureml_preflight_names_the_missing_workspace(look):
    found = errors(look({"workspace": "gone"}))
    assert list(found) == ["workspace"]


def test_azureml_preflight_names_the_missing_datastore(look):
    assert "no datastore gone" in errors(look({"datastore": "gone"}))["datastore"].message


def test_azureml_preflight_names_quota_by_family(look, azure):
    found = errors(look(resources=Resources(machine=GPU_MACHINE, machines=2)))["quota"]
    assert "0 of 0 cores of Standard NCASv3_T4 Family are free in eastus, the job needs 8" in found.message
    with quota(azure, "Standard NCASv3_T4 Family", 8):
        assert errors(look(resources=Resources(machine=GPU_MACHINE, machines=2))) == {}


def test_azureml_preflight_counts_low_priority_cores_apart(look, azure):
    spot = Resources(machine=GPU_MACHINE, spot=True)
    assert errors(look(resources=spot)) == {}
    with quota(azure, LOW_PRIORITY, 2):
        assert LOW_PRIORITY in errors(look(resources=spot))["quota"].message


def test_azureml_preflight_knows_a_familys_low_priority_row_from_its_dedicated_one(look, azure):
    """They have the same name; -1 stands for no limit."""
    family, spot = "Standard NCASv3_T4 Family", Resources(machine=GPU_MACHINE, spot=True)
    azure.quotas.low_priority_limits[family] = 2
    try:
        assert f"2 of 2 cores of {family}" in errors(look(resources=spot))["quota"].message
        with quota(azure, family, 4):
            assert errors(look(resources=Resources(machine=GPU_MACHINE))) == {}
    finally:
        azure.quotas.low_priority_limits.clear()
    with quota(azure, family, -1):
        assert errors(look(resources=Resources(machine=GPU_MACHINE))) == {}


def test_azureml_preflight_names_a_machine_that_the_region_has_not(look):
    found = errors(look(resources=Resources(machine="Standard_NC4as_T5")))["quota"]
    assert "Standard_NC4as_T5" in found.message
    assert "list-sizes" in found.hint


def test_azureml_preflight_compares_the_clusters_tier(look, azure):
    azure.arm.add_cluster("dedicated", MACHINE, 1, low_priority=False)
    spot = Resources(spot=True)
    assert errors(look({"compute": CLUSTER}, spot)) == {}
    assert "dedicated" in errors(look({"compute": "dedicated"}, spot))["compute"].message
    assert "low priority" in warnings(look({"compute": CLUSTER}, Resources(machine=MACHINE)))["compute"].message
    found = errors(look({"compute": "dedicated"}, Resources(machines=2)))["compute"]
    assert "1 machines at most" in found.message
    assert "--max-instances 2" in found.hint


def test_azureml_preflight_compares_the_clusters_machines(look):
    found = errors(look({"compute": CLUSTER}, Resources(machine=GPU_MACHINE)))["compute"]
    assert f"are {MACHINE}, the job and its price are for {GPU_MACHINE}" in found.message
    assert f"resources.machine: {MACHINE}" in found.hint
    [told] = [finding for finding in look({"compute": CLUSTER}, Resources(spot=True)) if finding.code == "compute"]
    assert (told.level, told.hint) == ("note", f"set resources.machine: {MACHINE}")


def test_azureml_preflight_leaves_no_gpu_of_several_machines_idle(look, azure):
    """Azure ML starts one process a machine where the job does not say which one it is."""
    azure.arm.add_cluster("eights", "STANDARD_ND96ASR_V4", 2, low_priority=False)
    found = errors(look({"compute": "eights"}, Resources(machines=2)))["compute"]
    assert "have 8 GPUs each, the job would use 1 of each" in found.message
    assert found.hint == "set resources.machine: Standard_ND96asr_v4"
    named = Resources(machine="Standard_ND96asr_v4", machines=2)
    for resources in (named, Resources()):  # one machine's GPUs are the container's own business
        assert errors(look({"compute": "eights"}, resources)) == {}


def test_azureml_preflight_tells_of_a_price_of_another_region(look):
    found = warnings(look({"region": "westeurope"}))["region"]
    assert "is in eastus" in found.message
    assert found.hint == "set backends.azureml.region: eastus"


def test_azureml_preflight_names_the_missing_cluster(look):
    assert "no compute cluster gone" in errors(look({"compute": "gone"}))["compute"].message


def test_azureml_preflight_names_the_missing_image(look, azure):
    given = f"{azure.registry.host}/ftlaunch:never-pushed"
    assert given in errors(look({"image": given}))["image"].message


def test_azureml_preflight_of_whoever_may_not_look_is_a_warning(look, azure):
    with azure.rights.without("Microsoft.ContainerRegistry/registries/pull/read") as refused:
        findings = look()
    assert refused
    assert errors(findings) == {}
    assert "could not look at the image" in warnings(findings)["image"].message


def test_azureml_resolve_fills_what_azure_knows(submission, harness):
    backend = AzureML.create()
    bare = submission(secrets=("HF_TOKEN",)).model_copy(update={"options": {}})
    filled = backend.resolve(backend.plan(bare))
    whole = backend.plan(submission(secrets=("HF_TOKEN",)))
    assert filled.unresolved == ()
    assert filled.request == whole.request


def test_azureml_refuses_what_a_role_does_not_allow(submission, azure):
    backend = AzureML.create()
    with (
        azure.rights.without("Microsoft.MachineLearningServices/workspaces/jobs/write"),
        pytest.raises(BackendError, match="does not allow") as refused,
    ):
        backend.submit(backend.plan(submission(secrets=())), {})
    assert "azureml-role.json" in refused.value.hint


@contextlib.contextmanager
def quota(azure, family, cores):
    azure.quotas.limits[family] = cores
    try:
        yield
    finally:
        del azure.quotas.limits[family]
