"""Makes training_image/requirements.lock: ``make lock``.

pip-compile pins everything with hashes. torch is then named by its public version with the hashes of both builds that
the version can mean, the CPU wheel at hand (2.13.0+cpu) and the index's own, so that one lock serves both.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "training_image"
OPTIONS = ("--generate-hashes", "--strip-extras", "--no-annotate", "--allow-unsafe", "--quiet")
SILENT = ("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-options")
HEAD = "# Made by `make lock` from requirements.in; torch has the hashes of its CPU build and of the index's own.\n"


def compiled() -> str:
    """All pins with hashes, as pip-compile makes them with the wheels at hand."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.lock"
        source = str(FOLDER / "requirements.in")
        subprocess.run(["pip-compile", *OPTIONS, *SILENT, "--output-file", str(path), source], check=True)
        return path.read_text()


def index_hash(requirement: str) -> str:
    """SHA-256 of the wheel that the index itself has, asked for without the wheels at hand; nothing is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    environment["PIP_CONFIG_FILE"] = os.devnull
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    done = subprocess.run(
        [*command, "--report", "-", requirement], env=environment, check=True, capture_output=True, text=True
    )
    hashes: dict[str, str] = json.loads(done.stdout)["install"][0]["download_info"]["archive_info"]["hashes"]
    return hashes["sha256"]


def both_builds(lock: str) -> str:
    """The lock with torch named by its public version, and the hashes of both builds."""
    entry = re.search(r"^torch==(?P<version>[\d.]+)(\+cpu)? \\\n(?P<hashes>(    --hash=\S+( \\)?\n)+)", lock, re.M)
    if entry is None:
        raise SystemExit("pip-compile's output names no torch")
    requirement = f"torch=={entry['version']}"
    hashes = {*re.findall(r"sha256:\w+", entry["hashes"]), f"sha256:{index_hash(requirement)}"}
    lines = [f"{requirement} \\", *(f"    --hash={each} \\" for each in sorted(hashes))]
    return lock.replace(entry[0], "\n".join(lines).removesuffix(" \\") + "\n")


if __name__ == "__main__":
    (FOLDER / "requirements.lock").write_text(HEAD + both_builds(compiled()))
