"""The plan's request and notebook, held against Google's types, nbformat and the rules of the loopback service."""

import ast
import json
import types

import nbformat
import pytest
from google.cloud.aiplatform_v1.types import NotebookExecutionJob, NotebookRuntimeTemplate
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backends.colab_enterprise import ColabEnterprise, _written
from backends.colab_enterprise_request import RUNNER, ColabEnterpriseOptions, execution_id
from backends.google_machines import compute_quotas, machine_for
from backends.interface import BackendError, Resources, Submission
from tests.clouds.google.answers import Refused
from tests.clouds.google.notebooks import Notebooks
from tests.clouds.google.services import METRICS
from tests.clouds.google.shapes import parsed
from training_image.contracts import COLAB_ENTERPRISE
from training_image.platform import detect
from training_image.spec import Data, Model, Spec, Task

ACCOUNT = "notebooks@my-project.iam.gserviceaccount.com"
FACTS = {"project": "my-project", "service_account": ACCOUNT}
NAME = "stem-0123abcd"
PARENT = "projects/my-project/locations/us-central1"
TEMPLATE = f"{PARENT}/notebookRuntimeTemplates/1234"


def submission(options=None, resources=None, **more):
    spec = Spec(job=NAME, model=Model(id="org/name"), data=Data(train="train.jsonl"), task=Task(type="classification"))
    return Submission(
        job_name=more.pop("job_name", NAME),
        spec=spec,
        files=more.pop("files", {"train.jsonl": "a" * 64}),
        resources=resources or Resources(),
        options=FACTS if options is None else options,
        **more,
    )


def plan(*arguments, **keywords):
    return ColabEnterprise.create().plan(submission(*arguments, **keywords))


@pytest.fixture(scope="module")
def service():
    """The service's own checks, without its runtimes."""
    accounts = types.SimpleNamespace(acting={ACCOUNT: set()})
    made = Notebooks(types.SimpleNamespace(project="my-project", region="us-central1", accounts=accounts))
    made.templates[TEMPLATE] = NotebookRuntimeTemplate(name=TEMPLATE, display_name="mine")
    return made


def checked(service, request):
    message = parsed(NotebookExecutionJob, json.dumps(request["notebookExecutionJob"]).encode())
    service.check(message, request["notebookExecutionJobId"])
    return message


@pytest.mark.parametrize(
    ("options", "resources", "more"),
    [
        (FACTS, Resources(), {}),
        (FACTS, Resources(gpu="T4"), {"max_seconds": 3600, "secrets": ("A_B",)}),
        (
            {**FACTS, "bucket": "my-bucket", "prefix": "a/b", "labels": {"team": "nlp"}},
            Resources(machine="e2-standard-4"),
            {},
        ),
        ({**FACTS, "runtime_template": "1234"}, Resources(), {}),
        (FACTS, Resources(machine="a2-highgpu-1g", disk_gb=500), {"job_name": "Stem-With-Capitals-0123abcd"}),
    ],
)
def test_colab_enterprise_request_is_valid(service, options, resources, more):
    checked(service, plan(options, resources, **more).request)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda job: job.update(nonsense=1), "nonsense"),
        (lambda job: job.pop("displayName"), "display_name"),
        (lambda job: job.update(jobState="JOB_STATE_RUNNING"), "set by the service"),
        (lambda job: job.pop("gcsNotebookSource"), "notebook source"),
        (lambda job: job.pop("gcsOutputUri"), "output"),
        (lambda job: job.pop("serviceAccount"), "identity"),
        (lambda job: job.pop("customEnvironmentSpec"), "environment"),
        (lambda job: job.update(notebookRuntimeTemplateResourceName=f"{TEMPLATE}5"), "environment|5"),
        (lambda job: job["customEnvironmentSpec"]["machineSpec"].update(machineType="g2-standard-96"), "L4"),
        (lambda job: job["labels"].update(ftlaunch_job="Capital"), "label"),
        (lambda job: job.update(serviceAccount="nobody@x"), "nobody"),
    ],
)
def test_colab_enterprise_service_refuses_what_is_wrong(service, change, word):
    """Without this the test above would show nothing."""
    request = plan().request
    change(request["notebookExecutionJob"])
    with pytest.raises(Refused, match=word):
        checked(service, request)


def test_colab_enterprise_request_has_what_was_asked_for(service):
    options = {**FACTS, "bucket": "my-bucket", "prefix": "a/b", "labels": {"team": "nlp"}}
    made = plan(options, Resources(gpu="A100", disk_gb=200), max_seconds=5400)
    message = checked(service, made.request)
    assert (message.display_name, made.request["notebookExecutionJobId"]) == (NAME, NAME)
    assert dict(message.labels) == {"ftlaunch_job": NAME, "team": "nlp"}
    environment = message.custom_environment_spec
    machine = environment.machine_spec
    assert (machine.machine_type, machine.accelerator_type.name) == ("a2-highgpu-1g", "NVIDIA_TESLA_A100")
    assert machine.accelerator_count == 1
    assert environment.persistent_disk_spec.disk_size_gb == 200
    assert environment.network_spec.enable_internet_access
    assert message.execution_timeout.total_seconds() == 5400
    assert message.service_account == ACCOUNT
    assert message.gcs_notebook_source.uri == f"gs://my-bucket/a/b/jobs/{NAME}/notebook.ipynb"
    assert message.gcs_output_uri == f"gs://my-bucket/a/b/jobs/{NAME}/executed"
    assert (made.machine, made.region, made.image) == ("a2-highgpu-1g", "us-central1", None)


