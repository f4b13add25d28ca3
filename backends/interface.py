"""What a backend is, and what passes between it and the launcher.

A backend is one file: a subclass of `Backend`, found by the entry point group ``ftlaunch.backends``. It talks to its
vendor's SDK inside its methods only, so that importing it costs nothing. `backends.conformance` is the executable form
of the contracts written here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from training_image.spec import Spec

Json = dict[str, Any]


class State(StrEnum):
    """Where a job stands. STOPPING is not an end."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Reason(StrEnum):
    """Why a job waits, failed or was cancelled."""

    NO_CAPACITY = "NO_CAPACITY"
    QUOTA = "QUOTA"
    SPOT_INTERRUPTED = "SPOT_INTERRUPTED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TIMED_OUT = "TIMED_OUT"
    BUDGET = "BUDGET"
    BAD_DATA = "BAD_DATA"
    BAD_IMAGE = "BAD_IMAGE"
    CREDENTIALS = "CREDENTIALS"
    USER = "USER"
    UNKNOWN = "UNKNOWN"


EXIT_REASONS: dict[int, Reason] = {2: Reason.BAD_DATA, 3: Reason.OUT_OF_MEMORY, 4: Reason.UNKNOWN, 143: Reason.USER}
"""What the exit codes of ``python -m training_image train`` mean (4: the loss diverged; the message says so)."""


class Value(BaseModel):
    """An immutable, strict value."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Capabilities(Value):
    """What a place can do; the launcher asks here before it offers a verb."""

    spot: bool = False
    several_machines: bool = False
    secrets: bool = False
    log_cursor: bool = False
    resume: bool = False
    partial_fetch: bool = False
    billable_seconds: bool = False
    image: bool = True
    """Whether the job runs in the container image (False: in a Python of the place's own)."""


class Resources(Value):
    """The machine that the job file asks for (`resources`)."""

    gpu: str | None = Field(None, description="GPU asked for (T4, L4, A10G, A100, H100); default: the place's own.")
    machine: str | None = Field(None, description="The place's own name of a machine (ml.g5.2xlarge, g2-standard-8).")
    machines: int = Field(1, ge=1, description="Number of machines.")
    spot: bool = Field(False, description="Interruptible machines at a lower bill.")
    disk_gb: int = Field(50, ge=10, description="Disk of the machine in GB.")


class Submission(Value):
    """A job as the launcher hands it to a backend."""

    job_name: str
    """``STEM-xxxxxxxx``, at most 63 letters, digits and hyphens."""
    spec: Spec
    """`spec.data` names staged files (``train.jsonl``), not the user's paths."""
    files: dict[str, str]
    """SHA-256 by name under the container's data folder: ``train.jsonl``, ``model/config.json``."""
    image: str | None = None
    """Image with tag, where `Capabilities.image`."""
    resources: Resources = Field(default_factory=lambda: Resources())
    max_seconds: int | None = None
    """Longest run time in seconds, from the budget; the place stops the job then."""
    secrets: tuple[str, ...] = ()
    """Names of secrets, never values."""
    options: Json = Field(default_factory=dict)
    """`backends.NAME` of job file and user config, checked by `Backend.options`."""


class Unresolved(Value):
    """An account fact that neither job file nor user config gave."""

    path: str
    """Dotted: ``backends.sagemaker.role``; the request holds ``<sagemaker.role>`` in its place."""
    hint: str


class Plan(Value):
    """The exact request that `submit` sends, made without network, clock, credentials or SDK."""

    backend: str
    job_name: str
    request: Json
    """What is sent, secrets shown as ``***``."""
    inputs: dict[str, str]
    """SHA-256 of each file to stage, by name under the data folder."""
    image: str | None = None
    unresolved: tuple[Unresolved, ...] = ()
    spec: Spec
    max_seconds: int | None = None
    machine: str | None = None
    """The rented machine by the name that `Backend.offers` has for it: its price is the job's."""
    kept_seconds: int = 0
    """How long the machine is kept after the job at the same price, for a next one (SageMaker's warm pool)."""
    region: str | None = None


class Mount(Value):
    """A folder that a place lays into the container."""

    name: str
    """As the request names it: SageMaker's channel, Azure ML's input or output, BUCKET/PREFIX on Vertex AI, a folder
    below ``/content`` on Colab; or the absolute path where the request gives one. `Contract.inputs` and `.outputs` in
    `training_image.contracts` make paths of names."""
    holds: Literal["spec", "data", "output", "checkpoints"]
    """What is in it, or goes there. Where nothing holds the spec, ``spec.json`` lies in the data folder."""


class ContainerRequest(Value):
    """What a place starts for a plan, as far as its container sees it; read out of the plan's request."""

    service: str
    """Key of `training_image.contracts.CONTRACTS`: what this service adds by itself, and its limits."""
    mounts: tuple[Mount, ...]
    entrypoint: tuple[str, ...] | None = None
    """Instead of the image's own."""
    arguments: tuple[str, ...] | None = None
    """After the entry point (`Contract.argv` if None); where the contract has a `line_shell`, one command line."""
    environment: dict[str, str] = Field(default_factory=dict)
    """The request's own variables."""
    derived: dict[str, str] = Field(default_factory=dict)
    """What the service makes of the request (TRAINING_JOB_NAME, AIP_MODEL_DIR); goes before the contract's."""
    hyperparameters: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, str] = Field(default_factory=dict)
    """Regular expressions by which the service reads metrics out of the log, by the metric's name."""
    network: bool = True
    """Whether the container may reach the network."""
    image: str | None = None
    """An image that the request names instead of the job's own."""


