"""The job as a notebook that a person opens in Colab and runs, for accounts without Google's tool.

It holds all that the job needs, or names the archive that has to lie in Google Drive where the data is large; what it
leaves is one archive that ``ftlaunch fetch JOB --from FILE`` takes in.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from backends.colab_request import FOLDER, members, write
from backends.interface import Plan

MOST_INSIDE = 8 << 20
"""Bytes of an archive that a notebook carries itself; a larger one makes Colab's page slow."""
DRIVE = "/content/drive/MyDrive"

_ABOUT = """# {job}

Fine-tunes a language model by this job's data and settings, and measures whether that helped. Made by ftlaunch.

1. Choose a GPU: *Runtime > Change runtime type > T4 GPU*.{drive}
2. *Runtime > Run all*. Keep this page open: a free machine is taken back when nobody is there, and its files are lost.
3. At the end the browser saves `{job}.tar`. Take it in with `ftlaunch fetch {job} --from {job}.tar`.{secrets}

A free GPU is not guaranteed and may be taken away at any time; [Colab's terms](https://research.google.com/colaboratory/tos_v5.html)
and [limits](https://research.google.com/colaboratory/faq.html) apply.
"""

_UNPACK = """#@title 1. Lay the job's files {{ display-mode: "form" }}
import hashlib, io, pathlib, sys, tarfile
{load}
assert hashlib.sha256(bundle).hexdigest() == "{sha256}", "the job's archive is damaged"
with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
    archive.extraction_filter = getattr(tarfile, "data_filter", None)
    archive.extractall("{folder}")
sys.path.insert(0, "{folder}")
print("laid", len(list(pathlib.Path("{folder}").rglob("*"))), "files")
"""

_INSIDE = """import base64
bundle = base64.b64decode("{content}")"""

_FROM_DRIVE = """from google.colab import drive
drive.mount("/content/drive")
bundle = pathlib.Path("{path}").read_bytes()"""

_TRAIN = """#@title 2. Train and measure {{ display-mode: "form" }}
import colab_vm, json
{secrets}exit_code = colab_vm.train(json.loads({argv!r}), dict({environment}), secrets, "{job}")
"""

_USERDATA = """from google.colab import userdata
secrets = {{name: userdata.get(name) for name in {names!r}}}
"""

_KEEP = """#@title 3. Save the results {{ display-mode: "form" }}
path = colab_vm.archive("/content/{job}.tar")
try:
    from google.colab import files
except ImportError:
    print("the results are in", path)
else:
    files.download(path)
if exit_code:
    raise SystemExit(f"the training ended with exit code {{exit_code}}; the archive holds what it saved and its log")
"""


def make_notebook(plan: Plan, files: Mapping[str, Path]) -> tuple[str, bytes | None]:
    """The notebook, and the archive that belongs into Google Drive where it is too large to be in it."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        write(archive, members(plan, files))
    content, job = gzip.compress(packed.getvalue(), mtime=0), plan.job_name
    inside = len(content) <= MOST_INSIDE
    archive_name = f"{job}-data.tar.gz"
    load = (
        _INSIDE.format(content=base64.b64encode(content).decode())
        if inside
        else _FROM_DRIVE.format(path=f"{DRIVE}/{archive_name}")
    )
    names = sorted(plan.request["secrets"])
    told = f"\n\nIt needs these secrets, under the key sign at the left: {', '.join(names)}." if names else ""
    drive = "" if inside else f"\n   Put `{archive_name}` into *My Drive* first."
    unpack = _UNPACK.format(load=load, sha256=hashlib.sha256(content).hexdigest(), folder=FOLDER)
    train = _TRAIN.format(
        environment=json.dumps(environment(plan)),
        secrets=_USERDATA.format(names=names) if names else "secrets = {}\n",
        argv=json.dumps(plan.request["argv"]),
        job=job,
    )
    cells = [
        new_markdown_cell(_ABOUT.format(job=job, drive=drive, secrets=told), id="about"),
        new_code_cell(unpack, id="unpack", metadata={"cellView": "form"}),
        new_code_cell(train, id="train", metadata={"cellView": "form"}),
        new_code_cell(_KEEP.format(job=job), id="keep", metadata={"cellView": "form"}),
    ]
    metadata = {
        "accelerator": "GPU",
        "colab": {"gpuType": plan.request["machine"]["gpu"], "name": f"{job}.ipynb", "provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook = new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)), None if inside else content


def environment(plan: Plan) -> dict[str, str]:
    """The training's variables; the longest run time counts from the training's own start."""
    limit = plan.request["max_seconds"]
    variables: dict[str, str] = plan.request["environment"]
    return variables | ({"FTLAUNCH_MAX_SECONDS": str(limit)} if limit else {})