def test_colab_enterprise_template_takes_the_place_of_the_machine(service):
    by_template = plan({**FACTS, "runtime_template": "1234"})
    message = checked(service, by_template.request)
    assert message.notebook_runtime_template_resource_name == TEMPLATE
    assert by_template.machine is None
    assert plan({**FACTS, "runtime_template": "1234"}, Resources(gpu="L4")).machine == "g2-standard-8"


def test_colab_enterprise_notebook_is_one_and_names_secrets_only():
    request = plan(secrets=("HF_TOKEN",), max_seconds=60).request
    notebook = nbformat.reads(_written(request["notebook"]), as_version=4)
    about, program, run = notebook.cells
    assert about.cell_type == "markdown"
    assert program.source == RUNNER.read_text()
    call = ast.parse(run.source).body[0].value
    given = ast.literal_eval(call.func.value.args[0])
    assert given == request["notebook"]["metadata"]["ftlaunch"]
    assert given["max_seconds"] == 60
    secret = f"google:projects/my-project/secrets/ftlaunch-{NAME}-HF_TOKEN/versions/latest"
    assert given["environment"]["FTLAUNCH_SECRET_HF_TOKEN"] == secret


def test_colab_enterprise_notebook_imports_nothing_of_ours():
    imported = set()
    for node in ast.walk(ast.parse(RUNNER.read_text())):
        if isinstance(node, ast.Import):
            imported |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert not imported & {"backends", "launcher", "training_image"}


def test_colab_enterprise_training_knows_where_it_is():
    made = ColabEnterprise.create().container(plan())
    none = dict.fromkeys(("spec", "data", "output", "checkpoints", "deadline"))
    found = detect(none, made.environment | {"COLAB_RELEASE_TAG": "release-colab"})
    assert found.name == "colab-enterprise"
    mounts = {mount.holds: mount.name for mount in made.mounts}
    assert (str(found.data), str(found.output)) == (mounts["data"], mounts["output"])
    assert str(found.checkpoints) == mounts["checkpoints"] == COLAB_ENTERPRISE.checkpoints


def test_colab_enterprise_what_is_not_known_is_named():
    found = plan({})
    known = ["backends.colab-enterprise.project", "backends.colab-enterprise.service_account"]
    assert [each.path for each in found.unresolved] == known
    assert all(each.hint for each in found.unresolved)
    assert found.request["project"] == "<colab-enterprise.project>"


@pytest.mark.parametrize("offer", list(ColabEnterprise.create().offers(None)), ids=lambda offer: offer.machine)
def test_colab_enterprise_every_offer_can_be_asked_for(service, offer):
    assert offer.usd_per_hour is None  # no rate is published, and none is made up
    assert {metric for metric, _ in compute_quotas(machine_for(Resources(machine=offer.machine)))} <= set(METRICS)
    made = plan(resources=Resources(machine=offer.machine))
    assert (made.machine, made.region) == (offer.machine, offer.region)
    checked(service, made.request)


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        (Resources(spot=True), "spot"),
        (Resources(machines=2), "one machine"),
        (Resources(gpu="T800"), "T800"),
        (Resources(machine="e2-standard-8", gpu="L4"), "no GPU"),
    ],
)
def test_colab_enterprise_impossible_jobs_are_refused_at_once(resources, word):
    with pytest.raises(BackendError, match=word) as refused:
        plan(resources=resources)
    assert refused.value.hint


@pytest.mark.parametrize(
    "options", [{"region": "mars"}, {"project": "12"}, {"bukket": "b"}, {"runtime_template": "a/b"}, {"image": "i"}]
)
def test_colab_enterprise_options_are_strict(options):
    with pytest.raises(ValidationError):
        ColabEnterpriseOptions.model_validate(options)


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,52}[A-Za-z0-9])?-[0-9a-f]{8}", fullmatch=True))
def test_colab_enterprise_every_job_name_makes_an_id_of_its_own(name):
    service = Notebooks(
        types.SimpleNamespace(
            project="my-project", region="us-central1", accounts=types.SimpleNamespace(acting={ACCOUNT})
        )
    )
    assert checked(service, plan(job_name=name, secrets=("HF_TOKEN",)).request).display_name == name
    assert name == name.lower() or execution_id(name) != execution_id(name.lower())
