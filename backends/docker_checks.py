"""What `backends.docker` looks at before a job starts."""

from __future__ import annotations

from collections.abc import Iterator

from backends.docker_engine import API, LABEL, Engine
from backends.docker_request import DEVICES
from backends.interface import BackendError, Finding, Plan, Reason

NAME_TAKEN = "the name {name} is taken by a container that is not this job's"


def build_hint(image: str) -> str:
    """How an image of ours is built."""
    return "ftlaunch image build" + (" --torch cuda" if ":cuda-" in image else "")


def findings(plan: Plan) -> list[Finding]:
    """Look for the engine, the image, a taken name, and what the engine's machine cannot give."""
    try:
        return list(_findings(Engine(), plan))
    except BackendError as error:
        code = "credentials" if error.reason is Reason.CREDENTIALS else "engine"
        return [Finding(level="error", code=code, message=error.message, hint=error.hint)]


def _findings(engine: Engine, plan: Plan) -> Iterator[Finding]:
    request = plan.request
    version = engine.api.api_version
    if tuple(map(int, version.split("."))) < tuple(map(int, API.split("."))):
        message = f"the engine speaks version {version} of its API, and {API} is the lowest that will do"
        yield Finding(level="error", code="engine", message=message, hint="install Docker 19.03 or newer")
    image = request["config"]["Image"]
    if engine.image(image) is None:
        what = "pulled" if request["pull"] else "built"
        yield Finding(level="note", code="image", message=f"the image {image} is not there yet; it is {what} first")
    found = engine.inspect(request["name"])
    if found is not None and (found["Config"]["Labels"] or {}).get(LABEL) != plan.job_name:
        name = request["name"]
        hint = f"`docker rename {name} ...` or `docker rm {name}`"
        yield Finding(level="error", code="name", message=NAME_TAKEN.format(name=name), hint=hint)
    yield from _machine_findings(engine, plan)


def _machine_findings(engine: Engine, plan: Plan) -> Iterator[Finding]:
    request, host = plan.request, plan.request["config"]["HostConfig"]
    if request["machines"] > 1:
        hint = "set resources.machines to 1, or take another --backend"
        yield Finding(level="error", code="machines", message="an engine is one machine", hint=hint)
    if request["gpu"] and host["DeviceRequests"] != DEVICES:
        message = f"resources.gpu asks for {request['gpu']}; the engine gives none, the job will run on the CPU"
        hint = "the NVIDIA container toolkit gives the engine's GPUs to containers"
        if ":cuda-" in request["config"]["Image"]:  # chosen with the plan, before the engine could be asked
            message += ", in the CUDA image"
            hint += "; without resources.gpu the job takes the smaller CPU image"
        yield Finding(level="warning", code="gpu", message=message, hint=hint)
    limit = host.get("Memory", 0)
    memory = int(engine.info().get("MemTotal") or 0) if limit else 0
    if limit > memory > 0:
        message = f"backends.docker.memory_gb is more than the {memory / 1e9:.1f} GB of the engine's machine"
        yield Finding(level="warning", code="memory", message=message, hint="the limit will not be what stops the job")