class Finding(Value):
    """One thing that a preflight found."""

    level: Literal["error", "warning", "note"]
    code: str
    message: str
    hint: str = ""
    """What to do, always given for an error."""


class Handle(Value):
    """How a started job is found again; JSON-serialisable and free of secrets."""

    backend: str
    job_name: str
    data: Json = Field(default_factory=dict)


class Status(Value):
    """A job's state, as the place tells it now."""

    state: State
    reason: Reason | None = None
    """Given for FAILED and CANCELLED, and for QUEUED where the place says why."""
    native_state: str = ""
    message: str = ""
    billable_seconds: float | None = None
    """Seconds on the bill by the place's own account; None where it keeps none."""


Cursor = str
"""Opaque; sorts with nothing, compares with nothing; handed back to `Backend.logs` to go on after that line."""


class LogLine(Value):
    """One line of the job's output."""

    text: str
    cursor: Cursor
    source: str = ""
    """Which machine it came from, where there are several."""


class Offer(Value):
    """A machine that a place rents, with its price or without."""

    backend: str
    machine: str
    region: str | None
    gpu: str | None
    gpu_count: int
    usd_per_hour: float | None
    """None: unknown; never 0 for a place that bills."""
    usd_per_hour_spot: float | None = None
    kind: Literal["live", "snapshot", "derived", "user", "free"]
    as_of: str
    source: str


