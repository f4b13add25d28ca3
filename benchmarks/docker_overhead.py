"""What the launcher adds to plain ``docker run`` of the same image: ``python benchmarks/docker_overhead.py``.

Both sides run the container's start-up alone (the image's Python, which prints a line and writes one file), because a
training's own time varies by more than what is looked for. A round is

- plain: ``docker run`` with the data folder mounted read-only and the output folder mounted, to its end;
- ours: plan, preflight, stage, submit, follow to the end, fetch and remove, by the docker backend and the launcher's
  own `launcher.watch`, in a process that has started already, as ``docker`` itself is a started binary.

The start of the interpreter and the imports, about the same for each command, are told apart as a third number. Printed
as JSON, and written with the day and with what is left out to docs/proof/docker-overhead.md: the median of each side in
seconds, and the overhead, the median of the differences round by round.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHOW = "import pathlib, sys; print('ready'); pathlib.Path(sys.argv[1], 'result.json').write_text('{}')"
WANTED = 0.3
"""Seconds of overhead at most."""
PAGE = Path(__file__).parents[1] / "docs" / "proof" / "docker-overhead.md"
_TEXT = """# What the docker backend adds to `docker run`

{when}; {cores} cores ({machine}); made by `python benchmarks/docker_overhead.py --rounds {rounds}`.

Both sides run the start-up of the same image alone: its Python prints a line and writes one file. Medians of {rounds}
rounds, one side after the other in each:

| | seconds |
|---|---|
| `docker run` with two folders mounted | {docker_run_seconds:.3f} |
| the same by the docker backend | {ours_seconds:.3f} |
| overhead: the median of the differences, round by round | {overhead_seconds:.3f} |
| start of Python with the imports of a run, not part of the overhead | {python_start_seconds:.3f} |

- {holds}: the overhead is at most {wanted} s

Counted are the digest of the data, plan, preflight, stage, submit, the job's record, following to the end with the log,
fetch, and the removal of container and volumes.

Left out, so that a whole `ftlaunch` command takes longer than this by:

- the start of the interpreter and its imports (the last row);
- reading the job file and the rows' checks before a start, which grow with the data;
- the locks that keep two launchers from one job;
- collecting: the fetched tree against its manifest, file by file, and its move into `runs/JOB`, which grow with the
  results;
- building the image, which is done once.
"""


def plain(docker: str, image: str, folder: Path) -> float:
    """Seconds of ``docker run``, its output folder here at the end."""
    output = folder / "plain"
    output.mkdir(exist_ok=True)
    command = [docker, "run", "--rm", "--network", "none", "--entrypoint", "/opt/venv/bin/python"]
    command += ["-v", f"{folder / 'data'}:/ftlaunch/data:ro", "-v", f"{output}:/output", image, "-c", SHOW, "/output"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def ours(image: str, folder: Path, name: str) -> float:
    """Seconds from the plan to the fetched and removed job."""
    from backends.docker import Docker
    from backends.interface import Submission
    from launcher.store import Record, Store
    from launcher.watch import Watch
    from training_image.spec import Data, Model, Spec, Task

    path = folder / "data" / "train.jsonl"
    backend, into = Docker.create(), folder / name
    began = time.perf_counter()
    inputs = {"train.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}
    spec = Spec(job=name, model=Model(id="model"), data=Data(train=path.name), task=Task(type="classification"))
    submission = Submission(job_name=name, spec=spec, files=inputs, image=image, options={"network": "none"})
    plan = backend.plan(submission)
    command = {"Entrypoint": ["/opt/venv/bin/python"], "Cmd": ["-c", SHOW, "/ftlaunch/job/output"]}
    plan = plan.model_copy(update={"request": plan.request | {"config": plan.request["config"] | command}})
    assert not [finding for finding in backend.preflight(plan) if finding.level == "error"]
    backend.stage(plan, {"train.jsonl": path})
    handle = backend.submit(plan, {})
    store = Store()
    intent = Record(
        job=name,
        content=name,
        attempt=0,
        backend="docker",
        job_file=str(path),
        as_submitted="",
        plan=plan,
        target=str(into),
    )
    store.add(intent)
    record = store.update(name, handle=handle, submitted=time.time())
    Watch(record, store, backend, Silent()).to_end()
    into.mkdir()
    backend.fetch(handle, into)
    backend.remove(handle)
    seconds = time.perf_counter() - began
    assert (into / "result.json").read_text() == "{}"
    store.close()
    return seconds


class Silent:
    """Shows nothing."""

    def line(self, text: str, parsed: object) -> None:
        """A line of output."""

    def status(self, status: object) -> None:
        """A state."""

    def note(self, text: str) -> None:
        """A note."""


def start_up() -> float:
    """Seconds of the interpreter's start with all imports of a run."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import backends.docker, launcher.lifecycle, docker"], check=True)
    return time.perf_counter() - began


def write(told: dict[str, float]) -> None:
    """Write the page. ``told``: the figures by name."""
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    holds = "NO" if told["overhead_seconds"] > WANTED else "yes"
    where = {"when": when, "cores": os.cpu_count(), "machine": platform.machine()}
    PAGE.write_text(_TEXT.format(**where, holds=holds, wanted=WANTED, **told), encoding="utf-8")


def main() -> None:
    """Measure, print, write the page, and end with 1 where the overhead is larger than wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    from launcher.image import Image, build, docker_command

    image, _ = build(Image("cpu"))
    docker = docker_command()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FTLAUNCH_HOME"] = str(folder / "home")
        (folder / "data").mkdir()
        (folder / "data" / "train.jsonl").write_text('{"text": "a", "label": "b"}\n' * 300)
        ours(image, folder, "warm")
        pairs = [(plain(docker, image, folder), ours(image, folder, f"bench-{number}")) for number in range(rounds)]
        starts = statistics.median(start_up() for _ in range(3))
    overhead = statistics.median(our - its for its, our in pairs)
    told = {
        "rounds": rounds,
        "docker_run_seconds": round(statistics.median(its for its, _ in pairs), 3),
        "ours_seconds": round(statistics.median(our for _, our in pairs), 3),
        "overhead_seconds": round(overhead, 3),
        "python_start_seconds": round(starts, 3),
    }
    print(json.dumps(told, indent=2))
    write(told)
    sys.exit(overhead > WANTED)


if __name__ == "__main__":
    main()
