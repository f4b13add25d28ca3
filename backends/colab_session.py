"""One job on one Colab machine, through Google's tool: taken, started, looked at, brought here, given back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import tarfile
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from backends import colab_request, colab_vm, hardware, supervised
from backends.colab_job import Job, Record, Units, sessions
from backends.colab_tool import Assigned, SessionLost, Tool
from backends.interface import BackendError, Json, Reason, State, Status

SECRETS = "/content/ftlaunch-parts/secrets"
"""Where secrets lie on the machine for the moment between their arrival and the start, which deletes them first."""
INSTALL_SECONDS = 600.0
"""Longest wait for the machine to join and unpack what was sent, or to pack what is to be brought."""
STOP_PAUSES = (1.0, 4.0)
"""Seconds before a stop that failed is tried again: until it succeeds, the machine uses units."""
LEAST_PAUSE = 10.0
"""Checkpoints are brought no sooner than this many times the seconds that the last time took."""
_ASKED = "-asked"
"""Ends the name under which a machine is noted that is not known to be the job's yet: whoever fails or dies while
he asks it leaves no note that would have it stopped as the job's."""
_STEP = re.compile(r"step-(\d+)\.pt")
_REFUSALS = (Reason.NO_CAPACITY, Reason.QUOTA, Reason.CREDENTIALS)


def tool_of(request: Json) -> Tool:
    """The tool that a plan's request names."""
    return Tool(request["tool"]["command"], request["tool"]["auth"], sessions())


def begin(job: Job, secrets: Mapping[str, SecretStr], locked: int) -> None:
    """Take a machine, send everything and start the training; on any trouble the machine is given back.

    Called by who is alone at the job; ``locked`` is that lock's descriptor. Raises BackendError.
    """
    if job.record.may_have_machine:  # an earlier try's: listed as there before, it would not be looked for any more
        give_back(job)
    record = job.record
    tool = tool_of(record.plan.request)
    balance, machines = tool.usage(), tool.assigned()
    job.update(
        intended=time.time(),
        before=[each.endpoint for each in machines],
        units=Units(before=balance.balance, others=balance.rate, used=record.units.used if record.units else 0.0),
        log_before=job.log_bytes(),
        started=None,  # who dies in a resume leaves an intent again: whether this machine trains is asked then
        cancelled=False,
        shown=None,
    )
    try:
        _take(tool, job, locked)
        digest = _send(tool, job)
        _start(tool, job, digest, secrets)
    except BaseException as error:
        try:
            give_back(job)
        except BackendError as left:
            if isinstance(error, BackendError):
                error.message += f"; {_left(left)}"
        # An ended job that could not go on is what it was.
        job.update(started=record.started, shown=record.shown, cancelled=record.cancelled)
        raise


def give_back(job: Job) -> None:
    """Stop the job's machine, if it has one; a training that may be in it is lost. Raises BackendError."""
    job.drop_secrets()
    record = job.record
    tool = tool_of(record.plan.request)
    endpoint = _machine(tool, job)
    if endpoint is None:
        job.update(endpoint=None, intended=None)
    else:
        job.update(endpoint=endpoint)
        _stop(tool, job)


def _stop(tool: Tool, job: Job) -> None:
    """Stop the job's machine, and see that it is gone; tried a few times."""
    for pause in STOP_PAUSES:
        with contextlib.suppress(BackendError):
            _stop_once(tool, job)
            return
        time.sleep(pause)
    _stop_once(tool, job)


def _stop_once(tool: Tool, job: Job) -> None:
    tool.stop(job.name)
    if any(each.endpoint == job.record.endpoint for each in tool.assigned()):
        raise BackendError(f"the machine of {job.name} does not stop", hint="ftlaunch jobs --reconcile tries again")
    job.update(endpoint=None, intended=None)


def _left(error: BackendError) -> str:
    """What is said of a machine that could not be given back."""
    again = "it uses units until `ftlaunch jobs --reconcile` gives it back"
    return f"its machine could not be given back ({error.message}): {again}"


def is_started(job: Job) -> bool:
    """Whether the training runs on the machine of a job of which no start was written down here."""
    job.drop_secrets()
    tool = tool_of(job.record.plan.request)
    if _machine(tool, job) is None:
        return False
    asked = _inline("(FOLDER / 'state.json').exists()")
    return bool(tool.ask(job.name, asked))


def look(job: Job) -> None:
    """Ask the machine how the job stands, and bring what is new. Called by who is alone at the job."""
    record = job.record
    tool = tool_of(record.plan.request)
    try:
        told = _told(tool, job)
    except BackendError as error:
        machine = _machine(tool, job)
        if machine is None:
            _lost(tool, job)
            return
        if not isinstance(error, SessionLost):
            raise
        told = _told(tool, job)  # the machine is there, and the tool knows of it again
    state: Json = told["state"]
    job.update(looked=time.time())
    if state["ended"] is not None:
        _end(tool, job, told, supervised.ended(job.folder, state))
        return
    if not told["supervisor"] and not told["training"]:
        message = "the job's supervisor was killed on the machine"
        _end(tool, job, told, Status(state=State.FAILED, reason=Reason.UNKNOWN, native_state="lost", message=message))
        return
    if told["packed"]:
        now = time.time()
        _bring(tool, job, told)
        job.update(checkpoints=told["checkpoints"], pulled=time.time(), pulling=time.time() - now)
    job.update(shown=_running(job.record, state, told["supervisor"]))


