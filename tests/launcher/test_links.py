"""Where a tracker shows a run stands in the job's status."""

from __future__ import annotations

from tests.launcher.conftest import Command


def test_status_tells_where_a_tracker_shows_the_run(ftlaunch: Command, job) -> None:
    done = ftlaunch.json("run", job)
    expected = f"http://127.0.0.1:5000/#/runs/{done['job']}"
    assert ftlaunch.json("status", done["job"])["links"] == {"mlflow": expected}
    assert f"mlflow {expected}" in ftlaunch("status", done["job"]).stdout
