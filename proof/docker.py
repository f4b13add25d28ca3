"""The two commands of docs/docker.md in a fresh clone of this repository's last commit: `make image`, then the job in a
container of the real training image on a Docker engine; needs an engine, as tests/services.sh starts, and git.

Usage: python -m proof.docker; exits with 1 where a promise does not hold; writes docs/proof/docker.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backends.docker_engine import LABEL, Engine
from launcher.demo_model import made_apart
from proof.real_model import DATA, ROOT
from proof.walk import FTLAUNCH, Walked, judge, write

PLACE = (
    "The engine was a real one, and the container ran the real CPU image. `make image` and the command below were run "
    "in a fresh clone of commit {commit}, with the packages of an environment that was there, and the model made "
    "before by what `ftlaunch demo` makes it by: no hub was asked."
)
COMMAND = ["--backend", "docker", str(DATA.relative_to(ROOT))]
KEPT = {"adapter", "job.yaml", "manifest.json", "metrics.jsonl", "predictions", "result.json"}
"""What the top of an output tree has at least."""


def main() -> int:
    """Walk and check; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        os.environ |= {"FTLAUNCH_HOME": str(Path(folder, "home")), "PYTHONPATH": str(clone)}
        made_apart()
        image = make_image(clone)
        walked = walk(clone)
        check(walked, image)
        commit = _told(["git", "rev-parse", "--short", "HEAD"], clone)
        return write(walked, "A container with the real model", PLACE.format(commit=commit))


def make_image(clone: Path) -> str:
    """Run `make image` by this environment, which is not installed anew though the clone is younger; gives the name of
    the image."""
    venv = Path(sys.prefix)
    return _told(["make", "image", f"VENV={venv}", f"--old-file={venv / '.ready'}"], clone).splitlines()[-1]


def walk(clone: Path) -> Walked:
    """Run the bare command in the clone, and judge what holds of every backend."""
    planned = json.loads(_told([FTLAUNCH, *COMMAND, "--dry-run", "--json"], clone))
    began = time.monotonic()
    shown = _told([FTLAUNCH, *COMMAND], clone, subprocess.STDOUT).splitlines()
    seconds = time.monotonic() - began
    [output] = (clone / "runs").iterdir()
    document = json.loads(_told([FTLAUNCH, "status", output.name, "--json"], clone))
    result = json.loads((output / "result.json").read_text())
    walked = Walked("docker", COMMAND, planned, document, result, output, shown, seconds)
    judge(walked)
    return walked


def check(walked: Walked, image: str) -> None:
    """What the engine knows of the job, and where and whose the results are."""
    walked.check(f"the image was {image}", walked.planned["request"]["config"]["Image"] == image)
    there = {path.name for path in walked.output.iterdir()}
    own = walked.document["job"] == walked.output.name
    walked.check("the whole tree is in runs/JOB of the clone, and nothing else in runs", own and there >= KEPT)
    files = [walked.output, *walked.output.rglob("*")]
    owners = {path.lstat().st_uid for path in files}
    sentence = f"all {len(files)} files and folders are owned by who ran the command (user {os.getuid()})"
    walked.check(sentence, owners == {os.getuid()})
    of_job = f"{LABEL}={walked.document['job']}"
    volumes = Engine().api.volumes(filters={"label": of_job})["Volumes"] or []
    walked.check("no container is left", Engine().containers(of_job) == [])
    walked.check("no volume is left", volumes == [])


def _told(command: list[str | Path], clone: Path, errors: int = subprocess.PIPE) -> str:
    """Run a command in the clone, to its success; gives what it printed."""
    done = subprocess.run(
        command, cwd=clone, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr or ''}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
