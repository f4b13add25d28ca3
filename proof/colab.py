"""The walk on Colab, by Google's own tool against the loopback Colab of the tests; needs what tests/services.sh
installs and starts, and root.

Usage: python -m proof.colab; exits with 1 where a promise does not hold; writes docs/proof/colab.md.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from backends.colab_job import Job
from launcher.image import Image, build, own_wheels
from proof.walk import Walked, walk, write
from tests.clouds.colab import Colab
from tests.clouds.colab.account import TOOL, logged_in
from tests.colab.machine_image import build as machine_image

PLACE = (
    "Colab was the loopback of `tests/clouds/colab` on this machine, asked by Google's own tool; the machine was a "
    "container with a Jupyter server, a bare Python and the packages of the lock."
)


def main() -> int:
    """Walk and check; gives the exit code."""
    image = machine_image(build(Image("cpu"), own_wheels())[0])
    with tempfile.TemporaryDirectory() as folder, logged_in(Path(folder, "home"), image) as cloud:
        cloud.threads = 2
        sets = (f"backends.colab.command={TOOL}", "backends.colab.auth=adc", "budget.max_hours=2")
        walked = walk("colab", *sets, folder=Path(folder))
        check(walked, cloud)
        return write(walked, "Colab with the real model", PLACE)


def check(walked: Walked, cloud: Colab) -> None:
    """What Colab itself knows of the job."""
    machines = list(cloud.machines.values())
    walked.check("one machine was taken, with the GPU asked for", [each.accelerator for each in machines] == ["T4"])
    started = [(walked.document["job"], 1)]
    walked.check("the training was started on it once", [each.job() for each in machines] == started)
    walked.check("no machine is left", cloud.assigned() == [])
    units = Job(walked.document["job"]).record.units
    told = units is not None and units.used > 0
    walked.check(f"the units used are in the record ({units.used if units else 0:.2f})", told)
    walked.check("no host outside of Colab was asked for", cloud.gateway.refused == [])


if __name__ == "__main__":
    sys.exit(main())
