"""What runs in Colab Enterprise's runtime: this file's text is a cell of the notebook, so it imports nothing of ours.

It fetches code and data from the bucket, makes a Python with the packages of the lock, runs the training in it, and
keeps log and results in the bucket while that runs: the runtime is deleted afterwards, and may be lost at any time.
A file ``stop`` in the job's folder of the bucket asks it to stop; ``end.json`` there is the last that it writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

ROOT = Path("/content/ftlaunch")
GPU = Path("/dev/nvidia0")
PYTHON = "3.11"
"""The lock is made for this Python."""
CPU_TORCH = "https://download.pytorch.org/whl/cpu"
TURN_SECONDS, STOP_SECONDS, LOG_SECONDS, OUTPUT_SECONDS = 0.3, 2.0, 3.0, 60.0
"""How often it looks around, asks whether to stop, and sends the log and the results so far."""
SAVING_SECONDS = 120.0
"""Between SIGTERM and SIGKILL for the training."""
STOPPED = 143


class Stopped(Exception):
    """The launcher asked for a stop."""


class Folder:
    """A folder of a bucket."""

    def __init__(self, client: Any, uri: str) -> None:
        """``uri``: ``gs://BUCKET/PREFIX``; ``client``: google-cloud-storage's."""
        name, _, self.prefix = uri.removeprefix("gs://").partition("/")
        self.client, self.bucket = client, client.bucket(name)
        self.sent: dict[str, tuple[int, int]] = {}
        """Time and size of what was sent, by name."""

    def blob(self, name: str) -> Any:
        """The object of that name in the folder."""
        return self.bucket.blob(f"{self.prefix}/{name}")

    def fetch(self, into: Path) -> None:
        """Copy the whole folder, each file checked against its checksum."""
        for each in list(self.client.list_blobs(self.bucket, prefix=f"{self.prefix}/")):
            name = PurePosixPath(each.name[len(self.prefix) + 1 :])
            if each.name.endswith("/") or name.is_absolute() or ".." in name.parts:
                continue
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.blob(str(name)).download_to_filename(str(target), checksum="auto")

    def send(self, folder: Path) -> None:
        """Make this folder like that one: what is new or changed is sent, what is gone is removed."""
        there: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                state = path.stat()
                there[path.relative_to(folder).as_posix()] = (state.st_mtime_ns, state.st_size)
        for name in sorted(there, key=lambda name: (name == "manifest.json", name)):  # it vouches for the others
            if self.sent.get(name) != there[name]:
                self.blob(name).upload_from_filename(str(folder / name), checksum="crc32c")
                self.sent[name] = there[name]
        for name in sorted(self.sent.keys() - there.keys()):
            self.blob(name).delete()
            del self.sent[name]