def cancel(job: Job) -> None:
    """Ask the supervisor on the machine to stop the training, which saves first."""
    tool = tool_of(job.record.plan.request)
    job.update(cancelled=True, looked=0.0)
    try:
        tool.ask(job.name, _by_module("cancel()"))
    except SessionLost:
        return  # the next look tells


def _running(record: Record, state: Json, supervised_now: bool) -> Status:
    if record.cancelled:
        return Status(state=State.STOPPING, native_state="stopping", message="asked to stop; it saves first")
    if not supervised_now:
        return Status(state=State.STOPPING, native_state="orphan", message="its supervisor was killed; it saves")
    starting = state["training_pid"] is None
    return Status(
        state=State.STARTING if starting else State.RUNNING,
        native_state="starting" if starting else "running",
        message=_on_other(record),
    )


def _on_other(record: Record) -> str:
    wanted = record.plan.request["machine"]["gpu"]
    return "" if _is(record.plan.machine or wanted, record.gpu) else f"on {record.gpu or 'no GPU'} instead of {wanted}"


def _take(tool: Tool, job: Job, locked: int) -> None:
    """Take a machine and see that it is what was asked for. An answer that got lost is looked for, not asked again."""
    record = job.record
    wanted = record.plan.request["machine"]
    try:
        tool.new(job.name, wanted["gpu"], wanted["high_mem"], locked)
    except BackendError as error:
        if error.reason in _REFUSALS or _stray(tool, job) is None:
            raise
    job.update(endpoint=tool.endpoint(job.name))
    given = str(tool.ask(job.name, _inline("(PARTS.mkdir(exist_ok=True), gpu())[1]")))
    job.update(gpu=given)
    if not wanted["substitute"] and not _is(record.plan.machine or wanted["gpu"], given):
        message = f"Colab gave {given or 'a machine without a GPU'} where {wanted['gpu']} was asked for"
        hint = "try again later, or set backends.colab.substitute to take what there is"
        raise BackendError(message, hint=hint, reason=Reason.NO_CAPACITY)


def _is(machine: str, given: str) -> bool:
    """Whether a driver's name is that of the machine's GPU; an A100 with more memory is one too."""
    found = hardware.gpu(given.splitlines()[0]) if given else None
    if found is None:
        return False
    known = hardware.machines().get((colab_request.NAME, machine))
    return (known is not None and known.gpu == found.name) or hardware.matches(machine, found.name)


def _machine(tool: Tool, job: Job) -> str | None:
    """The endpoint of the job's machine by Colab's own list; a session that the tool has lost sight of is restored."""
    machines = tool.assigned()
    named = next((each.endpoint for each in machines if each.name == job.name), None)
    if named is not None:
        return named
    kept = job.record.endpoint
    if kept is not None and any(each.endpoint == kept for each in machines):
        tool.restore(job.name, kept)
        return kept
    return _stray(tool, job, machines) if kept is None and job.record.intended is not None else None


def _stray(tool: Tool, job: Job, machines: list[Assigned] | None = None) -> str | None:
    """A machine that came with our call and that nothing was written down of: not there before, without a name, and as
    Colab gives it. Its GPU may be another than the one asked for. One without a GPU is left alone: a notebook that the
    user has just opened runs on such a machine, and its work may lie in memory alone, where nobody sees it."""
    record = job.record
    gpus = {gpu for gpu, _ in colab_request.MACHINES.values()}
    for each in machines if machines is not None else tool.assigned():
        unnamed = each.name == "?" or each.name.endswith(_ASKED)
        if unnamed and each.endpoint not in record.before and each.hardware in gpus:
            asked = f"{job.name}{_ASKED}"
            tool.restore(asked, each.endpoint)
            try:
                ours = bool(tool.ask(asked, _inline("untouched()")))
            finally:
                tool.forget(asked)
            if ours:
                tool.restore(job.name, each.endpoint)
                return each.endpoint
    return None


def _send(tool: Tool, job: Job) -> str:
    """Send data, code and the checkpoints that there are, as one archive in parts; gives its SHA-256."""
    plan = job.record.plan
    files = {name: job.data / name for name in plan.inputs}
    with tempfile.TemporaryDirectory(prefix="ftlaunch-colab-") as folder:
        whole = Path(folder, "whole.tar")
        with tarfile.open(whole, "w") as archive:
            colab_request.write(archive, colab_request.members(plan, files))
            for path in sorted(job.checkpoints.rglob("*")):
                archive.add(path, arcname=f"checkpoints/{path.relative_to(job.checkpoints)}", recursive=False)
        digest, part = hashlib.sha256(), Path(folder, "part")
        with whole.open("rb") as content:
            for number, piece in enumerate(iter(lambda: content.read(colab_vm.PART_BYTES), b"")):
                digest.update(piece)
                part.write_bytes(piece)
                tool.upload(job.name, part, f"{colab_vm.PARTS}/in-{number:05}")
    return digest.hexdigest()