class BackendError(Exception):
    """The place refused, or cannot be reached. ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "", reason: Reason = Reason.UNKNOWN) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason


class JobNotFound(BackendError):
    """The handle names a job that the place does not know."""


class BackendOptions(BaseModel):
    """Base of the schema of ``backends.NAME``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Backend(ABC):
    """A place that can run the training image.

    All methods raise `BackendError` for what the place refuses; nothing of a vendor's exceptions comes through.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    options: ClassVar[type[BackendOptions]]
    summary: ClassVar[str]
    """One line for ``ftlaunch backends``."""
    extra: ClassVar[str]
    """The distribution's extra that this backend needs: ``ftlaunch[EXTRA]``."""

    @classmethod
    def create(cls) -> Self:
        """Make the backend; touches no network, disk or SDK."""
        return cls()

    @property
    def bills(self) -> bool:
        """Whether a job here costs money (where its machine's offer is not free), as in every place that tells the
        seconds on a bill."""
        return self.capabilities.billable_seconds

    @abstractmethod
    def plan(self, submission: Submission) -> Plan:
        """Make the exact request. Pure: same submission, same plan; no network, clock, credentials, daemon or SDK."""

    def torch(self, resources: Resources) -> Literal["cpu", "cuda"]:
        """Which of the two images fits the machine of these resources. Pure, as `plan` is."""
        return "cuda" if resources.gpu or self.capabilities.billable_seconds else "cpu"

    def container(self, plan: Plan) -> ContainerRequest | None:
        """What the place starts for this plan, for the rehearsal; None where there is none to play.

        Pure, as `plan` is; read out of the plan's request, so that a fault in it comes out.
        """
        return None

    @abstractmethod
    def resolve(self, plan: Plan) -> Plan:
        """Ask the place for what is unresolved; what it does not know stays unresolved."""

    @abstractmethod
    def preflight(self, plan: Plan) -> list[Finding]:
        """Look for what would make the submit fail: credentials, rights, quota, image. Changes nothing."""

    def machine(self, plan: Plan) -> str | None:
        """The machine type that the job will get, for its price; asks the place where only that knows it."""
        return plan.machine

    def lacks_image(self, plan: Plan) -> bool:
        """Whether `stage` is going to send the job's own image, which the launcher builds before it then."""
        return False

    @abstractmethod
    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Send data and image, by content: a second call sends nothing. ``files`` are the paths of `Plan.inputs`."""

    @abstractmethod
    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Start the job. Idempotent by ``plan.job_name``: a job of that name is returned, not started again.

        Raises BackendError for a plan with anything unresolved.
        """

    @abstractmethod
    def find(self, job_name: str) -> Handle | None:
        """Find a job by name after a crash between submit and its record; None if there is none."""

    def known(self) -> Iterable[Handle]:
        """Our jobs that the place still holds, whoever recorded them; a place that cannot list them gives none."""
        return ()

    def notebook(self, plan: Plan, files: Mapping[str, Path], into: Path) -> list[Path]:
        """Write the job as a notebook that a person opens and runs, into this folder; gives the files, the notebook
        first. Its last cell leaves an archive for ``ftlaunch fetch JOB --from FILE``. None: the place has no such way.
        """
        return []

    @abstractmethod
    def status(self, handle: Handle) -> Status:
        """Ask for the state. Raises JobNotFound for a job that does not exist, which is never SUCCEEDED."""

    @abstractmethod
    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """Give the lines there are now, after the cursor; ends when there are no more *now*. No line is lost or
        repeated when a reader goes on with the last cursor it saw."""

    @abstractmethod
    def cancel(self, handle: Handle) -> None:
        """Ask for a stop, with the grace that lets the training save. Idempotent; an ended job stays as it is."""

    @abstractmethod
    def resume(self, handle: Handle) -> Handle:
        """Go on from the last checkpoint, where `Capabilities.resume`; a running job is returned as it is.

        Raises InputError (`backends.secret_values.required`) where the place does not keep the job's secrets, and one
        of them has no value here any more.
        """

    @abstractmethod
    def fetch(self, handle: Handle, into: Path) -> None:
        """Bring the output tree into the existing empty folder ``into``. May be called for any ended job where
        `Capabilities.partial_fetch`; a second call into the same folder goes on where the first broke off."""

    @abstractmethod
    def remove(self, handle: Handle) -> None:
        """Free what the ended job still holds at the place (a container, a volume, a VM). Idempotent."""

    def release(self, handle: Handle) -> None:  # noqa: B027  # by default nothing is done
        """Free what a failed or cancelled job holds at the place, once its results are fetched. Idempotent.

        What a resume needs is kept: where the job itself goes, `resume` raises JobNotFound from then on, and `stage`
        brings the checkpoints back. A place where such a job is in nobody's way does nothing.
        """

    @abstractmethod
    def offers(self, region: str | None) -> Iterable[Offer]:
        """The machines this place has, from the bundled prices; no network."""
