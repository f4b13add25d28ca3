"""The plan's body: held against the SDK's own models of the wire, and the same that the SDK makes of it."""

import json
from datetime import timedelta

import isodate
import pytest
from azure.ai.ml._restclient.arm_ml_service._utils.model_base import SdkJSONEncoder
from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backends import hardware
from backends.azure_machines import BY_PRICE
from backends.azure_storage import path_in_datastore
from backends.azureml import AzureML
from backends.azureml_command import entity
from backends.azureml_request import AzureMLOptions, duration, filled, secret_name
from backends.azureml_status import parse_duration
from backends.interface import BackendError, Resources, Submission
from tests.clouds.azure.shapes import problems
from training_image.spec import Data, Model, Spec, Task

FACTS = {
    "subscription": "6560575d-0000-4000-8000-cafe00000007",
    "resource_group": "team",
    "workspace": "tuning",
    "registry": "teamregistry",
    "key_vault": "team-vault",
}
VARIANTS = {
    "serverless": ({}, Resources()),
    "serverless-spot": ({}, Resources(gpu="A100", spot=True)),
    "cluster": ({"compute": "gpus"}, Resources()),
    "two-machines": ({"compute": "gpus"}, Resources(machines=2)),
    "many-gpus": ({}, Resources(machine="Standard_ND96isr_H100_v5", machines=2)),
    "identity": ({"identity": "33333333-3333-3333-3333-333333333333", "tags": {"team": "nlp"}}, Resources()),
    "image": ({"image": "other.azurecr.io/team/tuner@sha256:" + "a" * 64, "experiment": "glosses"}, Resources()),
}


def plan(options=None, resources=None, **more):
    """Of a small job with all facts given."""
    submission = Submission(
        job_name=more.pop("job_name", "glosses-0123abcd"),
        spec=Spec(
            job="j", model=Model(id="org/name"), data=Data(train="train.jsonl"), task=Task(type="classification")
        ),
        files=more.pop("files", {"train.jsonl": "a" * 64}),
        image="ftlaunch:cpu-0123456789ab",
        resources=resources or Resources(),
        options=FACTS if options is None else options,
        **more,
    )
    return AzureML.create().plan(submission)


def body(*arguments, **more):
    return plan(*arguments, **more).request["JobBase"]["properties"]


