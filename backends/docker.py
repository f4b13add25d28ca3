"""A container of the training image on a Docker engine, here or wherever DOCKER_HOST points.

A job is one container with two volumes (`backends.docker_request`), found again by name and label. A resume starts the
same container again, so that its log goes on; after a fetch, another one with the same checkpoints. Asked to stop is a
file in the job's volume that names the start which it means, so that it is known after a crash of launcher or engine,
and forgotten by a resume.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import SecretStr

from backends import docker_checkpoints, docker_logs, docker_status, secret_values
from backends.docker_checks import NAME_TAKEN, build_hint, findings
from backends.docker_engine import ASK_ENGINE, CHUNK, LABEL, Engine, Member
from backends.docker_request import (
    DATA,
    JOB,
    PREFIX,
    SECRETS,
    SECRETS_LABEL,
    DockerOptions,
    container_name,
    data_volume,
    make_plan,
    with_gpu,
)
from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    Cursor,
    Finding,
    Handle,
    JobNotFound,
    Json,
    LogLine,
    Offer,
    Plan,
    Reason,
    State,
    Status,
    Submission,
)
from backends.last_words import last_words

LAST_LINES = 60
"""Lines of the log that are looked through for why a training failed."""


class Docker(Backend):
    """Trains in a container of the training image."""

    name: ClassVar[str] = "docker"
    capabilities: ClassVar[Capabilities] = Capabilities(log_cursor=True, resume=True, partial_fetch=True)
    options: ClassVar[type[BackendOptions]] = DockerOptions
    summary: ClassVar[str] = "a container on this machine, or on the engine that DOCKER_HOST names; no account, no bill"
    extra: ClassVar[str] = "docker"

    def plan(self, submission: Submission) -> Plan:
        """The engine's create call."""
        return make_plan(submission)

    def resolve(self, plan: Plan) -> Plan:
        """Ask the engine whether it can give GPUs."""
        return with_gpu(plan, "nvidia" in Engine().info().get("Runtimes", {})) if plan.unresolved else plan

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look for the engine, the image, a taken name, and what the engine's machine cannot give."""
        return findings(plan)

    def lacks_image(self, plan: Plan) -> bool:
        """The job's own image is built by the launch that needs it; a prebuilt one is pulled."""
        return not plan.request["pull"] and Engine().image(plan.request["config"]["Image"]) is None

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Make the container, not started yet, and fill its volumes; what is there in full is not sent again."""
        engine, name = Engine(), plan.request["name"]
        found = engine.inspect(name)
        _ours(found, plan.job_name)
        if found is not None and (docker_status.was_started(found) or engine.read(name, f"{JOB}/spec.json")):
            return
        config: Json = plan.request["config"]
        if engine.image(config["Image"]) is None:
            _pull(engine, plan)
        try:
            for volume in (name, data_volume(plan.job_name)):
                engine.make_volume(volume, {LABEL: plan.job_name})
            if found is None and not engine.create(name, config):
                _ours(engine.inspect(name), plan.job_name)
            self._send(engine, plan, files)
        except BackendError:
            _remove_unstarted(engine, plan.job_name)  # a half would only fill the disk
            raise

    def _send(self, engine: Engine, plan: Plan, files: Mapping[str, Path]) -> None:
        """Fill both volumes in one call, the spec at the end: where it is, all is. It goes through a container that is
        never started, as the job's own sees the data read-only."""
        filler = f"{plan.request['name']}-fill"
        volumes = {DATA: data_volume(plan.job_name), JOB: plan.request["name"]}
        mounts = [{"Type": "volume", "Source": source, "Target": target} for target, source in volumes.items()]
        image = plan.request["config"]["Image"]
        engine.create(filler, {"Image": image, "HostConfig": {"Mounts": mounts}, "Labels": {"ftlaunch.filler": ""}})
        root, data, job = PurePosixPath(DATA).parent, PurePosixPath(DATA).name, PurePosixPath(JOB).name
        spec = plan.spec.model_dump_json(by_alias=True, indent=1).encode()
        folders: list[Member] = [(_folder(f"{job}/{each}"), None) for each in ("output", "checkpoints")]
        try:
            docker_checkpoints.put_back(engine, plan.job_name)
            engine.put(
                filler, str(root), [*_members(data, plan.inputs, files), *folders, _small(f"{job}/spec.json", spec)]
            )
        finally:
            engine.remove_container(filler)

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Start the staged container, unless it was started before."""
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        engine, name = Engine(), plan.request["name"]
        found = engine.inspect(name)
        _ours(found, plan.job_name)
        if found is None:
            raise BackendError(f"the container of {plan.job_name} is not staged", hint="run the job again")
        if not docker_status.was_started(found):
            _put_secrets(engine, name, secrets)
            try:
                engine.start(name)
            except BackendError:
                _remove_unstarted(engine, plan.job_name)
                raise
        return _handle(engine, plan.job_name)

    def find(self, job_name: str) -> Handle | None:
        """A job is there once its container was started."""
        engine = Engine()
        found = engine.inspect(container_name(job_name))
        ours = found is not None and _job_of(found) == job_name and docker_status.was_started(found)
        return _handle(engine, job_name) if ours else None

    def known(self) -> Iterable[Handle]:
        """The containers with our label that were started."""
        engine = Engine()
        listed = engine.containers(LABEL)
        return [_handle(engine, each["Labels"][LABEL]) for each in listed if each["State"] != "created"]

    def status(self, handle: Handle) -> Status:
        """The engine's own word, and why in the words of the log."""
        engine, found = _found(handle)
        asked = _asked_to_stop(engine, found)
        if not docker_status.has_ended(found):
            return docker_status.running(found, asked)
        return docker_status.ended(found, asked, _last_words(engine, found))

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The container's output, over all its starts."""
        engine, found = _found(handle)
        secrets = secret_values.known(_secret_names(found))
        return docker_logs.read(engine.api, container_name(handle.job_name), after, secrets)

    def cancel(self, handle: Handle) -> None:
        """Write down which start is meant, then SIGTERM; the engine kills after the grace.

        Python takes the signal from its first moments on; one that came before them is said again.
        """
        engine, found = _found(handle)
        if docker_status.has_ended(found):
            return
        name = container_name(handle.job_name)
        with contextlib.suppress(BackendError):  # a full disk takes no file, and must not keep the job running
            engine.put(name, JOB, [_small("stop", found["State"]["StartedAt"].encode())])
        engine.stop(name, int(found["Config"].get("StopTimeout") or 120))
        engine.signal(name, "SIGTERM")

    def resume(self, handle: Handle) -> Handle:
        """Start the same container again; the training finds its checkpoint."""
        engine, found = _found(handle)
        if not docker_status.has_ended(found) or self.status(handle).state is State.SUCCEEDED:
            return handle
        secrets = secret_values.required(_secret_names(found))
        name = container_name(handle.job_name)
        _put_secrets(engine, name, secrets)
        engine.start(name)
        return handle

    def fetch(self, handle: Handle, into: Path) -> None:
        """Unpack the output tree, every file owned by whoever fetches; what is there already in full is left alone."""
        engine, found = _found(handle)
        if not docker_status.has_ended(found):
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch logs -f {handle.job_name}")
        with engine.get(container_name(handle.job_name), f"{JOB}/output") as archive:
            for member in archive or ():
                inside = member.name.partition("/")[2]
                if inside and member.isfile() and archive is not None:
                    _unpack(archive, tarfile.data_filter(member.replace(name=inside), str(into)), into)

    def remove(self, handle: Handle) -> None:
        """Remove the container with its log, and both volumes."""
        engine = Engine()
        found = engine.inspect(container_name(handle.job_name))
        if found is not None and _job_of(found) != handle.job_name:
            return
        if found is not None and docker_status.was_started(found) and not docker_status.has_ended(found):
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch cancel {handle.job_name}")
        _remove(engine, handle.job_name)
        docker_checkpoints.forget(handle.job_name)

    def release(self, handle: Handle) -> None:
        """Bring the checkpoints here, then remove container and volumes; a resume stages them again."""
        engine = Engine()
        found = engine.inspect(container_name(handle.job_name))
        if found is not None and _job_of(found) == handle.job_name and docker_status.has_ended(found):
            docker_checkpoints.keep(engine, handle.job_name)
            _remove(engine, handle.job_name)

    def offers(self, region: str | None) -> Iterable[Offer]:
        """The engine's machine, which nobody bills."""
        yield Offer(
            backend=self.name,
            machine="the Docker engine's machine",
            region=None,
            gpu=None,
            gpu_count=0,
            usd_per_hour=None,
            kind="free",
            as_of="",
            source="a place without a bill",
        )


