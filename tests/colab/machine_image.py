"""The image of a loopback Colab machine: a bare Python with the packages of our lock, as if an earlier job had
installed them (the loopback has no package index), pip, a Jupyter server, and none of our own code."""

import os
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from launcher import image
from tests.clouds.colab.account import STATE
from training_image.contracts import COLAB

WHEELS = STATE / "colab-machine"
"""Filled by tests/services.sh."""
_DOCKERFILE = """
FROM {base}
RUN --mount=type=bind,source=wheels,target=/wheels \\
    python3 -m venv /tmp/pip && /tmp/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-index \\
    --find-links /wheels pip jupyter_server ipykernel && rm -rf /tmp/pip /opt/ftlaunch && mkdir -p /content/sample_data
COPY jupyter_config.py /etc/jupyter_loopback.py
ENV PYTHONPATH= FTLAUNCH_IN_IMAGE= FTLAUNCH_IMAGE_DIGEST= HOME=/root {marks}
WORKDIR /content
ENTRYPOINT []
CMD ["python3", "-m", "jupyter_server", "--config=/etc/jupyter_loopback.py"]
"""


def build(base: str) -> str:
    """The image's name; built unless it is there. ``base``: the training image."""
    name = f"ftlaunch-loopback-colab:{base.rpartition(':')[2]}"
    client = docker.from_env()
    try:
        client.images.get(name)
        return name
    except ImageNotFound:
        pass
    finally:
        client.close()
    with tempfile.TemporaryDirectory(prefix="ftlaunch-image-") as text:
        folder = Path(text)
        marks = " ".join(f'{variable}="{value}"' for variable, value in COLAB.environment.items())
        (folder / "Dockerfile").write_text(_DOCKERFILE.format(base=base, marks=marks))
        (folder / "jupyter_config.py").write_bytes(Path(__file__).with_name("jupyter_config.py").read_bytes())
        (folder / "wheels").mkdir()
        for wheel in WHEELS.glob("*.whl"):
            (folder / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
        command = [image.docker_command(), "build", "--network", "none", "--tag", name, text]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return name
