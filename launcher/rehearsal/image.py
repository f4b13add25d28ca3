"""Which image is rehearsed: the job's own if the engine has it, else the CPU build of the same content.

For Colab, which runs no image of ours, a bare Python with the lock and the wheel: the layers of the training image up
to its packages, and then the wheel instead of the image's copy of the training code.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from pathlib import Path

from backends import bundle
from backends.docker_engine import Engine
from backends.interface import BackendError, ContainerRequest, Reason
from launcher import image
from training_image.contracts import CONTRACTS

BARE = "ftlaunch-bare-python"
_DOCKERFILE = """
FROM {base}
COPY {wheel} /tmp/
RUN python3 -m venv /tmp/pip \\
    && /tmp/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-deps --no-index /tmp/{wheel} \\
    && rm -rf /tmp/pip /tmp/{wheel} /opt/ftlaunch
ENV PYTHONPATH=
WORKDIR /content
ENTRYPOINT []
CMD []
"""


def prepare(engine: Engine, request: ContainerRequest, made: image.Image) -> str:
    """The image's name; it is built where that is needed. Raises BackendError for one that is not to be had."""
    if request.image is not None:
        if engine.image(request.image) is None:
            message = f"the engine here has no image {request.image}, which the request names"
            raise BackendError(message, hint=f"docker pull {request.image}", reason=Reason.BAD_IMAGE)
        return request.image
    name = made.reference()
    if engine.image(name) is None:
        name, _ = image.build(dataclasses.replace(made, torch="cpu"), image.own_wheels())
    return _bare(engine, name) if CONTRACTS[request.service].python else name


def _bare(engine: Engine, base: str) -> str:
    wheel, content = bundle.wheel()
    name = f"{BARE}:{base.rpartition(':')[2]}"
    if engine.image(name) is not None:
        return name
    with tempfile.TemporaryDirectory(prefix="ftlaunch-image-") as folder:
        Path(folder, wheel).write_bytes(content)
        Path(folder, "Dockerfile").write_text(_DOCKERFILE.format(base=base, wheel=wheel))
        command = [image.docker_command(), "build", "--network", "none", "--tag", name, folder]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"the image of a bare Python was not built (exit code {done.returncode}):\n{done.stderr[-2000:]}"
        raise BackendError(message, hint="see what `docker build` says")
    return name