def _handle(engine: Engine, job_name: str) -> Handle:
    return Handle(backend="docker", job_name=job_name, data={"container": PREFIX + job_name, "engine": engine.url})


def _found(handle: Handle) -> tuple[Engine, Json]:
    """The job's container. Raises JobNotFound."""
    engine = Engine()
    found = engine.inspect(container_name(handle.job_name))
    if found is None or _job_of(found) != handle.job_name or not docker_status.was_started(found):
        message = f"the engine {engine.url} has no container of the job {handle.job_name!r}"
        where = str(handle.data.get("engine") or engine.url)
        there = "ftlaunch jobs lists those it knows; a fetched job's container is removed"
        raise JobNotFound(message, there if where == engine.url else f"it was started on {where}: set DOCKER_HOST")
    return engine, found


def _job_of(container: Json) -> str | None:
    labels: dict[str, str] = container["Config"]["Labels"] or {}
    return labels.get(LABEL)


def _ours(container: Json | None, job_name: str) -> None:
    """Raises BackendError for a container that is not the job's and has its name."""
    if container is not None and _job_of(container) != job_name:
        name = container_name(job_name)
        raise BackendError(NAME_TAKEN.format(name=name), hint=f"`docker rename {name} ...` or `docker rm {name}`")


def _secret_names(container: Json) -> list[str]:
    return [name for name in container["Config"]["Labels"].get(SECRETS_LABEL, "").split(",") if name]