class Job:
    """One job, from the bucket to the bucket."""

    def __init__(self, given: dict[str, Any]) -> None:
        """``given``: project, the ``gs://`` folders place, data and code, the wheel (name, SHA-256), environment,
        whether there has to be a gpu, and max_seconds or None."""
        # Else the client asks what bucket it is, for traces that nobody takes, with a right that the account has not.
        os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"
        from google.cloud.storage import Client

        self.began, self.given = time.time(), given
        client = Client(project=given["project"])
        self.place, self.output = Folder(client, given["place"]), Folder(client, f"{given['place']}/output")
        self.inputs = {name: Folder(client, given[name]) for name in ("data", "code")}
        self.inputs["spec"] = Folder(client, f"{given['place']}/spec")
        self.lines: list[str] = []
        self.shown = self.kept = 0
        """How many lines are in the notebook, and in the bucket."""
        self.due = dict.fromkeys(("stop", "log", "output"), 0.0)

    def run(self) -> None:
        """All of it. Raises RuntimeError where the training did not end well, so that the execution fails too."""
        code, error = None, ""
        try:
            self.go_on()
            if self.given["gpu"] and not GPU.exists():
                raise RuntimeError("the runtime has no GPU, and one was asked for")
            for name, folder in self.inputs.items():
                folder.fetch(ROOT / name)
            code = self.train(self.python())
        except Stopped:
            code = STOPPED
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            self.lines.append(f"error: {error}")
        self.keep(last=True)
        self.place.blob("end.json").upload_from_string(json.dumps({"exit_code": code, "error": error}))
        if code != 0:
            raise RuntimeError(error or f"the training ended with exit code {code}")

    def python(self) -> Path:
        """Make a Python of the job's own: what the runtime has already in the lock's version is taken as it is.

        torch comes first, from the index of the build that fits the machine.
        """
        home = ROOT / "python"
        self.call([self.interpreter(), "-m", "venv", "--without-pip", "--system-site-packages", str(home)])
        python, code = home / "bin" / "python", ROOT / "code"
        whole = (code / "requirements.lock").read_text()
        (code / "torch.lock").write_text("".join(re.findall(r"^torch==.*\n(?: +--hash=.*\n)+", whole, re.MULTILINE)))
        wheel, digest = self.given["wheel"]
        name = wheel.partition("-")[0]
        (code / "all.lock").write_text(f"{whole}{name} @ {(code / wheel).as_uri()} --hash=sha256:{digest}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
        pip += ["install", "--quiet", "--require-hashes"]
        build = ["-r", str(code / "requirements.cuda.lock")] if GPU.exists() else ["--index-url", CPU_TORCH]
        self.call([*pip, "--no-deps", "-r", str(code / "torch.lock"), *build])
        self.call([*pip, "-r", str(code / "all.lock")])
        return python

    def interpreter(self) -> str:
        """A Python that the lock is made for; where the runtime has another, uv fetches one."""
        if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
            return sys.executable
        found = shutil.which(f"python{PYTHON}")
        if found is None:
            self.call([sys.executable, "-m", "pip", "install", "--quiet", "uv"])
            self.call([sys.executable, "-m", "uv", "python", "install", "--quiet", PYTHON])
            finding = [sys.executable, "-m", "uv", "python", "find", PYTHON]
            found = subprocess.run(finding, check=True, capture_output=True, text=True).stdout.strip()
        return found

    def train(self, python: Path) -> int:
        """The training's exit code."""
        folders = {name: str(ROOT / name) for name in ("data", "output", "checkpoints")}
        flags = {"spec": str(ROOT / "spec" / "spec.json"), **folders}
        if self.given["max_seconds"] is not None:
            limit = float(self.given["max_seconds"])
            flags["deadline"] = str(self.began + limit - min(60.0, limit / 20))  # time to bring the results back
        environment = {**os.environ, **self.given["environment"], "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
        return self.follow([str(python), "-m", "training_image", "train", *arguments], environment)

    def call(self, command: Sequence[str]) -> None:
        """Run a command that has to end well."""
        code = self.follow(command, dict(os.environ))
        if code:
            said = " | ".join(self.lines[-3:])
            raise RuntimeError(f"the packages cannot be installed: {command[2]} ended with {code}: {said}")

    def follow(self, command: Sequence[str], environment: dict[str, str]) -> int:
        """Run a command to its end, its lines shown and kept; gives the exit code. Raises Stopped after a stop."""
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        reader = threading.Thread(target=self.read, args=(process.stdout,), daemon=True)
        reader.start()
        asked: float | None = None
        while process.poll() is None:
            time.sleep(TURN_SECONDS)
            self.keep()
            if asked is None and self.stop_asked():
                asked = time.monotonic()
                process.terminate()
            if asked is not None and time.monotonic() - asked > SAVING_SECONDS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        reader.join(10)
        if asked is not None and process.returncode:
            raise Stopped
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def read(self, output: IO[str]) -> None:
        """Take a process's lines; of one that was written over, what stood there last."""
        for line in output:
            self.lines.append(line.rstrip("\r\n").rpartition("\r")[2])

    def stop_asked(self) -> bool:
        """Whether there is a file ``stop``; asked now and then, and of a bucket out of reach not at all."""
        if not self.is_due("stop", STOP_SECONDS):
            return False
        with contextlib.suppress(Exception):
            return bool(self.place.blob("stop").exists())
        return False

    def go_on(self) -> None:
        """Raises Stopped where the stop was asked for before it began."""
        if self.place.blob("stop").exists():
            raise Stopped

    def keep(self, last: bool = False) -> None:
        """Show the new lines; send log and results where it is time. While the job runs, what fails is tried again."""
        for line in self.lines[self.shown :]:
            self.shown += 1
            print(line)
        with contextlib.nullcontext() if last else contextlib.suppress(Exception):
            lines = self.lines[:]
            if len(lines) > self.kept and (self.is_due("log", LOG_SECONDS) or last):
                self.place.blob("log.txt").upload_from_string("".join(f"{line}\n" for line in lines))
                self.kept = len(lines)
            if self.is_due("output", OUTPUT_SECONDS) or last:
                self.output.send(ROOT / "output")

    def is_due(self, what: str, seconds: float) -> bool:
        """Whether that was last done so long ago; it counts as done now."""
        due = time.monotonic() >= self.due[what]
        if due:
            self.due[what] = time.monotonic() + seconds
        return due
