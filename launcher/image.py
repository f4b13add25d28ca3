"""The training image: named by its content, built with BuildKit, pushed to any registry.

The name is ``REPOSITORY:TORCH-DIGEST``: the digest covers all that goes into the image (Dockerfile, lock, the files
of ``training_image``, torch's build, the base's name, the extra requirements), so that two people with the same content
get the same name and nothing is built or pushed twice. All is read from the installed packages, of a clone or a wheel.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import training_image
from backends import transfer
from backends.docker_checks import build_hint
from backends.docker_engine import JOIN_GROUP, NO_RIGHT, START_ENGINE, Engine, errors
from backends.interface import BackendError, Reason
from training_image.errors import InputError

Torch = Literal["cpu", "cuda"]

REPOSITORY = "ftlaunch"
BASE = "python:3.11-slim-bookworm"
LOCK = "training_image/requirements.lock"
EXTRA = "extra.txt"
_LEFT_OUT = {"__pycache__", "requirements.in"}
_SHORT = 12
"""Hexadecimal digits of the digest in the tag."""
_REPOSITORY = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")


@dataclass(frozen=True)
class Image:
    """What an image is made of."""

    torch: Torch = "cpu"
    extra: Path | None = None
    """Hashed requirements that are added as a layer of their own."""
    base: str = BASE

    def files(self) -> dict[str, Path]:
        """The files of the build context, by name there."""
        root = Path(training_image.__file__).parent
        found = {f"training_image/{path.relative_to(root).as_posix()}": path for path in _content(root)}
        found["Dockerfile"] = Path(__file__).with_name("Dockerfile")
        if self.extra is not None:
            found[EXTRA] = _checked(self.extra)
        return dict(sorted(found.items()))

    def digest(self) -> str:
        """SHA-256 over all that decides the image, in hexadecimal."""
        whole = hashlib.sha256(json.dumps([self.torch, self.base]).encode())
        for name, path in self.files().items():
            whole.update(f"\n{name}\0{_sha256(path)}".encode())
        return whole.hexdigest()

    def reference(self, repository: str = REPOSITORY) -> str:
        """The image's name with tag."""
        return f"{repository}:{self.torch}-{self.digest()[:_SHORT]}"

    def lock_sha256(self) -> str:
        """SHA-256 of the lock, as the image's label tells it."""
        return _sha256(self.files()[LOCK])


def reference(torch: Torch = "cpu", extra: Path | None = None) -> str:
    """The name that the image of this content has, here and anywhere; asks no engine."""
    return Image(torch, extra).reference()


def own_wheels() -> Path | None:
    """The folder ``wheels`` of the clone that this is run from; None where there is none."""
    folder = Path(__file__).parents[1] / "wheels"
    return folder if folder.is_dir() else None


def build(image: Image, wheels: Path | None = None, *, quiet: bool = False) -> tuple[str, bool]:
    """Build the image unless the engine has it: its name, and whether anything was done.

    ``wheels`` is a folder that pip looks into first, `own_wheels` unless another is given. Raises BackendError where no
    engine answers or the build fails.
    """
    name = image.reference()
    docker = docker_command()
    if _run([docker, "image", "inspect", name]).returncode == 0:
        return name, False
    with tempfile.TemporaryDirectory(prefix="ftlaunch-image-") as folder:
        _lay(image, Path(folder), wheels or own_wheels())
        output = subprocess.PIPE if quiet else sys.stderr
        command = [docker, *_build_arguments(image, name), folder]
        done = subprocess.run(command, env=_environment(), stdout=output, stderr=output, text=True, check=False)
    if done.returncode:
        last = f":\n{done.stderr[-2000:]}" if quiet else ", see above"
        raise BackendError(f"the image was not built (exit code {done.returncode}){last}", hint=_hint(image))
    return name, True


def docker_command() -> str:
    """The path of a docker client that can BuildKit, with an engine that answers it. Raises BackendError if none."""
    clients = _clients()
    if not clients:
        raise BackendError("there is no docker client on the PATH", hint="install Docker, or take --backend local")
    able = [client for client in clients if _has_buildkit(client)]
    if not able:
        message = f"{clients[0]} cannot build with BuildKit: it lacks the buildx component"
        raise BackendError(
            message, hint="install Docker's buildx plug-in (package docker-buildx-plugin or docker-buildx)"
        )
    answer = _run([able[0], "version", "--format", "{{.Server.Version}}"])
    if answer.returncode:
        reason = (answer.stderr.strip() or "no answer").splitlines()[-1]
        if "permission denied" in reason:
            raise BackendError(NO_RIGHT, hint=JOIN_GROUP, reason=Reason.CREDENTIALS)
        raise BackendError(f"no Docker engine answers: {reason}", hint=START_ENGINE)
    return able[0]