def _asked_to_stop(engine: Engine, container: Json) -> bool:
    """Whether the start that the container is at, or was, was asked to stop."""
    told = engine.read(container["Id"], f"{JOB}/stop")
    return told is not None and told.decode() == container["State"]["StartedAt"]


def _last_words(engine: Engine, container: Json) -> str:
    if container["State"]["ExitCode"] == 0:
        return ""
    return last_words(engine.tail(container["Id"], LAST_LINES).splitlines())


def _put_secrets(engine: Engine, container: str, values: Mapping[str, SecretStr]) -> None:
    """Lay the values where the training reads and then deletes them; they stand in no description of the container."""
    if not values:
        return
    folder = SECRETS.rpartition("/")[2]
    texts = {name: value.get_secret_value().encode() for name, value in values.items()}
    members = [_small(f"{folder}/{name}", text, mode=0o400) for name, text in texts.items()]
    engine.put(container, SECRETS.rpartition("/")[0], [(_folder(folder, mode=0o700), None), *members])


def _pull(engine: Engine, plan: Plan) -> None:
    image = plan.request["config"]["Image"]
    if not plan.request["pull"]:
        raise BackendError(f"the engine has no image {image}", hint=build_hint(image), reason=Reason.BAD_IMAGE)
    try:
        engine.pull(image)
    except BackendError as error:
        message = f"the image {image} cannot be pulled: {error.message}"
        if error.reason is not Reason.BAD_IMAGE and error.hint != ASK_ENGINE:  # nothing is wrong with the name
            raise BackendError(message, error.hint, error.reason) from error
        hint = "correct backends.docker.image, or log in to its registry with `docker login`"
        raise BackendError(message, hint, Reason.BAD_IMAGE) from error


def _remove_unstarted(engine: Engine, job_name: str) -> None:
    """Nothing is left of a job that could not be started; what could, after all, is left alone."""
    with contextlib.suppress(BackendError):
        found = engine.inspect(container_name(job_name))
        if found is None or (_job_of(found) == job_name and not docker_status.was_started(found)):
            _remove(engine, job_name)


def _remove(engine: Engine, job_name: str) -> None:
    engine.remove_container(container_name(job_name))
    for volume in (container_name(job_name), data_volume(job_name)):
        engine.remove_volume(volume)


def _folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def _small(name: str, content: bytes, mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info, content


def _members(folder: str, inputs: Mapping[str, str], files: Mapping[str, Path]) -> Iterator[Member]:
    for name, digest in inputs.items():
        info = tarfile.TarInfo(f"{folder}/{name}")
        info.size, info.mode = files[name].stat().st_size, 0o644
        yield info, _content(files[name], info.size, digest)


def _content(path: Path, size: int, digest: str) -> Iterator[bytes]:
    """A file's content. Raises BackendError at its end if it is not what the plan names."""
    whole, sent = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            whole.update(chunk)
            sent += len(chunk)
            yield chunk
    if sent != size or whole.hexdigest() != digest:
        raise BackendError(f"{path} changed while the job was being submitted", hint="run the command again")


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> None:
    target = into / member.name
    if target.is_file() and (target.stat().st_size, int(target.stat().st_mtime)) == (member.size, int(member.mtime)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    content = archive.extractfile(member)
    assert content is not None  # a regular file has one
    with partial.open("wb") as file:
        while chunk := content.read(CHUNK):
            file.write(chunk)
    os.utime(partial, (member.mtime, member.mtime))
    partial.replace(target)
