"""The walk on Colab, by Google's own tool against the loopback Colab of the tests: the machine is lost in the middle of
the training, and another goes on. Needs what tests/services.sh installs and starts, and root.

Usage: python -m proof.colab; exits with 1 where a promise does not hold; writes docs/proof/colab.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backends import colab_job
from backends.colab_job import Job
from backends.interface import Reason, State, Status
from launcher.demo_model import made_apart
from launcher.image import Image, build, own_wheels
from proof.real_model import ROOT
from proof.walk import FTLAUNCH, Walked, command_for, dry_run, to_the_verdict, write
from tests.clouds.colab import Colab
from tests.clouds.colab.account import TOOL, logged_in
from tests.colab.machine_image import build as machine_image

PLACE = (
    "Colab was the loopback of `tests/clouds/colab` on this machine, asked by Google's own tool; the machines were "
    "containers with a Jupyter server, a bare Python and the packages of the lock. The first machine was taken away "
    "{seconds:.0f} s after its command, without `--resume`, had begun; the command below went on with another one."
)
MOST_SECONDS = 1800.0
"""Longest wait for the first checkpoint to come here, and for a command to end: the model is a real one."""


def main() -> int:
    """Walk and check; gives the exit code."""
    image = machine_image(build(Image("cpu"), own_wheels())[0])
    with tempfile.TemporaryDirectory() as folder, logged_in(Path(folder, "home"), image) as cloud:
        cloud.threads = 2
        made_apart()
        tool = (f"backends.colab.command={TOOL}", "backends.colab.auth=adc")
        sets = (*tool, "budget.max_hours=2", "train.checkpoint_steps=10")
        command = command_for("colab", *sets)
        planned = dry_run(command)
        lost, seconds = lose_machine(command, cloud, Path(folder))
        left = len(cloud.assigned())
        walked = to_the_verdict("colab", [*command, "--resume"], planned, Path(folder), MOST_SECONDS)
        step = walked.result["training"]["resumed_from"]
        walked.check(f"the second machine went on from a checkpoint of the first (step {step})", step is not None)
        told = lost is not None and (lost.state, lost.reason) == (State.FAILED, Reason.SPOT_INTERRUPTED)
        walked.check("the loss was told as one: FAILED, SPOT_INTERRUPTED", told)
        walked.check("no machine was left by it", left == 0)
        check(walked, cloud)
        return write(walked, "Colab with the real model", PLACE.format(seconds=seconds))


def lose_machine(command: list[str], cloud: Colab, folder: Path) -> tuple[Status | None, float]:
    """Run the command, and take its machine away when a checkpoint has come here; gives the end that was told, and the
    seconds after which it was lost."""
    began = time.monotonic()
    arguments = [FTLAUNCH, *command, "--yes", "--output", str(folder / "output")]
    with (
        (folder / "first.txt").open("w+") as said,
        subprocess.Popen(arguments, cwd=ROOT, stdout=said, stderr=said) as run,
    ):
        try:
            while not any(job.record.checkpoints for job in colab_job.every()):
                if run.poll() is not None or time.monotonic() - began > MOST_SECONDS:
                    sys.exit(f"no checkpoint came here:\n{(folder / 'first.txt').read_text()}")
                time.sleep(0.5)
            [machine] = cloud.assigned()
            machine.take_away()
            seconds = time.monotonic() - began
            run.wait(MOST_SECONDS)
        except BaseException:
            run.kill()  # it would be waited for without a limit
            raise
    [job] = colab_job.every()
    return job.record.shown, seconds


def check(walked: Walked, cloud: Colab) -> None:
    """What Colab itself knows of the job."""
    machines = list(cloud.machines.values())
    two = ["T4", "T4"]
    walked.check("two machines were taken, with the GPU asked for", [each.accelerator for each in machines] == two)
    started = [(walked.document["job"], 1)] * 2
    walked.check("the training was started once on each", [each.job() for each in machines] == started)
    walked.check("no machine is left", cloud.assigned() == [])
    units = Job(walked.document["job"]).record.units
    told = units is not None and units.used > 0
    walked.check(f"the units used are in the record ({units.used if units else 0:.2f})", told)
    walked.check("no host outside of Colab was asked for", cloud.gateway.refused == [])


if __name__ == "__main__":
    sys.exit(main())
