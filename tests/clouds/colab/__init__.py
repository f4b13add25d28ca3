"""A loopback Colab, asked by Google's own command line tool: assignments of machines, their proxy, compute units.

The answers have the shapes that the tool itself checks (`colab_cli.client`, version 0.7.5). A machine is a container
with a real Jupyter server, reached over TLS through the gateway by the host name that an assignment tells.
"""

import base64
import contextlib
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.clouds.colab.machines import Machine, network
from tests.clouds.gateway import Request, Response
from tests.clouds.google.tokens import Tokens
from tests.clouds.loopback import Loopback, Troubles

GUARD = ")]}'\n"
"""What Colab puts before its JSON, so that no page can load it as a script."""
VARIANTS = {"DEFAULT": 0, "GPU": 1, "TPU": 2}
RATES = {"NONE": 0.08, "T4": 1.19, "L4": 1.71, "A100": 5.4, "G4": 8.71, "H100": 9.9}
"""Compute units an hour."""
PAID = {"L4", "A100", "G4", "H100"}
"""What is not given without units."""


@dataclass
class ColabTroubles(Troubles):
    refused: bool = False
    """No machine, by use or capacity (412)."""
    no_right: bool = False
    """The accelerator is not the account's to have (400)."""
    answer_lost: bool = False
    """A machine is assigned, and nobody is told."""
    held: bool = False
    """No machine is let go (500)."""


