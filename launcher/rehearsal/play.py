"""One rehearsal from the plan to the report."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from backends import registry, secret_values
from backends.docker_engine import Engine
from backends.interface import Backend, ContainerRequest
from launcher import lifecycle, submission
from launcher.job import HUB, JobFile
from launcher.rehearsal import after, before, image
from launcher.rehearsal.before import Check
from launcher.rehearsal.layout import Layout, of_contract, without_placeholders
from launcher.rehearsal.stage import Line, Stage, Start
from training_image.contracts import CHECKPOINTS, CONTRACTS, DATA, OUTPUT, SPEC
from training_image.errors import InputError
from training_image.progress import parse
from training_image.spec import Spec

ROWS = 32
STEPS = 4
STEPS_INTERRUPTED = 12
INTERRUPTED_AT = 2
"""The step whose line makes the machine go away: the checkpoint of the one before is whole by then."""


@dataclass(frozen=True)
class Job:
    """What is rehearsed."""

    file: JobFile
    backend: Backend | None
    """None: no backend makes plans for this service yet; its contract alone is played."""
    content: submission.Content
    name: str
    spec: Spec
    request: ContainerRequest


@dataclass
class Report:
    """What came of it."""

    job: Job
    layout: Layout
    checks: list[Check]
    image: str | None = None
    seen: after.Seen | None = None
    secrets: secret_values.Secrets = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the service would run the job."""
        return not any(check.level == "error" for check in self.checks)

    def document(self) -> dict[str, Any]:
        """The document of ``rehearse --json``."""
        layout = self.layout
        starts = [] if self.seen is None else self.seen.starts
        return {
            "job": self.job.name,
            "backend": layout.contract.service if self.job.backend is None else self.job.backend.name,
            "service": layout.contract.service,
            "played": "contract" if self.job.backend is None else "plan",
            "image": self.image,
            "ok": self.ok,
            "entrypoint": None if layout.entrypoint is None else list(layout.entrypoint),
            "arguments": list(layout.arguments),
            "environment": layout.environment | dict.fromkeys(self.secrets, "***"),
            "folders": {holds: layout.paths(holds) for holds in (SPEC, DATA, OUTPUT, CHECKPOINTS)},
            "starts": [_start(start) for start in starts],
            "failure": None if self.seen is None else self.seen.failure,
            "resumed_from": None if self.seen is None else self.seen.resumed_from,
            "output": {} if self.seen is None else self.seen.tree,
            "metrics": {}
            if self.seen is None
            else {name: {"lines": len(values), "last": values[-1]} for name, values in self.seen.metrics.items()},
            "checks": [
                {"level": check.level, "code": check.code, "message": check.message, "hint": check.hint}
                for check in self.checks
            ],
        }


def _start(start: Start) -> dict[str, Any]:
    return {
        "exit_code": start.exit_code,
        "seconds": round(start.seconds, 2),
        "steps": after.steps(start),
        "interrupted": start.interrupted,
        "killed": start.killed,
        "grace_seconds": None if start.grace is None else round(start.grace, 2),
        "log": start.lines[-after.LOG_TAIL :],
    }


def prepare(file: JobFile, name: str) -> Job:
    """Plan the job for the backend of that name, or for a service's contract alone where there is no such backend.

    Raises InputError for a place that starts no container, or a plan whose container cannot be made out.
    """
    if name not in registry.names():
        backend = registry.load("local").create()  # its plan names the job; nothing else of it is used
        content = submission.content(file, backend, None)
        job_name = submission.job_name(file.stem, content.digest, 0)
        spec = content.spec.model_copy(update={"job": job_name})
        return Job(file, None, content, job_name, spec, of_contract(name))
    planned = lifecycle.make_plan(file, None)
    backend, plan = planned.backend, planned.plan
    try:
        request = backend.container(plan)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(f"{name} would start no container: {wrong}", "correct the plan of this backend") from None
    if request is None and name not in CONTRACTS:
        hint = f"--backend {'|'.join(CONTRACTS)}; other places are tried by running the job there"
        raise InputError(f"{name} has no contract to rehearse", hint=hint)
    played = None if request is None else backend
    return Job(file, played, planned.content, plan.job_name, plan.spec, request or of_contract(name))


def rehearse(job: Job, line: Line, say: Line, *, interrupt: bool) -> Report:
    """Play it. Raises BackendError where no engine answers or the image is not to be had."""
    layout = Layout(without_placeholders(job.request))
    report = Report(job, layout, before.checks(layout, job.name), secrets=secret_values.required(job.file.job.secrets))
    if not report.ok:
        return report
    engine = Engine()
    made = submission.image_of(job.file, job.backend or registry.load("local").create())
    report.image = image.prepare(engine, job.request, made)
    if job.request.image is None and report.image != made.reference():
        say(f"the image {made.reference()} is not here; {report.image} stands for it")
    stage = Stage(
        engine=engine,
        image=report.image,
        layout=layout,
        inputs=job.content.files,
        spec=_short(job.spec, STEPS_INTERRUPTED if interrupt else STEPS).model_dump_json(by_alias=True, indent=1),
        secrets={name: value.get_secret_value() for name, value in report.secrets.items()},
        network=job.request.network and _fetches(job.file),
    )
    hidden = _masked(line, report.secrets)
    with stage.open(), tempfile.TemporaryDirectory(prefix="ftlaunch-") as folder:
        starts = [stage.start(1, hidden, _at_step if interrupt else None)]
        if starts[0].interrupted:
            say("its machine was taken away; the second start")
            starts.append(stage.start(2, hidden, None))
        for start in starts:
            start.lines = [secret_values.mask(text, report.secrets) for text in start.lines]
        report.seen = after.look(stage, starts, Path(folder))
    report.checks += after.checks(layout, report.seen, interrupt)
    return report


def _masked(line: Line, secrets: secret_values.Secrets) -> Line:
    return lambda text: line(secret_values.mask(text, secrets))


def _at_step(text: str) -> bool:
    parsed = parse(text)
    return parsed is not None and parsed[0] == "train" and float(parsed[1].get("step", 0)) >= INTERRUPTED_AT


def _short(spec: Spec, steps: int) -> Spec:
    """The same job with a few rows and steps; nothing ends it early, and every step is saved."""
    rows = min(spec.data.max_rows or ROWS, ROWS)
    few = {"max_steps": steps, "epochs": float(steps), "patience": 0, "checkpoint_steps": 1}
    return spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"max_rows": rows}),
            "train": spec.train.model_copy(update=few),
            "evaluate": spec.evaluate.model_copy(update={"enough": None}),
        }
    )


def _fetches(file: JobFile) -> bool:
    """Whether the container has to fetch model or data from the hub."""
    data = file.job.data
    return file.model_folder is None or any(
        text.startswith(HUB) for text in (data.train, data.validation, data.test) if text
    )
