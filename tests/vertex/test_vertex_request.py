"""The plan's request, held against Google's own message types and the rules of the loopback service."""

import json
import types

import pytest
from google.cloud.aiplatform_v1.types import AcceleratorType, CustomJob, Scheduling
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backends import google_machines
from backends.google_machines import machine_for, quota_metric
from backends.interface import BackendError, Resources, Submission
from backends.vertex import Vertex
from backends.vertex_request import VertexOptions
from tests.clouds.google.answers import Refused
from tests.clouds.google.custom_jobs import CustomJobs
from tests.clouds.google.services import METRICS
from tests.clouds.google.shapes import parsed
from training_image.contracts import VERTEX
from training_image.platform import detect
from training_image.spec import Data, Model, Spec, Task

FACTS = {"project": "my-project"}
ACCOUNT = "training@my-project.iam.gserviceaccount.com"
NAME = "stem-0123abcd"


def submission(options=None, resources=None, **more):
    spec = Spec(job=NAME, model=Model(id="org/name"), data=Data(train="train.jsonl"), task=Task(type="classification"))
    return Submission(
        job_name=more.pop("job_name", NAME),
        spec=spec,
        files=more.pop("files", {"train.jsonl": "a" * 64}),
        image=more.pop("image", "ftlaunch:cpu-0123456789ab"),
        resources=resources or Resources(),
        options=FACTS if options is None else options,
        **more,
    )


def request(*arguments, **keywords):
    return Vertex.create().plan(submission(*arguments, **keywords)).request["customJob"]


@pytest.fixture(scope="module")
def service():
    """The service's own checks, without its machines."""
    accounts = types.SimpleNamespace(acting={ACCOUNT: set()})
    return CustomJobs(types.SimpleNamespace(project="my-project", region="us-central1", accounts=accounts))


def checked(service, made):
    message = parsed(CustomJob, json.dumps(made).encode())
    service._check(message)
    return message


WHOLE = {
    **FACTS,
    "service_account": ACCOUNT,
    "network": "projects/123/global/networks/net",
    "kms_key": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k",
    "tensorboard": "projects/my-project/locations/us-central1/tensorboards/123",
    "labels": {"team": "nlp"},
    "bucket": "my-bucket",
    "prefix": "a/b",
}


@pytest.mark.parametrize(
    ("options", "resources", "more"),
    [
        (FACTS, Resources(), {}),
        (FACTS, Resources(spot=True, machines=2, gpu="L4"), {"max_seconds": 3600}),
        (WHOLE, Resources(machine="a2-highgpu-1g", machines=4, disk_gb=500), {"max_seconds": 1, "secrets": ("A_B",)}),
        ({**FACTS, "scheduling": "flex-start", "max_wait_hours": 0.5}, Resources(gpu="H100"), {}),
        (FACTS, Resources(machine="n1-standard-8+2xT4"), {}),
        (FACTS, Resources(machine="e2-standard-4"), {"job_name": "Stem-With-Capitals-0123abcd"}),
    ],
)
def test_vertex_request_is_valid(service, options, resources, more):
    message = checked(service, request(options, resources, **more))
    assert sum(pool.replica_count for pool in message.job_spec.worker_pool_specs) == resources.machines


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda job: job.update(nonsense=1), "nonsense"),
        (lambda job: job.pop("displayName"), "CustomJob.display_name"),
        (lambda job: job.update(state="JOB_STATE_RUNNING"), "set by the service"),
        (lambda job: job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"].pop("imageUri"), "image_uri"),
        (lambda job: job["jobSpec"]["scheduling"].update(strategy="CHEAP"), "strategy"),
        (lambda job: job["jobSpec"]["workerPoolSpecs"][0]["machineSpec"].update(machineType="g2-standard-96"), "L4"),
        (lambda job: job["labels"].update(ftlaunch_job="Capital"), "label"),
    ],
)
def test_vertex_service_refuses_what_is_wrong(service, change, word):
    """Without this the test above would show nothing."""
    made = request()
    change(made)
    with pytest.raises(Refused, match=word):
        checked(service, made)


def test_vertex_request_has_what_was_asked_for(service):
    message = checked(service, request(WHOLE, Resources(gpu="A100", machines=3, disk_gb=200), max_seconds=5400))
    spec = message.job_spec
    assert message.display_name == NAME
    assert dict(message.labels) == {"ftlaunch_job": NAME, "ftlaunch_run": "0", "team": "nlp"}
    assert [pool.replica_count for pool in spec.worker_pool_specs] == [1, 2]
    machine = spec.worker_pool_specs[1].machine_spec
    assert (machine.machine_type, machine.accelerator_type.name) == ("a2-highgpu-1g", "NVIDIA_TESLA_A100")
    assert spec.worker_pool_specs[0].disk_spec.boot_disk_size_gb == 200
    assert spec.scheduling.timeout.total_seconds() == 5400
    assert (spec.service_account, spec.network, spec.tensorboard) == (ACCOUNT, WHOLE["network"], WHOLE["tensorboard"])
    assert message.encryption_spec.kms_key_name == WHOLE["kms_key"]
    assert spec.base_output_directory.output_uri_prefix == f"gs://my-bucket/a/b/jobs/{NAME}"
    image = "us-central1-docker.pkg.dev/my-project/ftlaunch/ftlaunch:cpu-0123456789ab"
    assert {pool.container_spec.image_uri for pool in spec.worker_pool_specs} == {image}


