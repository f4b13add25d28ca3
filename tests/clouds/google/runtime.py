"""The image that stands for a Colab Enterprise runtime: a Python without an image of ours, with /content, a kernel, pip
and Google's storage client, as the real one has.

The real one installs the lock from the package index, which no container reaches here. So this one has the lock's
packages already, as Colab has many of them: pip finds each at the lock's version and fetches none. The training code is
not in it; its wheel comes by the bucket.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCKER = next((path for path in ("/usr/bin/docker",) if Path(path).exists()), "docker")
"""Debian's client first: another on the PATH may lack BuildKit."""
NAME = "ftlaunch-test-runtime"
ADDED = ("nbclient>=0.10", "ipykernel>=7", "google-cloud-storage>=3.17", "pip>=25.1")
DOCKERFILE = """
FROM {base}
RUN --mount=type=bind,source=wheels,target=/wheels python3 -m venv /tmp/pip \\
    && /tmp/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-index --find-links /wheels {added} \\
    && rm -rf /tmp/pip /opt/ftlaunch \\
    && echo /opt/venv/lib/python3.11/site-packages > "$(/usr/bin/env -i PATH=/usr/local/bin:/usr/bin python3 -c \\
       'import site; print(site.getsitepackages()[0])')/runtime.pth"
COPY execute.py /run/execute.py
ENV PYTHONPATH= FTLAUNCH_IN_IMAGE= FTLAUNCH_IMAGE_DIGEST= PATH=/usr/local/bin:/usr/bin:/bin
WORKDIR /content
ENTRYPOINT ["python3", "/run/execute.py"]
CMD []
"""
EXECUTE = Path(__file__).with_name("execute_notebook.py")


def build(base: str) -> str:
    """Build it over a training image, without a network; the wheels beside are fetched by pip as it is set up here."""
    name = f"{NAME}:{base.rpartition(':')[2]}"
    with tempfile.TemporaryDirectory(prefix="ftlaunch-image-") as folder:
        wheels = Path(folder, "wheels")
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", str(wheels)]
        subprocess.run([*fetch, *ADDED], check=True, stderr=subprocess.DEVNULL)
        shutil.copyfile(EXECUTE, Path(folder, "execute.py"))
        Path(folder, "Dockerfile").write_text(
            DOCKERFILE.format(base=base, added=" ".join(f"'{each}'" for each in ADDED))
        )
        command = [DOCKER, "build", "--quiet", "--network", "none", "--tag", name, folder]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return name
