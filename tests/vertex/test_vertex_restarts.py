"""What Vertex AI starts again by itself, and what a second start makes of the first one's curves."""

import pytest

from backends.conformance.jobs import Prepared, Watch, prepare, start
from backends.interface import Reason, State
from tests.clouds.google import machine_room
from tests.vertex.test_vertex_request import submission
from training_image.errors import BAD_INPUT
from training_image.tracking import Trackers


@pytest.mark.parametrize(
    ("spot", "lives"), [(True, 1 + machine_room.MOST_RETRIES), (False, 1)], ids=["spot", "on-demand"]
)
def test_vertex_restarts_on_transient_exit_codes_are_spot_jobs_alone(harness, monkeypatch, spot, lives):
    """The exit code of bad data stands for those that the service takes for faults of its own."""
    monkeypatch.setattr(machine_room, "TRANSIENT", (BAD_INPUT,))
    job = prepare(harness, f"transient-{lives}", bad_data=True)
    resources = job.submission.resources.model_copy(update={"spot": spot})
    asked = job.submission.model_copy(update={"resources": resources})
    job = Prepared(asked, harness.fresh().plan(asked), job.files)
    run = Watch(harness, start(harness, job)).finish(job)
    [made] = harness.jobs(run.handle.job_name)
    assert len(made.lives) == lives
    assert (run.end.state, run.end.reason) == (State.FAILED, Reason.BAD_DATA)


def test_vertex_curves_of_a_second_start_stand_once_where_the_service_reads_them(tmp_path, monkeypatch):
    """The machine's own disk is a new one, the folder in the bucket is not, and the history is sent again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", str(tmp_path / "logs"))
    lines = [{"step": step, "time": 1.7e9 + step, "train/loss": 1 / step} for step in (1, 2, 3)]
    for machine, sent in (("first", 0), ("second", 2)):
        trackers = Trackers(tmp_path / machine, submission().spec, {}, lines[:sent])
        for line in lines[sent:]:
            trackers.log(line)
        trackers.close()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [each.step for each in events.Scalars("train/loss")] == [1, 2, 3]