def test_vertex_only_spot_jobs_are_started_again_by_the_service():
    assert request()["jobSpec"]["scheduling"]["disableRetries"] is True
    spot = request(resources=Resources(spot=True, machines=2))["jobSpec"]["scheduling"]
    assert (spot["disableRetries"], spot["restartJobOnWorkerRestart"], spot["strategy"]) == (False, True, "SPOT")


@pytest.mark.parametrize(("told", "hours"), [({}, 24), ({"max_wait_hours": 0.5}, 0.5)], ids=["default", "told"])
def test_vertex_flex_start_waits_for_machines(service, told, hours):
    scheduling = checked(service, request({**FACTS, "scheduling": "flex-start", **told})).job_spec.scheduling
    assert scheduling.strategy is Scheduling.Strategy.FLEX_START
    assert scheduling.max_wait_duration.total_seconds() == hours * 3600
    assert scheduling.disable_retries


def test_vertex_container_finds_its_folders_in_the_request():
    """The variables of the request, by the container's own code."""
    plan = Vertex.create().plan(submission(max_seconds=60))
    made = Vertex.create().container(plan)
    none = dict.fromkeys(("spec", "data", "output", "checkpoints", "deadline"))
    found = detect(none, VERTEX.environment | made.derived | made.environment)
    mounts = {mount.holds: VERTEX.inputs.format(name=mount.name) for mount in made.mounts}
    assert (str(found.spec), str(found.data)) == (f"{mounts['spec']}/spec.json", mounts["data"])
    assert (str(found.mirror), str(found.checkpoints)) == (mounts["output"], mounts["checkpoints"])


def test_vertex_what_is_not_known_is_named():
    plan = Vertex.create().plan(submission({}))
    assert [each.path for each in plan.unresolved] == ["backends.vertex.project"]
    assert plan.request["project"] == "<vertex.project>"
    assert plan.request["region"] == "us-central1"
    with_secret = Vertex.create().plan(submission(FACTS, secrets=("HF_TOKEN",)))
    assert [each.path for each in with_secret.unresolved] == ["backends.vertex.service_account"]
    assert Vertex.create().plan(submission(FACTS, image=None)).unresolved[0].path == "backends.vertex.image"


def test_vertex_image_in_the_registry_is_taken_as_it_is():
    there = "europe-west4-docker.pkg.dev/other/team/image@sha256:" + "0" * 64
    for made in (request(image=there), request({**FACTS, "image": there})):
        assert made["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["imageUri"] == there


def test_vertex_accelerators_are_the_services():
    known = set(AcceleratorType.__members__)
    assert {accelerator for _, accelerator, _ in google_machines.BUILT_IN} <= set(google_machines.GPUS) <= known


@pytest.mark.parametrize("offer", list(Vertex.create().offers(None)), ids=lambda offer: offer.machine)
def test_vertex_every_offer_can_be_asked_for(service, offer):
    machine = machine_for(Resources(machine=offer.machine))
    assert (machine.gpus, google_machines.GPUS[machine.accelerator]) == (offer.gpu_count, offer.gpu)
    assert machine.listed == offer.machine
    for interruptible in (False, True):
        assert quota_metric(machine, interruptible)[0] in METRICS
    plan = Vertex.create().plan(submission(resources=Resources(machine=offer.machine, spot=True)))
    assert (plan.machine, plan.region) == (offer.machine, offer.region)
    checked(service, plan.request["customJob"])


@pytest.mark.parametrize(
    ("options", "resources", "word"),
    [
        (FACTS, Resources(gpu="T800"), "T800"),
        (FACTS, Resources(machine="g2-standard-8", gpu="A100"), "A100"),
        (FACTS, Resources(machine="e2-standard-8", gpu="L4"), "no GPU"),
        (FACTS, Resources(machine="n1-standard-96+1xT4"), "96"),
        (FACTS, Resources(machine="ml.g5.xlarge"), "ml.g5.xlarge"),
        (FACTS, Resources(gpu="H100"), "on demand"),
        ({**FACTS, "scheduling": "flex-start"}, Resources(spot=True), "exclude"),
    ],
)
def test_vertex_impossible_jobs_are_refused_at_once(options, resources, word):
    with pytest.raises(BackendError, match=word) as refused:
        request(options, resources)
    assert refused.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"region": "mars"},
        {"project": "12"},
        {"bukket": "b"},
        {"max_wait_hours": 3},
        {"tensorboard": WHOLE["tensorboard"]},
    ],
)
def test_vertex_options_are_strict(options):
    with pytest.raises(ValidationError):
        VertexOptions.model_validate(options)


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,52}[A-Za-z0-9])?-[0-9a-f]{8}", fullmatch=True))
def test_vertex_every_job_name_makes_valid_labels_and_secrets(name):
    service = CustomJobs(
        types.SimpleNamespace(project="p", region="r", accounts=types.SimpleNamespace(acting={ACCOUNT}))
    )
    made = request({**FACTS, "service_account": ACCOUNT}, job_name=name, secrets=("HF_TOKEN",))
    assert checked(service, made).display_name == name
