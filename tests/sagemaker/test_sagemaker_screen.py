"""Base models are screened at a service as they are here: one job, measured on the validation rows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.on_clouds.walk import write_job
from tests.sagemaker.conftest import MACHINE
from tests.tiny_model import MODEL


def test_sagemaker_screens_two_models_in_one_job(aws, image, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)
    folder = write_job(tmp_path, backend="sagemaker", resources={"machine": MACHINE}, budget={"max_hours": 1.0})
    before = set(aws.training.jobs)
    command = [str(Path(sys.executable).with_name("ftlaunch")), "screen", str(folder), "--models", f"{MODEL},{other}"]
    done = subprocess.run(
        [*command, "--json", "--yes", "--output", str(tmp_path / "out")],
        env={**os.environ, "FTLAUNCH_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout)["models"]
    assert {one["name"], two["name"]} == {str(MODEL), str(other)}
    assert one["value"] == two["value"]
    assert one["value"] is not None
    assert len(set(aws.training.jobs) - before) == 1
