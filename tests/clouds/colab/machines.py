"""The machines of a loopback Colab: containers with a Jupyter server and /content, until they are taken away."""

import contextlib
import fcntl
import io
import json
import secrets
import tarfile
import time
import urllib.request
from pathlib import Path, PurePosixPath

import docker
from docker.errors import APIError, NotFound

from tests.clouds.containers import LABEL, LOCKS
from training_image.contracts import COLAB

NETWORK = "ftlaunch-loopback-colab"
NAMES = {
    "T4": "Tesla T4",
    "L4": "NVIDIA L4",
    "G4": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "A100": "NVIDIA A100-SXM4-40GB",
    "H100": "NVIDIA H100 80GB HBM3",
}
"""What the driver calls each accelerator."""
FOLDER = str(PurePosixPath(str(COLAB.data)).parent)
"""The job's, by the contract that the training finds its place by."""


@contextlib.contextmanager
def network():
    """The engine with a network from which nothing outside can be reached. One session at a time has it; what a killed
    one left is removed."""
    with (LOCKS / f"{NETWORK}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = docker.from_env(timeout=120)
        _clean(client)
        options = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        made = client.networks.create(NETWORK, options=options, labels={LABEL: NETWORK})
        try:
            yield client
        finally:
            _clean(client)
            with contextlib.suppress(NotFound):
                made.remove()
            client.close()


def _clean(client) -> None:
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}={NETWORK}"}):
        with contextlib.suppress(APIError):
            container.remove(force=True)
    for left in client.networks.list(names=[NETWORK]):
        with contextlib.suppress(APIError):
            left.remove()


class Machine:
    """One machine. ``accelerator`` is what it really has, NONE included."""

    def __init__(self, client, image: str, accelerator: str, folder: Path, threads: int) -> None:
        self.endpoint = f"gpu-{accelerator.lower()}-s-{secrets.token_hex(6)}"
        self.host = f"8080-{self.endpoint}.prod.colab.dev"
        self.token = secrets.token_hex(24)
        self.accelerator = accelerator
        self.gone = False
        self._kept: tuple[str, int] | None = None
        volumes = {}
        if accelerator != "NONE":
            smi = folder / f"{self.endpoint}-nvidia-smi"
            smi.write_text(f"#!/bin/sh\necho '{NAMES[accelerator]}'\n")
            smi.chmod(0o755)
            volumes[str(smi)] = {"bind": "/usr/local/bin/nvidia-smi", "mode": "ro"}
        self.container = client.containers.run(
            image,
            detach=True,
            environment={"LOOPBACK_PROXY_TOKEN": self.token, "OMP_NUM_THREADS": str(threads)},
            labels={LABEL: NETWORK},
            network=NETWORK,
            ports={"8080/tcp": ("127.0.0.1", None)},
            volumes=volumes,
            shm_size="256m",
        )
        self.container.reload()
        self.port = int(self.container.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"])

    def wait(self) -> None:
        """Until its server answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(300):
            with contextlib.suppress(OSError):
                opener.open(f"http://127.0.0.1:{self.port}/api", timeout=2).close()
                return
            time.sleep(0.1)
        raise AssertionError(self.container.logs().decode()[-2000:])

    @property
    def running(self) -> bool:
        return not self.gone

    def job(self) -> tuple[str, int] | None:
        """Name of the job that was laid on it, and how often its supervisor was started; None for an empty machine."""
        if self.gone:
            return self._kept
        spec, state = self.read(f"{FOLDER}/data/spec.json"), self.read(f"{FOLDER}/state.json")
        return None if spec is None else (json.loads(spec)["job"], json.loads(state)["starts"] if state else 0)

    def read(self, path: str) -> bytes | None:
        """A file of the machine, running or not."""
        try:
            pieces, _ = self.container.get_archive(path)
        except NotFound:
            return None
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            found = archive.extractfile(archive.next())
            return found.read() if found else None

    def contents(self, folder: str) -> bytes:
        """All files below a folder, as an archive."""
        return b"".join(self.container.get_archive(folder)[0])

    def take_away(self) -> None:
        """Kill it, without a warning."""
        if self.gone:
            return
        with contextlib.suppress(APIError):
            self.container.kill()
        self._kept = self.job()
        self.gone = True
        with contextlib.suppress(APIError):
            self.container.remove(force=True)
