"""The whole walk of a user: one command from the rows to the verdict, in a real notebook, on a loopback project."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from google.cloud.aiplatform_v1.types import MachineSpec, NotebookExecutionJob, NotebookRuntimeTemplate

from backends.conformance.jobs import Watch, prepare, start
from backends.interface import Resources, State
from tests.clouds.google.project import NOTEBOOK_ACCOUNT
from tests.colab_enterprise.conftest import MACHINE
from tests.on_clouds.walk import SECRET, Walk, write_job
from tests.tiny_model import MODEL


@pytest.fixture(scope="module")
def walk(google, tmp_path_factory):
    options = {"service_account": NOTEBOOK_ACCOUNT}
    made = Walk(tmp_path_factory.mktemp("walk"), "colab-enterprise", MACHINE, options, spot=False)
    [made.job] = google.notebooks.named(made.name)
    return made


def test_colab_enterprise_walk_ends_with_a_verdict(walk):
    walk.check_verdict()
    assert walk.document["billable_seconds"] is None


def test_colab_enterprise_executed_notebook_comes_back(walk):
    notebook = nbformat.read(walk.folder / "out" / "notebook.ipynb", as_version=4)
    program, run = notebook.cells[1:]
    assert (program.execution_count, run.execution_count) == (1, 2)
    shown = "".join(output.get("text", "") for output in run.outputs)
    walk.check_log(walk.name, shown)


def test_colab_enterprise_request_sent_is_the_one_planned(walk, google):
    dry = walk.planned()
    assert [each["path"] for each in dry["unresolved"]] == ["backends.colab-enterprise.project"]
    text = json.dumps(dry["request"]).replace("<colab-enterprise.project>", google.project)
    planned = json.loads(text.replace(dry["job"], walk.name))
    sent = NotebookExecutionJob.from_json(json.dumps(walk.job.body))
    assert NotebookExecutionJob.from_json(json.dumps(planned["notebookExecutionJob"])) == sent
    assert sent.execution_timeout.total_seconds() == 3600
    contents = google.buckets.contents(f"{google.project}-ftlaunch-{google.region}")
    staged = json.loads(contents[f"ftlaunch/jobs/{walk.name}/notebook.ipynb"])
    assert staged["metadata"]["ftlaunch"] == planned["notebook"]["metadata"]["ftlaunch"]


def test_colab_enterprise_secret_is_where_it_belongs_and_nowhere_else(walk, google):
    name = f"projects/{google.project}/secrets/ftlaunch-{walk.name}-{SECRET}"
    assert {who for who, read in google.secrets.read if read == name} == {NOTEBOOK_ACCOUNT}
    contents = [each for bucket in google.buckets.storage.buckets for each in google.buckets.contents(bucket).items()]
    walk.check_secret_nowhere([*contents, *((call.url, call.body) for call in google.calls)])


def test_colab_enterprise_finished_jobs_are_known_without_credentials(walk, google):
    walk.check_known_without_credentials(google)


def test_colab_enterprise_walk_sends_nothing_a_second_time(walk, google, monkeypatch):
    """Another attempt at the same rows: its own spec and notebook go over the wire, and no file of the job."""
    monkeypatch.setattr(google, "starting_seconds", 60.0)  # cancelled before it has a machine
    before = google.buckets.received.value
    walk.here("run", walk.folder, "--detach", "--yes")
    second = list(google.notebooks.jobs.values())[-1]
    second.cancel()
    assert second is not walk.job
    assert google.buckets.received.value - before < (MODEL / "tokenizer.json").stat().st_size


def test_colab_enterprise_job_runs_by_a_runtime_template(harness, google):
    name = f"{google.notebooks.parent}/notebookRuntimeTemplates/78"
    machine = MachineSpec(machine_type=MACHINE)
    google.notebooks.templates[name] = NotebookRuntimeTemplate(name=name, display_name="mine", machine_spec=machine)
    job = prepare(harness, "template")
    changed = {"options": job.submission.options | {"runtime_template": "78"}, "resources": Resources()}
    submission = job.submission.model_copy(update=changed)
    job = type(job)(submission, harness.fresh().plan(submission), job.files)
    run = Watch(harness, start(harness, job)).finish(job)
    assert run.end.state is State.SUCCEEDED, run.end
    [execution] = harness.jobs(run.handle.job_name)
    assert execution.body["notebookRuntimeTemplateResourceName"] == name
    assert "customEnvironmentSpec" not in execution.body


def refused(walk, *arguments) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("ftlaunch")), *map(str, arguments)]
    done = subprocess.run(command, env=walk.environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_colab_enterprise_refuses_a_spot_job(walk):
    done = refused(walk, "run", walk.folder, "--dry-run", "--set", "resources.spot=true")
    assert done.returncode == 3
    assert "on demand only" in done.stderr
    assert "--backend vertex" in done.stderr


def test_colab_enterprise_rows_are_checked_before_anything_is_paid_for(walk, google, tmp_path):
    options = {"colab-enterprise": {"service_account": NOTEBOOK_ACCOUNT}}
    folder = write_job(tmp_path, backend="colab-enterprise", backends=options, resources={"machine": MACHINE})
    with (folder / "train.jsonl").open("a") as rows:
        rows.write('{"text": "this row never ends\n')
    before = len(google.calls)
    done = refused(walk, "run", folder, "--yes")
    assert done.returncode == 2
    assert "train.jsonl" in done.stderr
    assert len(google.calls) == before
