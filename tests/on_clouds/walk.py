"""The whole walk of a user on a loopback cloud: one command from the rows to the verdict, in the real image."""

import contextlib
import io
import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from unittest import mock

import yaml

from launcher.cli import call
from tests.tiny_model import MODEL, tasks

SECRET = "FTLAUNCH_TEST_TOKEN"
JOB = {
    "model": {"id": str(MODEL)},
    "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "max_length": 96},
    "task": {"type": "classification"},
    "train": {"epochs": 1.0, "rank": 8, "learning_rate": 0.003},
    "evaluate": {"enough": None, "forgetting": False, "resamples": 200},
}
"""A job file for any place: a small classification with the tiny model."""


def write_job(folder: Path, **more) -> Path:
    """Rows and job file, with these further keys in it."""
    tasks.write(folder, "colours", train=60, validation=30, test=30)
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(JOB | more))
    return folder


def command(folder: Path, environment: dict[str, str], *arguments) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    argv = [str(Path(sys.executable).with_name("ftlaunch")), *map(str, arguments)]
    return subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=400)


def ftlaunch(folder: Path, *arguments) -> subprocess.CompletedProcess:
    """The command in a folder with a home of its own, which has to succeed."""
    environment = {**os.environ, "FTLAUNCH_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    done = command(folder, environment, *arguments)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


class Walk:
    """One job by the command, with a secret, and all that was seen of it."""

    def __init__(
        self, folder: Path, backend: str, machine: str, options: dict | None = None, spot: bool = True
    ) -> None:
        self.folder = write_job(
            folder,
            backend=backend,
            backends={backend: options or {}},
            resources={"machine": machine, "spot": spot},
            budget={"max_hours": 1.0},
            secrets=[SECRET],
        )
        self.value = f"secret-{secrets.token_hex(12)}"
        home = str(folder / "home")
        self.environment = {**os.environ, SECRET: self.value, "HF_HUB_OFFLINE": "1", "FTLAUNCH_HOME": home}
        self.printed = ""
        done = self.run("run", folder, "--json", "--yes", "--output", folder / "out")
        self.document = json.loads(done.stdout)
        self.name = self.document["job"]
        self.followed = done.stderr

    def run(self, *arguments, exits: int = 0):
        return self._looked_at(command(self.folder, self.environment, *arguments), exits)

    def here(self, *arguments, exits: int = 0):
        """The same command in this process, which has the frameworks loaded already."""
        output, errors = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            code = call([*map(str, arguments)])
        done = subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())
        return self._looked_at(done, exits)

    def _looked_at(self, done: subprocess.CompletedProcess, exits: int):
        self.printed += done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == exits, f"{done.stdout}\n{done.stderr}"
        return done

    def check_verdict(self) -> None:
        assert self.document["state"] == "SUCCEEDED"
        result = json.loads((self.folder / "out" / "result.json").read_text())
        assert result["platform"]["name"] == self.document["handle"]["backend"]
        assert result["verdict"]["outcome"] in ("improved", "inconclusive", "degraded")
        assert (self.folder / "out" / "adapter" / "adapter_model.safetensors").exists()
        assert "train/loss" in self.followed

    def planned(self) -> dict:
        """The dry run of the same job file, which another seed gives another name."""
        return json.loads(self.run("run", self.folder, "--dry-run", "--json", "--set", "train.seed=1").stdout)

    def check_image(self, ran) -> None:
        """The record names the image that ran: ``ran`` are the engine's images of the job's containers."""
        handle = json.loads(self.run("status", self.name, "--json").stdout)["handle"]
        [image] = ran
        assert any(name.endswith(f"@{handle['data']['image_digest']}") for name in image.attrs["RepoDigests"])

    def check_secret_nowhere(self, stored) -> None:
        """Neither shown, nor in a file here, nor in what the cloud stores: (name, content) of each."""
        assert self.value not in self.printed
        files = [(path, path.read_bytes()) for path in self.folder.rglob("*") if path.is_file()]
        found = [name for name, content in [*files, *stored] if self.value.encode() in content]
        assert not found

    def check_known_without_credentials(self, cloud) -> None:
        with cloud.trouble(expired=True):
            listed = json.loads(self.run("jobs", "--json").stdout)
            assert [(job["job"], job["state"]) for job in listed] == [(self.name, "SUCCEEDED")]
            assert json.loads(self.run("status", self.name, "--json").stdout)["state"] == "SUCCEEDED"
            self.run("fetch", self.name)

    def check_log(self, job_name: str, followed: str) -> None:
        """What was shown while the job ran is the whole log, to its last line."""
        shown = [line for line in followed.splitlines() if re.match(r"\[\w+\] ", line)]
        logged = self.run("logs", job_name).stdout.splitlines()
        assert shown == [line for line in logged if re.match(r"\[\w+\] ", line)]
        assert shown[-1].startswith("[done] ")