def _start(tool: Tool, job: Job, digest: str, secrets: Mapping[str, SecretStr]) -> None:
    """Unpack what was sent and start the supervisor. The secrets go by the file service, which logs no content, and
    are deleted when they are read."""
    there = None
    if secrets:
        values = {name: value.get_secret_value() for name, value in secrets.items()}
        try:
            job.secrets.touch(0o600)
            job.secrets.write_text(json.dumps(values))
            tool.upload(job.name, job.secrets, SECRETS)
        finally:
            job.drop_secrets()
        there = SECRETS
    tool.ask(job.name, _inline(f"(unpack('{digest}'), start({there!r}))[1]"), INSTALL_SECONDS)
    job.update(started=time.time(), looked=0.0)


def _told(tool: Tool, job: Job) -> Json:
    """How the job stands, with what is to be brought packed; its new lines are appended to the log here."""
    record = job.record
    due = time.time() - record.pulled >= record.pulling * LEAST_PAUSE
    known = record.checkpoints if due else None
    while True:
        after = job.log_bytes() - record.log_before
        told: Json = tool.ask(job.name, _by_module(f"look({after}, {known!r})"), INSTALL_SECONDS)
        job.append_log(zlib.decompress(base64.b64decode(told["log"])))
        if not told["more"]:
            return told


def _bring(tool: Tool, job: Job, told: Json) -> None:
    """Bring the folders that the machine has packed, each whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="ftlaunch-colab-") as folder:
        whole, part = Path(folder, "whole.tar"), Path(folder, "part")
        with whole.open("wb") as archive:
            for path, size, sha256 in told["parts"]:
                tool.download(job.name, path, part)
                content = part.read_bytes()
                if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
                    raise BackendError("what arrived here is not what the machine sent", hint="try again")
                archive.write(content)
        with tarfile.open(whole) as members:
            job.take(members, tuple(told["packed"]))


def _end(tool: Tool, job: Job, told: Json, status: Status) -> None:
    """Bring the results of an ended job, give the machine back, and write the end down."""
    try:
        _bring(tool, job, told)
    except BackendError:
        if _machine(tool, job) is None:
            _lost(tool, job)
            return
        raise
    units, said = job.record.units, [status.message]
    with contextlib.suppress(BackendError):
        units = _units(tool, job.record)
    if units is not None and units.used:
        said.append(f"{units.used:.2f} compute units used")
    try:
        _stop(tool, job)
    except BackendError as error:  # `release`, `remove` and `jobs --reconcile` try again
        said.append(_left(error))
    message = "; ".join(part for part in said if part)
    job.update(shown=status.model_copy(update={"message": message}), units=units)


def _units(tool: Tool, record: Record) -> Units | None:
    """What the job used by its machine's rate and time, as other machines draw on the same balance; asked for while the
    machine is still there."""
    units = record.units
    if units is None or record.intended is None:
        return units
    usage = tool.usage()
    rate = max(0.0, usage.rate - units.others)
    used = units.used + rate * (time.time() - record.intended) / 3600
    return units.model_copy(update={"after": usage.balance, "rate": rate, "used": used})


def _units_of_lost(tool: Tool, units: Units, began: float) -> Units:
    """What the balance lacks since the machine was taken, less what others drew on it by the higher of their two known
    rates: nobody tells when the machine went."""
    usage = tool.usage(once=True)
    others = max(units.others, usage.rate) * (time.time() - began) / 3600
    drawn = max(0.0, units.before - usage.balance - others)
    return units.model_copy(update={"after": usage.balance, "used": units.used + drawn})


def _lost(tool: Tool, job: Job) -> None:
    """Write down that the machine is gone, with its units if the tool tells them at once."""
    record = job.record
    units = record.units
    if units is not None and record.intended is not None:
        with contextlib.suppress(BackendError, OSError):
            units = _units_of_lost(tool, units, record.intended)
    steps = [int(match[1]) for name in record.checkpoints if (match := _STEP.fullmatch(name))]
    kept = f"from step {max(steps)}" if steps else "from the beginning: no checkpoint had been brought here"
    message = f"Colab took the machine away; `ftlaunch run --resume` goes on with another one, {kept}"
    status = Status(state=State.FAILED, reason=Reason.SPOT_INTERRUPTED, native_state="lost", message=message)
    if record.cancelled:
        status = Status(state=State.CANCELLED, reason=Reason.USER, native_state="lost", message="stopped on request")
    job.update(shown=status, endpoint=None, intended=None, units=units)


def _inline(expression: str) -> str:
    """Code for a machine where none of ours lies yet: the module's own source goes with it."""
    return f"{Path(colab_vm.__file__).read_text(encoding='utf-8')}\nanswer = {expression}"


def _by_module(call: str) -> str:
    folder = str(colab_vm.FOLDER)
    path = f"{folder!r} in sys.path or sys.path.insert(0, {folder!r})"
    return f"import sys\n{path}\nimport colab_vm\nanswer = colab_vm.{call}"
