"""One job file, unchanged, on three clouds: the same results, to six digits, but for place, time and names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clouds.fixtures import image, services  # noqa: F401
from tests.on_clouds.walk import write_job

MACHINES = {"sagemaker": "ml.m5.xlarge", "vertex": "n1-standard-4", "azureml": "Standard_DS3_v2"}
"""Named beside the file: no machine is at home on two clouds."""
SPEEDS = {"tokens_per_second", "supervised_tokens_per_second"}
APART = SPEEDS | {"job", "name", "timings", "seconds", "peak_memory_bytes", "bytes"}
"""Keys of result.json that tell of names, time, and what one process happened to take of memory."""

pytestmark = pytest.mark.timeout(1800)  # a cloud may be in use by its own suite, in another process


def logged_in(backend: str, home: Path):
    """One cloud after the other, so that no suite waits for more than one of them."""
    from tests.clouds.aws.account import logged_in as aws
    from tests.clouds.azure.account import logged_in as azure
    from tests.clouds.google.project import logged_in as google

    return {"sagemaker": aws, "vertex": google, "azureml": azure}[backend](home)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.clouds.google.project import JOB_ACCOUNT

    options = {"vertex": {"service_account": JOB_ACCOUNT}}
    return write_job(tmp_path_factory.mktemp("job"), backends=options)


@pytest.fixture(scope="module")
def results(image, folder, tmp_path_factory):
    """result.json by cloud, of those that were asked for."""
    made = {}

    def result(backend: str) -> dict:
        if backend not in made:
            output = tmp_path_factory.mktemp(backend) / "output"
            command = [str(Path(sys.executable).with_name("ftlaunch")), "--backend", backend, "run", str(folder)]
            command += ["--yes", "--output", str(output), "--set", f"resources.machine={MACHINES[backend]}"]
            with logged_in(backend, output.parent / "home"):
                done = subprocess.run(
                    command, env=os.environ, cwd=folder, capture_output=True, text=True, check=False, timeout=400
                )
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            made[backend] = json.loads((output / "result.json").read_text())
        return made[backend]

    return result


def plain(value):
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key not in APART}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return pytest.approx(value, abs=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize("backend", ["vertex", "azureml"])
def test_one_job_file_has_the_same_results_on(backend, results):
    # SageMaker first: where one backend's tests run alone, they hold its own cloud until they are done.
    there, here = results("sagemaker"), results(backend)
    assert (here["platform"]["name"], there["platform"]["name"]) == (backend, "sagemaker")
    assert plain(here) == plain(there)