def labels(name: str) -> dict[str, str] | None:
    """The labels of an image that the engine has; None if it has not."""
    found = _run([docker_command(), "image", "inspect", "--format", "{{json .Config.Labels}}", name])
    if found.returncode:
        return None
    read: dict[str, str] | None = json.loads(found.stdout)
    return read or {}


def layers(name: str) -> list[tuple[int, str]]:
    """Size in bytes and command of each layer of an image that the engine has, the top one last."""
    form = '{"size": {{json .Size}}, "made": {{json .CreatedBy}}}'
    found = _run([docker_command(), "history", "--human=false", "--no-trunc", "--format", form, name])
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    return [(int(row["size"]), str(row["made"])) for row in reversed(rows)]


def push(name: str, target: str) -> bool:
    """Push a built image under another name, as ``registry/repository:tag``; False if the registry has it already.

    How far it is can be shown (`backends.transfer`). The credentials are those of ``docker login``. Raises
    BackendError with what engine or registry said, InputError for what is no such name.
    """
    repository, _, tag = target.rpartition(":")
    if _REPOSITORY.fullmatch(repository) is None:
        raise InputError(
            f"{repository!r} names no repository of a registry", hint="write host/path, such as 127.0.0.1:5000/ftlaunch"
        )
    engine = Engine()
    if engine.image(name) is None:
        raise BackendError(f"the image {name} is not built here", hint=build_hint(name))
    with errors():
        if _in_registry(engine, target):
            return False
        engine.api.tag(name, repository, tag)
        layers = transfer.Layers(target)
        for line in engine.api.push(repository, tag, stream=True, decode=True):
            if "error" in line:
                raise BackendError(f"{target} was not pushed: {line['error']}", hint=_push_hint(repository))
            layers.take(line)
    return True


def _in_registry(engine: Engine, target: str) -> bool:
    """Whether the registry has the tag, which stands for the content; where it refuses, the push will tell why."""
    from docker.errors import APIError

    try:
        engine.client.images.get_registry_data(target)
    except APIError:
        return False
    return True


def _push_hint(repository: str) -> str:
    host = repository.partition("/")[0]
    return f"log in with `docker login {host}`, and see that the repository exists and may be written to"


def _content(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") or part in _LEFT_OUT for part in parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield path


def _checked(extra: Path) -> Path:
    if not extra.is_file():
        raise InputError(f"image.extra: there is no file {extra}", hint="name a requirements file with hashes")
    if "--hash=" not in extra.read_text(encoding="utf-8"):
        hint = "make it with `pip-compile --generate-hashes`"
        raise InputError(f"image.extra: {extra} has requirements without hashes", hint=hint)
    return extra


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lay(image: Image, folder: Path, wheels: Path | None) -> None:
    """Lay the build context; `wheels` is always there, as the Dockerfile names it."""
    for name, path in image.files().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (folder / "wheels").mkdir()
    for path in sorted(wheels.glob("*.whl")) if wheels else ():
        try:
            os.link(path.resolve(), folder / "wheels" / path.name)
        except OSError:  # another file system
            shutil.copyfile(path, folder / "wheels" / path.name)


def _build_arguments(image: Image, name: str) -> list[str]:
    arguments = {
        "BASE": image.base,
        "TORCH": image.torch,
        "EXTRA": "without" if image.extra is None else "with",
        "VERSION": version("ftlaunch"),
        "LOCK_SHA256": image.lock_sha256(),
        "CONTENT_SHA256": image.digest(),
    }
    command = [
        "build",
        "--tag",
        name,
        *(part for item in arguments.items() for part in ("--build-arg", "=".join(item))),
    ]
    own = os.environ.get("PIP_CONFIG_FILE")
    if own and Path(own).is_file():
        command += ["--secret", f"id=pip.conf,src={own}"]
    return command


def _environment() -> dict[str, str]:
    return {**os.environ, "DOCKER_BUILDKIT": "1"}


def _hint(image: Image) -> str:
    return f"the base {image.base} and the package index must be within reach; --base takes another base"


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@cache
def _clients() -> tuple[str, ...]:
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]
    found = (shutil.which("docker", path=folder) for folder in folders if folder)
    return tuple(dict.fromkeys(path for path in found if path))


@cache
def _has_buildkit(client: str) -> bool:
    """Clients before 23 have BuildKit built in; later ones need the buildx plug-in. No engine is asked."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    if _run([client, "buildx", "version"], alone).returncode == 0:
        return True
    major = _run([client, "version", "--format", "{{.Client.Version}}"], alone).stdout.strip().partition(".")[0]
    return major.isdecimal() and int(major) < 23
