"""The machines of a loopback cloud: containers on a network of their own, whose gateway is this machine at the
link-local address where such machines find their credentials. Nothing else can be reached from them."""

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

NETWORK = "ftlaunch-loopback-cloud"
GATEWAY = "169.254.170.2"
LABEL = "ftlaunch.loopback"
LOCK = Path("/var/lock/ftlaunch-loopback-cloud.lock")

Line = Callable[[float, str], None]
"""Takes Unix seconds and one line of output."""


@contextlib.contextmanager
def network() -> Iterator[docker.DockerClient]:
    """The engine, with the network. One session at a time has it; what a killed one left is removed."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = docker.from_env(timeout=120)
        _clean(client)
        pool = docker.types.IPAMPool(subnet="169.254.170.0/24", gateway=GATEWAY)
        made = client.networks.create(
            NETWORK, internal=True, labels={LABEL: "1"}, ipam=docker.types.IPAMConfig(pool_configs=[pool])
        )
        try:
            yield client
        finally:
            _clean(client)
            with contextlib.suppress(NotFound):
                made.remove()
            client.close()


def _clean(client: docker.DockerClient) -> None:
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        with contextlib.suppress(APIError):
            container.remove(force=True)
    for left in client.networks.list(names=[NETWORK]):
        with contextlib.suppress(APIError):
            left.remove()


class Machine:
    """One container; its output is handed on line by line as it comes."""

    def __init__(self, client, image, arguments, *, name, environment, mounts, line: Line, group: str) -> None:
        volumes = {str(path): {"bind": target, "mode": mode} for target, (path, mode) in mounts.items()}
        self.name = name
        self.container = client.containers.create(
            image,
            arguments,
            hostname=name,
            environment=environment,
            volumes=volumes,
            labels={LABEL: group},
            network=NETWORK,
            networking_config={NETWORK: client.api.create_endpoint_config(aliases=[name])},
            shm_size="256m",
        )
        self._line = line
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self.container.start()
        self._reader.start()

    @property
    def image_id(self) -> str:
        return self.container.attrs["Image"]

    def running(self) -> bool:
        try:
            self.container.reload()
        except NotFound:
            return False
        return self.container.status in ("created", "running")

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None if it runs on."""
        deadline = time.monotonic() + seconds
        while True:
            self.container.reload()
            if self.container.status == "exited":
                self._reader.join(10)
                return self.container.attrs["State"]["ExitCode"]
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def signal(self, name: str) -> None:
        with contextlib.suppress(APIError):
            self.container.kill(name)

    def remove(self) -> None:
        with contextlib.suppress(APIError):
            self.container.remove(force=True)

    def _read(self) -> None:
        rest = b""
        for piece in self.container.logs(stream=True, follow=True):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                self._line(time.time(), line.decode(errors="replace").rstrip("\r"))
        if rest:
            self._line(time.time(), rest.decode(errors="replace"))
