"""The walk on Colab Enterprise, against the loopback Google Cloud of the tests; needs root, and what tests/services.sh
starts.

Usage: python -m proof.colab_enterprise; exits with 1 where a promise does not hold; writes
docs/proof/colab-enterprise.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import nbformat
from google.cloud.aiplatform_v1.types import NotebookExecutionJob

from launcher.image import Image, build, own_wheels
from proof.walk import Walked, walk, write
from tests.clouds.google import Google
from tests.clouds.google import runtime as runtimes
from tests.clouds.google.project import NOTEBOOK_ACCOUNT, logged_in

PLACE = (
    "Google Cloud was the loopback project of `tests/clouds/google` on this machine; the notebook was executed by "
    "nbclient in a container that had the packages of the lock already."
)


def main() -> int:
    """Walk and check; gives the exit code."""
    runtime = runtimes.build(build(Image("cpu"), own_wheels())[0])
    with tempfile.TemporaryDirectory() as folder, logged_in(Path(folder, "home"), "colab-enterprise") as cloud:
        cloud.threads, cloud.runtime_image = 2, runtime
        account = f"backends.colab-enterprise.service_account={NOTEBOOK_ACCOUNT}"
        walked = walk("colab-enterprise", "resources.machine=e2-standard-4", account, folder=Path(folder))
        check(walked, cloud)
        return write(walked, "Colab Enterprise with the real model", PLACE)


def check(walked: Walked, cloud: Google) -> None:
    """What the project itself knows of the job."""
    [job] = cloud.notebooks.named(walked.document["job"])
    planned = json.dumps(walked.planned["request"]["notebookExecutionJob"])
    planned = planned.replace("<colab-enterprise.project>", cloud.project)
    same = NotebookExecutionJob.from_json(planned) == NotebookExecutionJob.from_json(json.dumps(job.body))
    walked.check("the request that was sent is the dry run's", same)
    executed = nbformat.read(walked.output / "notebook.ipynb", as_version=4)
    ran = [cell.execution_count for cell in executed.cells if cell.cell_type == "code"]
    walked.check("the executed notebook came back", ran == [1, 2])
    walked.check("the shipped role allowed every call", cloud.denied == [])
    walked.check("no host outside of Google Cloud was asked for", cloud.gateway.refused == [])


if __name__ == "__main__":
    sys.exit(main())
