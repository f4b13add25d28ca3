"""The walk on Vertex AI, against the loopback Google Cloud of the tests; needs what tests/services.sh starts, and root.

Usage: python -m proof.vertex; exits with 1 where a promise does not hold; writes docs/proof/vertex.md.
"""

from __future__ import annotations

import collections
import json
import sys
import tempfile
from pathlib import Path

from google.cloud.aiplatform_v1.types import CustomJob

from proof.walk import Walked, walk, write
from tests.clouds.google import Google
from tests.clouds.google.project import USER, logged_in

PLACE = (
    "Google Cloud was the loopback project of `tests/clouds/google` on this machine; the container was the real image."
)


def main() -> int:
    """Walk and check; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder, logged_in(Path(folder, "home")) as cloud:
        cloud.threads = 2
        sets = ("resources.machine=n1-standard-4", "resources.spot=true", "budget.max_hours=2")
        walked = walk("vertex", *sets, folder=Path(folder))
        check(walked, cloud)
        return write(walked, "Vertex AI with the real model", PLACE)


def check(walked: Walked, cloud: Google) -> None:
    """What the project itself knows of the job."""
    [job] = cloud.custom_jobs.labelled("ftlaunch_job", walked.document["job"])
    planned = json.dumps(walked.planned["request"]["customJob"]).replace("<vertex.project>", cloud.project)
    same = CustomJob.from_json(planned) == CustomJob.from_json(json.dumps(job.body))
    walked.check("the request that was sent is the dry run's", same)
    ran = cloud.engine.images.get(job.image)
    digest = walked.document["handle"]["data"]["image_digest"]
    walked.check(
        f"the record's image digest ({digest[:19]}…) is that of the container",
        {ran.id} == job.image_ids and any(name.endswith(f"@{digest}") for name in ran.attrs["RepoDigests"]),
    )
    told = job.description()
    billed = (told.end_time - told.start_time).total_seconds()
    walked.check(f"the billed seconds ({billed:.0f}) are in the record", walked.document["billable_seconds"] == billed)
    hosts = collections.Counter(call.url.partition(".googleapis")[0] for call in cloud.calls if call.who == USER)
    services = ", ".join(f"{name} {number}" for name, number in sorted(hosts.items()))
    walked.check(f"the shipped role allowed every call ({services})", cloud.denied == [])
    walked.check("no host outside of Google Cloud was asked for", cloud.gateway.refused == [])


if __name__ == "__main__":
    sys.exit(main())
