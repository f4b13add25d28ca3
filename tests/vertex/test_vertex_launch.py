"""The whole walk of a user: one command from the rows to the verdict, in the real image, on a loopback project."""

import json

import pytest
from google.cloud.aiplatform_v1.types import CustomJob

from tests.clouds.google import Google
from tests.clouds.google.project import JOB_ACCOUNT
from tests.on_clouds.walk import SECRET, Walk
from tests.tiny_model import MODEL
from tests.vertex.conftest import MACHINE

TENSORBOARD = f"projects/{Google.project}/locations/{Google.region}/tensorboards/7"


@pytest.fixture(scope="module")
def walk(google, image, tmp_path_factory):
    options = {"service_account": JOB_ACCOUNT, "tensorboard": TENSORBOARD}
    made = Walk(tmp_path_factory.mktemp("walk"), "vertex", MACHINE, options)
    [made.job] = google.custom_jobs.labelled("ftlaunch_job", made.name)
    return made


def test_vertex_walk_ends_with_a_verdict(walk):
    walk.check_verdict()
    told = walk.job.description()
    assert walk.document["billable_seconds"] == (told.end_time - told.start_time).total_seconds()


def test_vertex_request_sent_is_the_one_planned(walk, google):
    dry = walk.planned()
    assert [each["path"] for each in dry["unresolved"]] == ["backends.vertex.project"]
    text = json.dumps(dry["request"]["customJob"]).replace("<vertex.project>", google.project)
    planned = CustomJob.from_json(text.replace(dry["job"], walk.name))
    assert planned == CustomJob.from_json(json.dumps(walk.job.body))
    assert planned.job_spec.scheduling.timeout.total_seconds() == 3600


def test_vertex_record_names_the_image_that_ran(walk, google):
    walk.check_image([google.engine.images.get(each) for each in walk.job.image_ids])


def test_vertex_secret_is_where_it_belongs_and_nowhere_else(walk, google):
    name = f"projects/{google.project}/secrets/ftlaunch-{walk.name}-{SECRET}"
    assert {who for who, read in google.secrets.read if read == name} == {JOB_ACCOUNT}
    contents = [each for bucket in google.buckets.storage.buckets for each in google.buckets.contents(bucket).items()]
    calls = [(call.url, call.body) for call in google.calls]
    walk.check_secret_nowhere([*contents, *calls, ("log", json.dumps(google.logs.entries).encode())])


def test_vertex_curves_are_where_the_service_reads_them(walk, google):
    """In the folder of AIP_TENSORBOARD_LOG_DIR, which the service shows in the instance that the job names."""
    assert walk.job.request.job_spec.tensorboard == TENSORBOARD
    contents = google.buckets.contents(f"{google.project}-ftlaunch-{google.region}")
    logs = f"ftlaunch/jobs/{walk.name}/logs/events."
    [events] = [content for name, content in contents.items() if name.startswith(logs)]
    assert b"train/loss" in events
    assert b"eval/macro_f1" in events


def test_vertex_log_is_shown_to_the_last_line(walk):
    walk.check_log(walk.name, walk.followed)


def test_vertex_finished_jobs_are_known_without_credentials(walk, google):
    walk.check_known_without_credentials(google)


def test_vertex_walk_sends_nothing_a_second_time(walk, google, monkeypatch):
    """Another attempt at the same rows: its own spec.json goes over the wire, and no file of the job."""
    monkeypatch.setattr(google, "starting_seconds", 60.0)  # cancelled before it has a machine
    before = google.buckets.received.value, google.front.received.value
    walk.here("run", walk.folder, "--detach", "--yes")
    second = list(google.custom_jobs.jobs.values())[-1]
    second.cancel()
    assert second is not walk.job
    assert google.buckets.received.value - before[0] < (MODEL / "tokenizer.json").stat().st_size
    assert google.front.received.value == before[1]
