"""The machines of a loopback cloud: containers on a network of the cloud's own, whose gateway is this machine at the
link-local address where such machines find their credentials. Nothing else can be reached from them."""

import contextlib
import fcntl
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

LABEL = "ftlaunch.loopback"
LOCKS = Path("/var/lock")

Line = Callable[[float, str], None]
"""Takes Unix seconds and one line of output."""


@dataclass(frozen=True)
class Network:
    """A cloud's network: its name, and the address at which its machines reach this one."""

    name: str
    gateway: str

    @contextlib.contextmanager
    def up(self) -> Iterator[docker.DockerClient]:
        """The engine, with this network in it. One session at a time has it; what a killed one left is removed."""
        with (LOCKS / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = docker.from_env(timeout=120)
            self._clean(client)
            subnet = str(ipaddress.ip_network(f"{self.gateway}/24", strict=False))
            pool = docker.types.IPAMPool(subnet=subnet, gateway=self.gateway)
            made = client.networks.create(
                self.name, internal=True, labels={LABEL: self.name}, ipam=docker.types.IPAMConfig(pool_configs=[pool])
            )
            try:
                yield client
            finally:
                self._clean(client)
                with contextlib.suppress(NotFound):
                    made.remove()
                client.close()

    def _clean(self, client: docker.DockerClient) -> None:
        for container in client.containers.list(all=True, filters={"label": f"{LABEL}={self.name}"}):
            with contextlib.suppress(APIError):
                container.remove(force=True)
        for left in client.networks.list(names=[self.name]):
            with contextlib.suppress(APIError):
                left.remove()


class Machine:
    """One container; its output is handed on line by line as it comes."""

    def __init__(
        self,
        client,
        network: Network,
        image: str,
        arguments,
        *,
        name,
        environment,
        mounts,
        line: Line,
        entrypoint=None,
        working_dir=None,
    ) -> None:
        """``mounts``: (path here, ``ro`` or ``rw``) by path inside; `name` is its host name for the others too."""
        volumes = {str(path): {"bind": target, "mode": mode} for target, (path, mode) in mounts.items()}
        self.name = name
        self.container = client.containers.create(
            image,
            arguments,
            entrypoint=entrypoint,
            working_dir=working_dir,
            hostname=name,
            environment=environment,
            volumes=volumes,
            labels={LABEL: network.name},
            network=network.name,
            networking_config={network.name: client.api.create_endpoint_config(aliases=[name])},
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


def quit_all(machines: list[Machine], grace_seconds: float) -> None:
    """SIGTERM to those that run, SIGKILL after the grace."""
    for machine in machines:
        machine.signal("SIGTERM")
    end = time.monotonic() + grace_seconds
    for machine in machines:
        if machine.wait(max(0.0, end - time.monotonic())) is None:
            machine.signal("SIGKILL")
            machine.wait(30)
