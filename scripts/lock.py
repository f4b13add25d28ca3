"""Makes training_image/requirements.lock and requirements.cuda.lock: ``make lock``.

pip-compile pins everything with hashes. torch is then named by its public version with the hashes of both builds that
the version can mean, the CPU wheel at hand (2.13.0+cpu) and the index's own, so that one lock serves both. The second
lock has what the index's own build needs beside: Triton and the CUDA libraries.
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
CUDA_HEAD = "# Made by `make lock`: what torch's CUDA build needs beside requirements.lock.\n"
HEAD = "# Made by `make lock` from requirements.in; torch has the hashes of its CPU build and of the index's own.\n"


def compiled(source: Path, *constraints: Path, at_hand: bool = True) -> str:
    """All pins with hashes, as pip-compile makes them, with the wheels at hand or by the index alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.lock"
        bounds = [part for each in constraints for part in ("--constraint", str(each))]
        command = ["pip-compile", *OPTIONS, *SILENT, *bounds, "--output-file", str(path), str(source)]
        subprocess.run(command, check=True, env=None if at_hand else index_alone())
        return path.read_text()


def index_alone() -> dict[str, str]:
    """An environment in which pip does not see the wheels at hand."""
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    return environment | {"PIP_CONFIG_FILE": os.devnull}


def index_hash(requirement: str) -> str:
    """SHA-256 of the wheel that the index itself has, asked for without the wheels at hand; nothing is installed."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    done = subprocess.run(
        [*command, "--report", "-", requirement], env=index_alone(), check=True, capture_output=True, text=True
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


def cuda(lock: Path) -> str:
    """The pins that the index's own build of torch adds to the lock."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "torch.in"
        torch = re.search(r"^torch==[\d.]+", lock.read_text(), re.M)
        assert torch is not None
        source.write_text(f"{torch[0]}\n")
        bounds = Path(folder) / "bounds.txt"
        bounds.write_text("\n".join(re.findall(r"^(?!torch=)[\w.-]+==\S+", lock.read_text(), re.M)))
        whole = compiled(source, bounds, at_hand=False)
    known = set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.M))
    entries = re.findall(r"^([\w.-]+)(==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+)", whole, re.M)
    return "".join(name + rest for name, rest in entries if name not in known)


if __name__ == "__main__":
    main_lock = FOLDER / "requirements.lock"
    main_lock.write_text(HEAD + both_builds(compiled(FOLDER / "requirements.in")))
    (FOLDER / "requirements.cuda.lock").write_text(CUDA_HEAD + cuda(main_lock))
