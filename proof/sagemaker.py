"""The walk on SageMaker, against the loopback AWS of the tests; needs what tests/services.sh starts, and root.

Usage: python -m proof.sagemaker; exits with 1 where a promise does not hold; writes docs/proof/sagemaker.md.
"""

from __future__ import annotations

import collections
import json
import sys
import tempfile
from pathlib import Path

from proof.walk import Walked, walk, write
from tests.clouds.aws import Aws
from tests.clouds.aws.account import logged_in

PLACE = "AWS was the loopback account of `tests/clouds/aws` on the same machine; the container was the real image."


def main() -> int:
    """Walk and check; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder, logged_in(Path(folder, "home")) as cloud:
        cloud.threads = 2
        sets = ("resources.machine=ml.m5.xlarge", "resources.spot=true", "budget.max_hours=2")
        walked = walk("sagemaker", *sets, folder=Path(folder))
        check(walked, cloud)
        return write(walked, "SageMaker with the real model", PLACE)


def check(walked: Walked, cloud: Aws) -> None:
    """What the account itself knows of the job."""
    job = cloud.training.jobs[walked.document["job"]]
    planned = json.dumps(walked.planned["request"]["CreateTrainingJob"])
    for key, value in (("role", cloud.role), ("account", cloud.account), ("bucket", bucket(cloud))):
        planned = planned.replace(f"<sagemaker.{key}>", value)
    walked.check("the request that was sent is the dry run's", json.loads(planned) == job.request)
    ran = cloud.engine.images.get(job.image)
    digest = walked.document["handle"]["data"]["image_digest"]
    walked.check(
        f"the record's image digest ({digest[:19]}…) is that of the container",
        {ran.id} == job.image_ids and any(name.endswith(f"@{digest}") for name in ran.attrs["RepoDigests"]),
    )
    billed = job.description()["BillableTimeInSeconds"]
    walked.check(f"the billed seconds ({billed}) are in the record", walked.document["billable_seconds"] == billed)
    metrics = ", ".join(sorted(job.metrics))
    walked.check(f"CloudWatch has the curves: {metrics}", {"train/loss", "tuned/macro_f1"} <= set(job.metrics))
    own = [call for call in cloud.calls if call.key == cloud.user["AWS_ACCESS_KEY_ID"]]
    services = ", ".join(f"{name} {n}" for name, n in sorted(collections.Counter(c.service for c in own).items()))
    walked.check(f"the shipped policies allowed every call ({services})", cloud.denied == [])
    walked.check("no host outside of AWS was asked for", cloud.gateway.refused == [])


def bucket(cloud: Aws) -> str:
    """The account's default bucket."""
    return f"sagemaker-{cloud.region}-{cloud.account}"


if __name__ == "__main__":
    sys.exit(main())
