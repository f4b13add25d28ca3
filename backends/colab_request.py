"""From a submission to what is started on a Colab machine: pure, without Google's tool."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from backends import bundle, colab_vm, hardware, local_supervisor
from backends.interface import BackendError, BackendOptions, ContainerRequest, Mount, Plan, Resources, Submission
from backends.supervised import NOT_INSTALLED

NAME = "colab"
FOLDER = str(colab_vm.FOLDER)
GRACE_SECONDS = 120
FREE = "T4 (free)"
"""Our name of a T4 that an account without compute units may be given."""
MACHINES: dict[str, tuple[str, bool]] = {
    "T4": ("T4", False),
    "L4": ("L4", False),
    "G4": ("G4", False),
    "A100": ("A100", False),
    "A100-80GB": ("A100", True),
    "H100": ("H100", False),
    FREE: ("T4", False),
}
"""What Colab's tool calls the accelerator, and whether it is asked for much memory, by our name of the machine (that of
``prices.csv``). An accelerator that the tool does not know becomes an A100 without a word, so no other gets through."""
USUAL = "T4"
"""What is asked for unless the job says otherwise: the one that may be free."""

_INSTALL = (
    "python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes"
    " -r {folder}/requirements.lock"
    " && python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-index"
    " {folder}/{wheel}"
)


class ColabOptions(BackendOptions):
    """``backends.colab``."""

    command: str = Field(
        "colab", description="Google's own command line tool (google-colab-cli, of a Python 3.12 or newer)."
    )
    auth: Literal["oauth2", "adc"] = Field(
        "oauth2", description="How that tool signs in: by its own login in the browser, or by gcloud's credentials."
    )
    substitute: bool = Field(False, description="Take another GPU than the one asked for, where Colab gives one.")


def make_plan(submission: Submission) -> Plan:
    """The machine, and what is started on it. Raises BackendError for one that Colab has not."""
    options = ColabOptions.model_validate(submission.options)
    machine = machine_for(submission.resources)
    accelerator, much = MACHINES[machine]
    wheel, _ = bundle.wheel()
    folders = {name: f"{FOLDER}/{name}" for name in ("data", "output", "checkpoints")}
    flags = " ".join(f"--{name} {path}" for name, path in folders.items())
    install = _INSTALL.format(folder=FOLDER, wheel=wheel)
    failed = f"{{ echo 'error: the packages could not be installed on the machine'; exit {NOT_INSTALLED}; }}"
    request = {
        "tool": {"command": options.command, "auth": options.auth},
        "machine": {"gpu": accelerator, "high_mem": much, "substitute": options.substitute},
        "machines": submission.resources.machines,
        "spot": submission.resources.spot,
        "argv": ["/bin/sh", "-c", f"({install}) || {failed}; exec python3 -m training_image train {flags}"],
        "environment": {"PYTHONUNBUFFERED": "1"},
        "secrets": dict.fromkeys(submission.secrets, "***"),
        "max_seconds": submission.max_seconds,
        "grace_seconds": GRACE_SECONDS,
    }
    return Plan(
        backend=NAME,
        job_name=submission.job_name,
        request=request,
        inputs=submission.files,
        spec=submission.spec,
        max_seconds=submission.max_seconds,
        machine=machine,
    )


def container(plan: Plan) -> ContainerRequest:
    """What runs on the machine once the packages are there."""
    line: str = plan.request["argv"][2]
    started = line.rpartition("exec ")[2].split()
    folders = dict(zip(started[4::2], started[5::2], strict=True))
    inside = {name: folders[f"--{name}"].removeprefix("/content/") for name in ("data", "output", "checkpoints")}
    return ContainerRequest(
        service=NAME,
        mounts=(
            Mount(name=inside["data"], holds="data"),
            Mount(name=inside["output"], holds="output"),
            Mount(name=inside["checkpoints"], holds="checkpoints"),
        ),
        entrypoint=tuple(started[:3]),
        arguments=tuple(started[3:]),
        environment=plan.request["environment"],
    )


def machine_for(resources: Resources) -> str:
    """Our name of the machine. Raises BackendError for what Colab has not."""
    if resources.machine is not None:
        if resources.machine in MACHINES:
            return resources.machine
        raise BackendError(f"Colab has no machine {resources.machine!r}", hint=f"it has {', '.join(MACHINES)}")
    if resources.gpu is None:
        return USUAL
    asked = next((name for name in MACHINES if resources.gpu.upper().replace(" ", "-") == name), None)
    have = {name: machine.gpu for (place, name), machine in hardware.machines().items() if place == NAME}
    same = next((name for name in MACHINES if hardware.matches(resources.gpu, have.get(name, ""))), None)
    if (found := asked or same) is None:
        raise BackendError(f"Colab has no GPU {resources.gpu!r}", hint=f"it has {', '.join(MACHINES)}")
    return found


def members(plan: Plan, files: Mapping[str, Path]) -> Iterator[tuple[str, bytes | Path]]:
    """What is laid into the job's folder on the machine, by name: data, spec, code, lock and the supervisor."""
    start = {key: plan.request[key] for key in ("argv", "environment", "max_seconds", "grace_seconds")}
    yield "start.json", json.dumps(start | {"secrets": list(plan.request["secrets"])}).encode()
    yield "data/spec.json", plan.spec.model_dump_json(by_alias=True, indent=1).encode()
    yield bundle.wheel()
    yield bundle.LOCK, without_torch(bundle.lock().read_text(encoding="utf-8")).encode()
    for script in (local_supervisor, colab_vm):
        path = Path(str(script.__file__))
        yield path.name, path.read_bytes()
    for name in plan.inputs:
        yield f"data/{name}", files[name]


def without_torch(lock: str) -> str:
    """The lock without torch: Colab's own fits the machine's driver, and is there already."""
    kept, keep = [], True
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            keep = not line.startswith("torch==")
        if keep:
            kept.append(line)
    return "\n".join(kept) + "\n"


def write(archive: tarfile.TarFile, content: Iterator[tuple[str, bytes | Path]]) -> None:
    """Write the members, with folders for what the training makes."""
    for folder in ("output", "checkpoints"):
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
    for name, each in content:
        info = tarfile.TarInfo(name)
        info.mode = 0o644
        if isinstance(each, bytes):
            info.size = len(each)
            archive.addfile(info, io.BytesIO(each))
        else:
            with each.open("rb") as file:
                info.size = each.stat().st_size
                archive.addfile(info, file)
