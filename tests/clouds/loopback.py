"""What all loopback clouds have: a gateway of their own, the environment that leads to it, and troubles."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.clouds.authority import Authority
from tests.clouds.containers import Network
from tests.clouds.gateway import Gateway, Response


@dataclass
class Troubles:
    throttle: bool = False
    drop: bool = False
    expired: bool = False
    capacity: bool = False
    calls: int = 0
    """Made since the trouble began; every second one is throttled or dropped."""


@contextlib.contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """A cloud's own folder; the environment is as it was, afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"ftlaunch-{name}-"))
    before = dict(os.environ)
    try:
        yield folder
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


class Loopback:
    kinds: ClassVar[type[Troubles]] = Troubles

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.gateway = Gateway(self.authority)
        stack.callback(self.gateway.close)
        self.troubles = self.kinds()
        self.denied: list = []
        """What was asked for without the right to it."""
        self.threads = 1
        """Of each machine: a second core is the tests' own."""

    def open_network(self, network: Network, stack: contextlib.ExitStack) -> None:
        """The network of the machines, with the way from them to the gateway."""
        self.engine = stack.enter_context(network.up())
        stack.callback(self.gateway.close)  # its fixed ports are free before another session gets the network's lock
        self.machine_proxy_port = self.gateway.listen(network.gateway)
        self.starting_seconds = 0.2
        """Until a machine is there."""

    def environment(self) -> dict[str, str]:
        """Variables with which a process of this machine reaches this cloud and nothing else."""
        return {
            "HTTPS_PROXY": self.gateway.proxy,
            "https_proxy": self.gateway.proxy,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": str(self.authority.file),
            "SSL_CERT_FILE": str(self.authority.file),
        }

    @contextlib.contextmanager
    def reached_from_here(self, home: Path, login: dict[str, str], strange: tuple[str, ...]) -> Iterator[None]:
        """While this lasts, this process and its children reach this cloud, and no host outside of it; fails if one was
        asked for. ``home``: the launcher's own folder; ``strange``: beginnings of variables that lead elsewhere."""
        for variable in [variable for variable in os.environ if variable.startswith(strange)]:
            del os.environ[variable]
        os.environ.update(self.environment() | login | {"FTLAUNCH_HOME": str(home)})
        yield
        assert not self.gateway.refused, f"hosts outside of the cloud were asked for: {self.gateway.refused}"

    @contextlib.contextmanager
    def trouble(self, **kinds: bool | str) -> Iterator[None]:
        self.troubles = self.kinds(**kinds)
        try:
            yield
        finally:
            self.troubles = self.kinds()

    def cut(self, response: Response) -> Response:
        """In trouble: it was done, and the answer breaks off."""
        if self.troubles.drop and self.troubles.calls % 2:
            body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
            response.body, response.cut_after = body, len(body) // 2
        return response