class Colab(Loopback):
    kinds = ColabTroubles
    project = "loopback-project"

    def __init__(self, folder: Path, image: str, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        self.image = image
        self.engine = stack.enter_context(network())
        self.tokens = Tokens(self)
        self.machines: dict[str, Machine] = {}
        """All that ever were, by endpoint."""
        self.substitute: str | None = None
        """The accelerator that is given whatever is asked for."""
        self.balance = 100.0
        self.free = True
        """Whether a T4 is given without units."""
        self._notebooks: dict[str, str] = {}
        """Endpoint by notebook hash."""
        self._xsrf: set[str] = set()
        self._charged = time.time()
        self._lock = threading.RLock()
        stack.callback(self.close)
        self.gateway.route(r"oauth2\.googleapis\.com", self.tokens.serve)
        self.gateway.route(r"colab\.research\.google\.com", self._serve)
        self.gateway.splice(r"8080-.+\.prod\.colab\.dev", self._address)
        self.gateway.route(r"8080-.+\.prod\.colab\.dev", lambda _: Response(404, [], b"no such runtime"))

    def close(self) -> None:
        for machine in self.machines.values():
            machine.take_away()

    def environment(self) -> dict[str, str]:
        """Google's own tools are kept from the user's login, and from asking where they run, too."""
        return super().environment() | {"CLOUDSDK_CONFIG": str(self.folder / "no-gcloud"), "NO_GCE_CHECK": "true"}

    def assigned(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.running]

    def machine_of(self, job: str) -> Machine:
        """The running machine of a job."""
        return next(each for each in self.assigned() if (each.job() or ("",))[0] == job)

    def run_out(self) -> None:
        """The units are used up: paid machines are taken away, and no other is given."""
        self.balance = 0.0
        for machine in self.assigned():
            if machine.accelerator in PAID or not self.free:
                machine.take_away()

    def open_elsewhere(self, accelerator: str = "T4") -> Machine:
        """A machine that the user opened in the browser."""
        return self._assign(accelerator)

    def _address(self, host: str) -> tuple[str, int] | None:
        found = next((each for each in self.assigned() if each.host == host), None)
        return ("127.0.0.1", found.port) if found else None

    def _serve(self, request: Request) -> Response:
        with self._lock:
            self.troubles.calls += 1
            odd = self.troubles.calls % 2
        if self.tokens.owner(request.headers.get("Authorization", "")) is None or self.troubles.expired:
            return Response(401, [], b"Unauthorized")
        if self.troubles.throttle and odd:
            return Response(429, [], b"Too Many Requests")
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        assert query.pop("authuser") == "0"
        assert request.headers["X-Colab-Client-Agent"] == "colab-cli"
        response = self._answer(request, urlsplit(request.path).path, query)
        assigned = request.method == "POST" and urlsplit(request.path).path == "/tun/m/assign"
        if (self.troubles.drop and odd) or (self.troubles.answer_lost and assigned):
            response.cut_after = len(response.body) // 2
        return response

    def _answer(self, request: Request, path: str, query: dict[str, str]) -> Response:
        if path == "/tun/m/assign":
            return self._assign_call(request, query)
        if path == "/tun/m/assignments" and request.method == "GET":
            return _json({"assignments": [self._listed(machine) for machine in self.assigned()]})
        if path == "/tun/m/ccu-info" and request.method == "GET":
            return self._usage()
        if match := re.fullmatch(r"/tun/m/unassign/([\w-]+)", path):
            return self._unassign(request, match[1])
        return Response(404, [], b"Not Found")

    def _assign_call(self, request: Request, query: dict[str, str]) -> Response:
        nbh, accelerator = query["nbh"], query.get("accelerator", "NONE")
        variant = query.get("variant", "DEFAULT")
        assert re.fullmatch(r"[0-9a-f_]{36}\.{8}", nbh)
        there = self.machines.get(self._notebooks.get(nbh, ""))
        if there is not None and there.running:
            return _json({"endpoint": there.endpoint, "runtimeProxyInfo": self._proxy(there)})
        if request.method == "GET":
            return _json({"acc": accelerator, "nbh": nbh, "token": self._token(), "variant": variant})
        if not self._spend(request):
            return Response(403, [], b"Forbidden")
        without = self.balance <= 0 and (accelerator in PAID or not self.free)
        if self.troubles.no_right or without:
            return Response(400, [], b"Bad Request")
        if self.troubles.refused:
            return Response(412, [], b"Precondition Failed")
        machine = self._assign(self.substitute or accelerator)
        self._notebooks[nbh] = machine.endpoint
        return _json(
            {
                "accelerator": machine.accelerator,
                "endpoint": machine.endpoint,
                "runtimeProxyInfo": self._proxy(machine),
                "variant": VARIANTS[variant],
            }
        )

    def _assign(self, accelerator: str) -> Machine:
        self._charge()
        machine = Machine(self.engine, self.image, accelerator, self.folder, self.threads)
        self.machines[machine.endpoint] = machine
        machine.wait()
        return machine

    def _unassign(self, request: Request, endpoint: str) -> Response:
        machine = self.machines.get(endpoint)
        if machine is None or not machine.running:
            return Response(404, [], b"Not Found")
        if request.method == "GET":
            return _json({"token": self._token()})
        if not self._spend(request):
            return Response(403, [], b"Forbidden")
        if self.troubles.held:
            return Response(500, [], b"Internal Server Error")
        self._charge()
        machine.take_away()
        return _json({})

    def _usage(self) -> Response:
        self._charge()
        told = {
            "currentBalance": self.balance,
            "consumptionRateHourly": self._rate(),
            "assignmentsCount": len(self.assigned()),
        }
        return _json(told)

    def _rate(self) -> float:
        return sum(RATES[machine.accelerator] for machine in self.assigned()) if self.balance > 0 else 0.0

    def _charge(self) -> None:
        now = time.time()
        self.balance = max(0.0, self.balance - self._rate() * (now - self._charged) / 3600)
        self._charged = now

    def _listed(self, machine: Machine) -> dict:
        return {
            "accelerator": machine.accelerator,
            "endpoint": machine.endpoint,
            "variant": VARIANTS["DEFAULT" if machine.accelerator == "NONE" else "GPU"],
            "machineShape": 0,
            "runtimeProxyInfo": self._proxy(machine),
        }

    def _proxy(self, machine: Machine) -> dict:
        return {"token": machine.token, "tokenExpiresInSeconds": 3600, "url": f"https://{machine.host}"}

    def _token(self) -> str:
        token = base64.urlsafe_b64encode(secrets.token_bytes(18)).decode()
        self._xsrf.add(token)
        return token

    def _spend(self, request: Request) -> bool:
        """Whether a change carries the token that the question before it gave, each once."""
        token = request.headers.get("X-Goog-Colab-Token", "")
        known = token in self._xsrf
        self._xsrf.discard(token)
        return known


def _json(content: dict) -> Response:
    return Response(200, [("Content-Type", "application/json")], (GUARD + json.dumps(content)).encode())


@contextlib.contextmanager
def loopback_colab(folder: Path, image: str) -> Iterator[Colab]:
    """A whole Colab with one account, for as long as this lasts.

    ``image``: a bare Python with a Jupyter server behind its proxy token.
    """
    with contextlib.ExitStack() as stack:
        yield Colab(folder, image, stack)