@pytest.mark.parametrize("secrets", [(), ("HF_TOKEN",)])
@pytest.mark.parametrize("seconds", [None, 5025, 90000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_azureml_body_is_what_the_sdk_sends(variant, seconds, secrets):
    options, resources = VARIANTS[variant]
    planned = body(FACTS | options, resources, max_seconds=seconds, secrets=secrets)
    assert problems("JobBase", {"properties": planned}) == []
    job = entity("glosses-0123abcd", planned)
    sent = json.loads(json.dumps(to_rest_job_object(job), cls=SdkJSONEncoder, exclude_readonly=True))
    assert sent == {"properties": planned}


def test_azureml_models_of_the_wire_find_what_is_wrong():
    wrong = body(FACTS, max_seconds=60)
    wrong["status"], wrong["unknown"] = "Running", 1
    wrong["limits"]["jobLimitsType"], wrong["inputs"]["data"]["mode"] = "Command", "Mounted"
    del wrong["environmentId"]
    told = "; ".join(problems("JobBase", {"properties": wrong}))
    for part in ("status: read-only", "unknown: not in the model", "environmentId: required", "'Mounted' is not one"):
        assert part in told


def test_azureml_unknown_facts_stand_as_placeholders():
    made = plan({}, secrets=("HF_TOKEN",))
    missing = {each.path.rpartition(".")[2] for each in made.unresolved}
    assert missing == {"subscription", "resource_group", "workspace", "registry", "key_vault"}
    request = filled(made.request, FACTS)
    assert request == plan(FACTS, secrets=("HF_TOKEN",)).request
    assert "<azureml" not in json.dumps(request)


def test_azureml_secrets_are_named_and_not_shown():
    made = plan(secrets=("HF_TOKEN",))
    assert made.request["secrets"] == {"HF_TOKEN": "***"}
    named = made.request["JobBase"]["properties"]["environmentVariables"]["FTLAUNCH_SECRET_HF_TOKEN"]
    assert named.startswith("keyvault:https://team-vault.vault.azure.net/secrets/ftlaunch-glosses-0123abcd-HF-TOKEN-")
    assert made.request["JobBase"]["properties"]["identity"] == {"identityType": "Managed"}
    assert "identity" not in body()


@given(
    job=st.from_regex(r"[a-z0-9-]{1,54}-[0-9a-f]{8}", fullmatch=True),
    names=st.sets(st.from_regex(r"[A-Za-z_]\w{0,90}", fullmatch=True)),
)
def test_azureml_names_of_secrets_are_valid_and_apart(job, names):
    made = [secret_name(job, name).lower() for name in names]  # a vault does not tell the cases apart
    assert len(set(made)) == len(names)
    for name in made:
        assert len(name) <= 127
        assert name.replace("-", "").isalnum()
        assert name.isascii()


@given(seconds=st.integers(0, 10**7))
def test_azureml_durations_are_iso_8601(seconds):
    text = duration(seconds)
    assert isodate.parse_duration(text) == timedelta(seconds=seconds)
    assert parse_duration(text) == seconds
    assert text in (isodate.duration_isoformat(timedelta(seconds=seconds)), "PT0S")


def test_azureml_two_machines_meet_by_the_pytorch_distribution():
    made = body(FACTS, Resources(machines=2))
    assert made["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 1}
    assert made["resources"]["instanceCount"] == 2
    many = body(FACTS, Resources(machine="Standard_ND96isr_H100_v5"))
    assert many["distribution"]["processCountPerInstance"] == 8
    shouted = body(resources=Resources(machine="STANDARD_ND96ISR_H100_V5", machines=2))
    assert shouted["distribution"]["processCountPerInstance"] == 8
    assert "distribution" not in body()


def test_azureml_spot_is_the_queue_of_serverless_and_the_tier_of_a_cluster():
    assert body(FACTS, Resources(spot=True))["queueSettings"] == {"jobTier": "Spot"}
    assert body(FACTS)["queueSettings"] == {"jobTier": "Standard"}
    cluster = body(FACTS | {"compute": "gpus"}, Resources(spot=True))
    assert "queueSettings" not in cluster
    assert "instanceType" not in cluster["resources"]
    assert cluster["computeId"].endswith("/workspaces/tuning/computes/gpus")


def test_azureml_data_is_shared_by_content_and_outputs_are_the_jobs_own():
    one = body(files={"train.jsonl": "a" * 64, "test.jsonl": "b" * 64})
    other = body(files={"test.jsonl": "b" * 64, "train.jsonl": "a" * 64}, job_name="other-0123abcd")
    assert one["inputs"]["data"] == other["inputs"]["data"]
    assert one["inputs"]["data"] != body(files={"train.jsonl": "b" * 64})["inputs"]["data"]
    places = [each["uri"] for made in (one, other) for each in made["outputs"].values()]
    assert len(set(places)) == 4


def test_azureml_paths_of_datastore_addresses():
    assert path_in_datastore("azureml://datastores/blobs/paths/a/b/") == ("blobs", "a/b")
    whole = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/blobs/paths/a/b"
    assert path_in_datastore(whole) == ("blobs", "a/b")


def test_azureml_gpus_are_those_of_the_machines():
    known = hardware.machines()
    for name in BY_PRICE:
        gpu = known["azureml", name].gpu
        chosen = plan(resources=Resources(gpu=gpu)).machine
        assert known["azureml", chosen].gpu == gpu
    with pytest.raises(BackendError, match="T800") as refused:
        plan(resources=Resources(gpu="T800"))
    assert refused.value.hint
    assert plan(FACTS | {"compute": "gpus"}).machine is None
    assert plan().machine == "Standard_NC4as_T4_v3"


def test_azureml_image_fits_the_machine():
    backend = AzureML.create()
    assert backend.torch(Resources(machine="Standard_DS3_v2")) == "cpu"
    assert backend.torch(Resources(gpu="A10")) == "cuda"
    assert backend.torch(Resources()) == "cuda"


@pytest.mark.parametrize(
    "options",
    [
        {"subscription": "mine"},
        {"region": "mars 1"},
        {"image": "python:3.11"},
        {"workspce": "w"},
        {"registry": "team.azurecr.io"},
        {"prefix": "/a"},
    ],
)
def test_azureml_options_are_strict(options):
    with pytest.raises(ValidationError):
        AzureMLOptions.model_validate(options)


def test_azureml_rehearsal_sees_the_bodys_own_command():
    made = plan(max_seconds=60, secrets=("HF_TOKEN",))
    told = AzureML.create().container(made)
    assert {(mount.name, mount.holds) for mount in told.mounts} == {
        ("data", "data"),
        ("spec", "spec"),
        ("output", "output"),
        ("checkpoints", "checkpoints"),
    }
    assert told.arguments == (made.request["JobBase"]["properties"]["command"],)
    assert told.environment["FTLAUNCH_MAX_SECONDS"] == "60"
