"""What the author of a backend gives to the suite."""

from __future__ import annotations

import json
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pydantic import SecretStr

from backends.conformance.runs import Runs
from backends.interface import Backend, Handle, Json, Reason, Resources
from training_image.spec import Data, Evaluate, Model, Spec, Task, Train

Trouble = Callable[[], AbstractContextManager[None]]
"""Opens a context inside which the place misbehaves."""


@dataclass(frozen=True, slots=True)
class Census:
    """What the place itself knows of the jobs of one name, asked past the backend."""

    started: int
    """How often a job of this name was started (a resume is a start)."""
    running: int
    """How many of them hold a machine or a process now."""


@dataclass(frozen=True, slots=True)
class Levers:
    """Ways to make the place misbehave; a promise that needs a lever fails where it is None."""

    kill_machine: Callable[[Handle], None] | None = None
    """Kill the job's machine or process without a warning (SIGKILL); needed with `Capabilities.resume`."""
    interrupt_spot: Callable[[Handle], None] | None = None
    """Take the spot machine away as the service does; needed with `Capabilities.spot`."""
    throttle: Trouble | None = None
    """Some calls are answered with the service's "slow down"; needed by a remote place, as are the following."""
    drop_connection: Trouble | None = None
    """Some connections break off in the middle of an answer."""
    expire_credentials: Trouble | None = None
    """The credentials are refused as expired."""
    make_fail: Mapping[Reason, Trouble] = field(default_factory=dict)
    """A job submitted inside fails for that reason; NO_CAPACITY at least."""


@dataclass(frozen=True, slots=True)
class SmallJob:
    """A small real job: it must train, and be evaluated, in seconds."""

    spec: Spec
    """``spec.data.train`` names a jsonl file among ``files``; ``evaluate.enough`` is None, so that it does train."""
    files: Mapping[str, Path]
    """Path by name under the container's data folder (``train.jsonl``, ``model/config.json``)."""
    image: str | None = None
    resources: Resources = field(default_factory=Resources)
    options: Json = field(default_factory=dict)
    """`backends.NAME`, with the account facts of the place tested."""


class Harness(ABC):
    """One place under test: makes its backend, a small job, and tells what the place itself knows.

    Slow things (a finished, a cancelled, a failed job) are run once and shared by all promises; keep one harness for
    the whole test session and close it at the end. ``backend.create()`` must give a backend for the place tested, in
    this process and in a child process with the same environment.
    """

    backend: ClassVar[type[Backend]]
    remote: ClassVar[bool]
    """Whether the place is reached over a network with credentials. False is checked, not believed."""
    end_seconds: ClassVar[float] = 300.0
    """Longest wait for a job to reach a step or its end."""
    answer_seconds: ClassVar[float] = 30.0
    """Longest wait for one answer."""
    poll_seconds: ClassVar[float] = 0.3
    limit_seconds: ClassVar[int] = 15
    """`Submission.max_seconds` of the job that would run longer."""
    grace_seconds: ClassVar[float] = 120.0
    """How long, past `limit_seconds`, the place may take to start that job and to stop it."""
    long_steps: ClassVar[int] = 200
    """Steps of the job that is cancelled, killed and resumed; it must train for some seconds after ``cut_step``."""
    cut_step: ClassVar[int] = 12
    """The step at which it is cancelled or killed; checkpoints are made every third of this."""

    def __init__(self, folder: Path) -> None:
        """``folder``: an empty folder for the suite's own files."""
        self.folder = folder
        self.session = secrets.token_hex(4)
        self.secret = SecretStr(f"conformance-{secrets.token_hex(16)}")
        self.runs = Runs(self)

    @abstractmethod
    def small_job(self) -> SmallJob:
        """Make the small job (asked for once)."""

    @abstractmethod
    def census(self, job_name: str) -> Census:
        """Ask the place, past the backend, for the jobs of this name."""

    @abstractmethod
    def bytes_sent(self) -> int:
        """How many bytes of data and image the place has received so far."""

    def levers(self) -> Levers:
        """The levers of this place."""
        return Levers()

    def fresh(self) -> Backend:
        """Make the backend as a launcher started anew does."""
        return self.backend.create()

    def unknown(self, handle: Handle) -> Handle:
        """Make the handle of a job that never was from a real one: the job's name is replaced wherever it stands.
        Override where `Handle.data` holds anything else that leads to the job (a process, a container, an ARN)."""
        name = f"never-was-{self.session}"
        return Handle.model_validate_json(handle.model_dump_json().replace(handle.job_name, name))

    def child_environment(self) -> dict[str, str]:
        """Environment of a child interpreter that can import what this one can."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def close(self) -> None:
        """Stop and remove all that the suite started."""
        self.runs.clean_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def small_job(
    train: Path,
    model: Path | str,
    *,
    image: str | None = None,
    resources: Resources | None = None,
    options: Json | None = None,
) -> SmallJob:
    """Make a small classification job from a jsonl file with ``text`` and ``label`` (60 rows are plenty).

    ``model`` is a folder with a transformers checkpoint, sent along, or a hub id that the place can reach.
    """
    files = {"train.jsonl": train}
    if isinstance(model, Path):
        files |= {f"model/{path.relative_to(model)}": path for path in sorted(model.rglob("*")) if path.is_file()}
    with train.open(encoding="utf-8") as rows:
        labels = sorted({str(json.loads(row)["label"]) for row in rows})
    spec = Spec(
        job="conformance",
        model=Model(id="model" if isinstance(model, Path) else model),
        data=Data(train="train.jsonl", max_length=64),
        task=Task(type="classification", labels=labels),
        train=Train(rank=2, batch_size=2, epochs=1.0, max_steps=6, patience=0),
        evaluate=Evaluate(enough=None, shots=len(labels), resamples=200, forgetting=False),
    )
    return SmallJob(spec, files, image, resources or Resources(), options or {})
