"""The walk on Azure ML, against the loopback Azure of the tests; needs what tests/services.sh starts, and root.

Usage: python -m proof.azureml; exits with 1 where a promise does not hold; writes docs/proof/azureml.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from backends.azure_calls import Account, Workspace
from backends.azureml_request import filled
from proof.walk import Walked, walk, write
from tests.clouds.azure import Azure
from tests.clouds.azure.account import MACHINE, logged_in

PLACE = (
    "Azure was the loopback subscription of `tests/clouds/azure` on the same machine; the container was the real image."
)


def main() -> int:
    """Walk and check; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder, logged_in(Path(folder, "home")) as cloud:
        cloud.threads = 2
        walked = walk(
            "azureml", f"resources.machine={MACHINE}", "resources.spot=true", "budget.max_hours=2", folder=Path(folder)
        )
        check(walked, cloud)
        return write(walked, "Azure ML with the real model", PLACE)


def check(walked: Walked, cloud: Azure) -> None:
    """What the subscription itself knows of the job."""
    job = cloud.jobs.jobs[walked.document["job"]]
    known = {"subscription": cloud.subscription, "resource_group": cloud.group, "workspace": cloud.workspace}
    planned = filled(walked.planned["request"], known | {"registry": cloud.registry.name})
    walked.check("the body that was sent is the dry run's", planned["JobBase"]["properties"] == job.body)
    digest = walked.document["handle"]["data"]["image_digest"]
    ran = [cloud.engine.images.get(each) for each in job.image_ids]
    walked.check(
        f"the record's image digest ({digest[:19]}…) is that of the container",
        [any(name.endswith(f"@{digest}") for name in each.attrs["RepoDigests"]) for each in ran] == [True],
    )
    billed = walked.document["billable_seconds"]
    walked.check(f"the billed seconds ({billed:.0f}) are in the record", abs(billed - job.active) < 0.01)
    lines = [json.loads(line) for line in (walked.output / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    walked.check(f"MLflow gives the {len(losses)} losses of metrics.jsonl", _history(cloud, job.name) == losses)
    walked.check("the shipped role allowed every call", cloud.rights.denied == [])
    walked.check("no host outside of Azure was asked for", cloud.gateway.refused == [])


def _history(cloud: Azure, run: str) -> list[float]:
    """The losses, read through the workspace's MLflow endpoint."""
    account = Account(Workspace(cloud.subscription, cloud.group, cloud.workspace))
    address = f"https://{cloud.history.host}/mlflow/v2.0{cloud.scope}/api/2.0/mlflow/metrics/get-history"
    found = account.get(address, "https://ml.azure.com/.default", run_id=run, metric_key="train/loss")
    return [each["value"] for each in found["metrics"]]


if __name__ == "__main__":
    sys.exit(main())
