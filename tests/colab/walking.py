"""A user's folder with one job for the loopback Colab, and the command."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.colab.harness import OPTIONS
from tests.tiny_model import MODEL, tasks

FTLAUNCH = str(Path(sys.executable).with_name("ftlaunch"))
SECRET = "FTLAUNCH_TEST_TOKEN"


class Walk:
    def __init__(self, folder: Path, **top) -> None:
        self.folder = tasks.write(folder, "colours", train=60, validation=30, test=30)
        self.value = f"secret-{secrets.token_hex(12)}"
        self.environment = {**os.environ, "FTLAUNCH_HOME": str(folder / "home"), SECRET: self.value}
        job = {
            "name": "walk",
            "model": {"id": str(MODEL)},
            "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "max_length": 96},
            "task": {"type": "classification"},
            "train": {"rank": 4, "max_steps": 4},
            "evaluate": {"enough": None, "forgetting": False, "resamples": 200},
            "backend": "colab",
            "backends": {"colab": OPTIONS},
        }
        (self.folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job | top))
        self.printed = ""

    def start(self, *arguments) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([FTLAUNCH, *map(str, arguments)], cwd=self.folder, env=self.environment, **pipes)

    def run(self, *arguments, code=0) -> subprocess.CompletedProcess:
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=400)
        self.printed += output + errors
        assert "Traceback" not in errors, errors
        assert process.returncode == code, f"{process.returncode}\n{output}\n{errors}"
        return subprocess.CompletedProcess(arguments, code, output, errors)

    def only_job(self) -> dict:
        """Of Colab's; a reconcile finds what the engine has of the docker backend's, too."""
        [job] = [each for each in json.loads(self.run("jobs", "--json").stdout) if each["backend"] == "colab"]
        return job

    def record(self) -> dict:
        """What the backend has written down of the one job; empty before that."""
        found = list((self.folder / "home" / "colab").glob("*/record.json"))
        return json.loads(found[0].read_text()) if found else {}

    def until(self, happened, seconds=240.0):
        deadline = time.monotonic() + seconds
        while not (told := happened()):
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.1)
        return told


def kill(process: subprocess.Popen) -> None:
    """End a launcher as a crash does."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
