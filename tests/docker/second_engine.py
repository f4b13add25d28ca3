"""An engine of the tests' own, that may be killed and whose disk may be full: small, on a RAM disk, with no network."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker

SCRIPT = "echo started; trap 'echo saved; exit 143' TERM; sleep 1000 & wait"
"""What its image does instead of training."""
IMAGE = "ftlaunch-test:waits"


class SecondEngine:
    """A dockerd with a socket, a state folder and a disk of ``megabytes`` of its own. Needs root."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        (folder / "disk").mkdir(parents=True)
        self._settings = folder / "daemon.json"
        self._settings.write_text("{}")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder / "disk")], check=True)
        self.start()

    def start(self) -> None:
        (self.folder / "docker.pid").unlink(missing_ok=True)
        command = [
            # In a network of its own: `--bridge none` removes docker0, which this machine's engine needs.
            *("unshare", "--net", "dockerd"),
            *("--host", self.url, "--data-root", str(self.folder / "disk"), "--exec-root", str(self.folder / "exec")),
            *("--pidfile", str(self.folder / "docker.pid"), "--bridge", "none", "--iptables=false"),
            *("--config-file", str(self._settings)),
        ]
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(docker.errors.DockerException):
                self.client = docker.DockerClient(base_url=self.url, version="auto")
                return
            assert time.monotonic() < end, (self.folder / "dockerd.log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """End it without a warning, and the containerd that it started with it; the containers live on."""
        pid_file = self.folder / "exec" / "containerd" / "containerd.pid"
        containerd = int(pid_file.read_text())
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(containerd, signal.SIGKILL)
        pid_file.unlink()  # else the next one takes it for running as long as nobody has waited for it

    @contextlib.contextmanager
    def nvidia_runtime(self) -> Iterator[None]:
        """While this lasts the engine has a runtime of that name, as NVIDIA's container toolkit adds one."""
        self._have_runtimes({"nvidia": {"path": shutil.which("runc")}})
        try:
            yield
        finally:
            self._have_runtimes({})

    def _have_runtimes(self, runtimes: dict) -> None:
        self._settings.write_text(json.dumps({"runtimes": runtimes}))
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while ("nvidia" in self.client.info()["Runtimes"]) != bool(runtimes):
            assert time.monotonic() < end, (self.folder / "dockerd.log").read_text()[-2000:]
            time.sleep(0.05)

    def add_image(self) -> None:
        """Import an image of a shell and what it needs, out of this machine's own files."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
            programs = ("/bin/sh", "/bin/sleep")
            for path in sorted({*programs, *(each for program in programs for each in _libraries(program))}):
                archive.add(path, path)
        changes = [f'ENTRYPOINT ["/bin/sh", "-c", "{SCRIPT}"]', "ENV PATH=/bin"]
        repository, _, tag = IMAGE.partition(":")
        self.client.api.import_image_from_data(content.getvalue(), repository, tag, changes=changes)

    def close(self) -> None:
        """Stop it with its containers, and give the disk back."""
        with contextlib.suppress(docker.errors.DockerException):
            for container in self.client.containers.list(all=True):
                container.remove(force=True)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its containerd, if it was killed
        subprocess.run(["umount", "--lazy", str(self.folder / "disk")], check=False)


def _libraries(program: str) -> list[str]:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return sorted({word for word in told.split() if word.startswith("/")})
