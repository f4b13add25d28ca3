"""The walk in a container of the real training image on a Docker engine; needs an engine, as tests/services.sh starts.

Usage: python -m proof.docker; exits with 1 where a promise does not hold; writes docs/proof/docker.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from backends.docker_engine import LABEL, Engine
from launcher.image import Image, build
from proof.walk import Walked, walk, write

PLACE = "The engine was a real one, and the container ran the real CPU image."


def main() -> int:
    """Walk and check; gives the exit code."""
    image, _ = build(Image("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FTLAUNCH_HOME"] = str(Path(folder, "home"))
        walked = walk("docker", "budget.max_hours=2", folder=Path(folder))
        check(walked, image)
        return write(walked, "A container with the real model", PLACE)


def check(walked: Walked, image: str) -> None:
    """What the engine knows of the job, and whose the results are."""
    walked.check(f"the image was {image}", walked.planned["request"]["config"]["Image"] == image)
    owners = {path.lstat().st_uid for path in (walked.output, *walked.output.rglob("*"))}
    walked.check(f"every file is owned by who ran the command (user {os.getuid()})", owners == {os.getuid()})
    of_job = f"{LABEL}={walked.document['job']}"
    volumes = Engine().api.volumes(filters={"label": of_job})["Volumes"] or []
    walked.check("no container is left", Engine().containers(of_job) == [])
    walked.check("no volume is left", volumes == [])


if __name__ == "__main__":
    sys.exit(main())
