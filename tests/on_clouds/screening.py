"""Base models are screened at a service as they are here: one job, measured on the validation rows."""

import json
import shutil
from pathlib import Path

from tests.on_clouds.walk import ftlaunch, write_job
from tests.tiny_model import MODEL


def check_two_models_in_one_job(folder: Path, backend: str, machine: str, jobs: dict, **more) -> None:
    """``jobs``: the service's own, by name, as they are now."""
    other = folder / "other"
    shutil.copytree(MODEL, other)
    write_job(folder, backend=backend, resources={"machine": machine}, budget={"max_hours": 1.0}, **more)
    before = set(jobs)
    models = ("--models", f"{MODEL},{other}")
    done = ftlaunch(folder, "screen", folder, *models, "--json", "--yes", "--output", folder / "out")
    one, two = json.loads(done.stdout)["models"]
    assert {one["name"], two["name"]} == {str(MODEL), str(other)}
    assert one["value"] == two["value"]
    assert one["value"] is not None
    assert len(set(jobs) - before) == 1
