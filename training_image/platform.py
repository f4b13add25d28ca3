"""Where am I: the folders, the processes and the stop signal of this container, by its service's contract.

Only the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from training_image.contracts import CHECKPOINTS, CONTRACTS, DATA, OUTPUT, SAGEMAKER, Contract
from training_image.errors import InputError, Stopped
from training_image.time_used import TimeUsed


@dataclass(frozen=True, slots=True)
class Platform:
    """One process of a job, and where its files are."""

    name: str
    """local, docker, sagemaker, vertex, azureml or colab."""
    spec: Path
    data: Path
    output: Path
    checkpoints: Path
    deadline: float | None
    """Unix seconds at which the job must have ended."""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Position among the processes of this machine; its GPU."""
    failure_file: Path | None = None
    failure_limit: int = 0
    """Characters that the service takes of it."""
    mirror: Path | None = None
    """Where a copy of the output goes: for a service that keeps nothing of a stopped or failed job's output, or whose
    output lies in a bucket."""
    time_used: TimeUsed | None = None
    """Where a service counts the seconds of all lives of this run."""

    @property
    def main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0


def detect(flags: Mapping[str, str | None], environment: Mapping[str, str] | None = None) -> Platform:
    """Find the folders: flags go before ``FTLAUNCH_...`` variables, which go before the service's contract.

    ``flags`` has the keys spec, data, output, checkpoints and deadline. Raises InputError where a folder cannot be
    told or the deadline is no number.
    """
    env = os.environ if environment is None else environment
    contract = _contract(env)
    places: dict[str, Path] = {}
    for name in (DATA, OUTPUT, CHECKPOINTS):
        places[name] = Path(_given(name, flags, env) or _of_contract(contract, name, env) or "")
        if places[name] == Path(""):
            raise InputError(f"where is {name}?", hint=f"Give --{name} FOLDER or set FTLAUNCH_{name.upper()}.")
    output, mirror = places["output"], None
    if contract and contract.output_lost_on_failure:
        mirror = places["checkpoints"] / "output"
    elif contract and contract.scratch and (contract.output is None or not _given("output", flags, env)):
        # a service without a folder of its own names its bucket in the job's command
        output, mirror = Path(contract.scratch), output
    spec = _given("spec", flags, env)
    run = env.get(contract.run_variable or "") if contract else None
    time_used = TimeUsed(places["checkpoints"], run) if run else None
    return Platform(
        name=contract.service if contract else _here(env),
        spec=Path(spec) if spec else places["data"] / "spec.json",
        data=places["data"],
        output=output,
        checkpoints=places["checkpoints"],
        deadline=_deadline(flags, env, time_used.before if time_used else 0.0),
        rank=int(env.get("RANK", "0")),
        world_size=int(env.get("WORLD_SIZE", "1")),
        local_rank=int(env.get("LOCAL_RANK", "0")),
        failure_limit=contract.failure_limit if contract else 0,
        mirror=mirror,
        failure_file=Path(contract.failure_file) if contract and contract.failure_file else None,
        time_used=time_used,
    )


def _deadline(flags: Mapping[str, str | None], env: Mapping[str, str], used: float) -> float | None:
    """Unix seconds at which the job must have ended: as told, or so many seconds from now (``FTLAUNCH_MAX_SECONDS``),
    for a service that counts a job's time from its start, less those used by the run's earlier lives."""
    told, limit = _given("deadline", flags, env), env.get("FTLAUNCH_MAX_SECONDS")
    try:
        if told is not None:
            return float(told)
        return None if limit is None else time.time() + float(limit) - used
    except ValueError:
        what = (
            f"--deadline {told}: not a number of Unix seconds" if told else f"FTLAUNCH_MAX_SECONDS={limit}: no number"
        )
        raise InputError(what) from None


def _contract(env: Mapping[str, str]) -> Contract | None:
    for contract in CONTRACTS.values():
        if any(mark in env for mark in contract.marks):
            return contract
        if contract.marker_file and Path(contract.marker_file).exists():
            return contract
    return None


def _here(env: Mapping[str, str]) -> str:
    return "docker" if "FTLAUNCH_IN_IMAGE" in env else "local"


def _given(name: str, flags: Mapping[str, str | None], env: Mapping[str, str]) -> str | None:
    return flags.get(name) or env.get(f"FTLAUNCH_{name.upper()}") or None


def _of_contract(contract: Contract | None, name: str, env: Mapping[str, str]) -> str | None:
    if contract is None:
        return None
    if contract.variables:
        address = env.get(contract.variables.get(name, ""), "")
        return address.replace(*contract.address, 1).rstrip("/") or None
    return {DATA: contract.data, OUTPUT: contract.output, CHECKPOINTS: contract.checkpoints}[name]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The machines of a job, as the service tells them."""

    names: tuple[str, ...]
    rank: int
    """Position of this machine in `names`; the first is where the others meet."""


def hosts(environment: Mapping[str, str] | None = None) -> Hosts:
    """The machines of this job: SageMaker's resourceconfig.json, Vertex's CLUSTER_SPEC, else this one alone.

    Azure ML needs none of it: its PyTorch distribution sets torch's own variables.
    """
    env = os.environ if environment is None else environment
    resources = Path(env.get("FTLAUNCH_RESOURCE_CONFIG") or SAGEMAKER.marker_file or "")
    if resources.exists():
        told = json.loads(resources.read_text())
        names = tuple(sorted(told["hosts"]))
        return Hosts(names, names.index(told["current_host"]))
    if env.get("CLUSTER_SPEC"):
        told = json.loads(env["CLUSTER_SPEC"])
        pools = sorted(told["cluster"])
        names = tuple(address.partition(":")[0] for pool in pools for address in told["cluster"][pool])
        before = sum(len(told["cluster"][pool]) for pool in pools if pool < told["task"]["type"])
        return Hosts(names, before + int(told["task"]["index"]))
    return Hosts(("localhost",), 0)


class StopSignal:
    """Hears SIGTERM and SIGINT: the work ends with Stopped at once, but where it is held, which then asks now and then.

    As PID 1 of a container a process gets no signal that it has no handler for, so the handlers are needed there too.
    """

    def __init__(self) -> None:
        self._asked = False
        self._held = False

    def install(self) -> None:
        """Take SIGTERM and SIGINT; to be called in the main thread."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a stop is only remembered: something is under way that must be saved first."""
        self._held, before = True, self._held
        try:
            yield
        finally:
            self._held = before
        self._end_if_asked()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside of `held`, a part that may be cut off anywhere."""
        self._held, before = False, self._held
        try:
            self._end_if_asked()
            yield
        finally:
            self._held = before

    def __bool__(self) -> bool:
        return self._asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self._asked = not self._asked, True
        # A second signal must not cut off what the first one set going.
        if first:
            self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self._asked and not self._held:
            raise Stopped("stopped; a next start takes up what was finished")
