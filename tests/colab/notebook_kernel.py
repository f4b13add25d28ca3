"""A kernel for nbclient in a machine of its own, as a notebook in Colab's page has one."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from launcher.image import docker_command

STAND_IN = Path(__file__).with_name("google_colab")


def execute(notebook: Path, image: str, folder: Path, secrets: dict[str, str]) -> nbformat.NotebookNode:
    """Run all cells on an empty machine; what the browser would save lies in ``folder``/downloads then. The user's
    Drive is ``folder``/drive."""
    for name in ("content", "downloads", "drive", "kernels/machine"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "secrets.json").write_text(json.dumps(secrets))
    name = f"ftlaunch-notebook-{os.getpid()}"
    mounts = {
        "{connection_file}": "/connection.json",
        folder / "content": "/content",
        folder / "downloads": "/downloads",
        folder / "drive": "/drive",
        folder / "secrets.json": "/secrets.json",
        STAND_IN: "/stand-in",
    }
    argv = [docker_command(), "run", "--rm", "--name", name, "--network", "host", "--shm-size", "256m"]
    argv += [part for source, target in mounts.items() for part in ("--volume", f"{source}:{target}")]
    argv += ["--env", "PYTHONPATH=/stand-in", "--env", "OMP_NUM_THREADS=1", image]
    argv += ["python3", "-m", "ipykernel_launcher", "-f", "/connection.json"]
    spec = {"argv": argv, "display_name": "a machine", "language": "python"}
    (folder / "kernels" / "machine" / "kernel.json").write_text(json.dumps(spec))
    manager = AsyncKernelManager(kernel_name="machine")
    manager.kernel_spec_manager.kernel_dirs = [str(folder / "kernels")]
    read = nbformat.read(notebook, as_version=4)
    client = NotebookClient(read, km=manager, timeout=300, startup_timeout=120)
    try:
        return client.execute()
    finally:
        with contextlib.suppress(OSError):
            subprocess.run([docker_command(), "rm", "--force", name], capture_output=True, check=False)
