"""From a submission to what is started on a machine: pure."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import venv

import pytest

from backends import bundle, colab_request, colab_vm
from backends.colab import Colab
from backends.interface import BackendError, Reason, Resources, Submission
from backends.supervised import NOT_INSTALLED, ended
from training_image.contracts import COLAB
from training_image.spec import Data, Model, Spec, Task


def plan(resources=None, **more):
    spec = Spec(job="a-job", model=Model(id="org/model"), data=Data(train="train.jsonl"), task=Task(type="chat"))
    asked = Submission(
        job_name="a-job", spec=spec, files={"train.jsonl": "0" * 64}, resources=resources or Resources(), **more
    )
    return Colab.create().plan(asked)


@pytest.mark.parametrize(
    ("resources", "machine", "sent"),
    [
        ({}, "T4", ("T4", False)),
        ({"gpu": "t4"}, "T4", ("T4", False)),
        ({"gpu": "A100"}, "A100", ("A100", False)),
        ({"gpu": "A100-80GB"}, "A100-80GB", ("A100", True)),
        ({"gpu": "H100"}, "H100", ("H100", False)),
        ({"gpu": "RTX PRO 6000"}, "G4", ("G4", False)),
        ({"machine": "T4 (free)"}, "T4 (free)", ("T4", False)),
        ({"machine": "G4"}, "G4", ("G4", False)),
    ],
)
def test_colab_request_names_a_machine_that_has_a_price(resources, machine, sent):
    made = plan(Resources(**resources))
    assert made.machine == machine
    assert (made.request["machine"]["gpu"], made.request["machine"]["high_mem"]) == sent
    assert machine in {offer.machine for offer in Colab.create().offers(None)}


@pytest.mark.parametrize("resources", [{"gpu": "A10G"}, {"gpu": "T4 x"}, {"machine": "ml.g5.2xlarge"}, {"gpu": "A"}])
def test_colab_request_refuses_what_the_tool_would_take_for_an_a100(resources):
    with pytest.raises(BackendError) as error:
        plan(Resources(**resources))
    assert "T4, L4, G4, A100" in error.value.hint


def test_colab_request_starts_in_the_folders_of_the_contract():
    asked = Colab.create().container(plan())
    inside = {mount.holds: COLAB.inputs.format(name=mount.name) for mount in asked.mounts}
    assert inside == {"data": COLAB.data, "output": COLAB.output, "checkpoints": COLAB.checkpoints}
    assert asked.entrypoint == COLAB.python


def test_colab_request_lock_lacks_torch_alone():
    whole = bundle.lock().read_text()
    kept = colab_request.without_torch(whole)
    names = re.compile(r"^([\w.-]+)==", re.MULTILINE)
    assert set(names.findall(whole)) - set(names.findall(kept)) == {"torch"}
    assert kept.count("--hash=") < whole.count("--hash=")


def test_colab_request_lays_what_the_machine_needs(tmp_path):
    rows = tmp_path / "train.jsonl"
    rows.write_text("{}\n")
    archive = tmp_path / "whole.tar"
    with tarfile.open(archive, "w") as packed:
        colab_request.write(packed, colab_request.members(plan(max_seconds=60), {"train.jsonl": rows}))
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
        start = json.load(packed.extractfile("start.json"))
    wheel, _ = bundle.wheel()
    folders, scripts = {"output", "checkpoints"}, {"local_supervisor.py", "colab_vm.py"}
    data = {"start.json", "data/spec.json", "data/train.jsonl", "requirements.lock", wheel}
    assert names == folders | scripts | data
    assert start["max_seconds"] == 60


def test_colab_request_without_its_packages_is_a_bad_image(tmp_path):
    """The command line run for real, by a Python that has no pip."""
    venv.create(tmp_path / "venv", with_pip=False)
    line = plan().request["argv"][2].replace("python3", str(tmp_path / "venv" / "bin" / "python"))
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == NOT_INSTALLED
    (tmp_path / "log.txt").write_text(done.stdout)
    status = ended(tmp_path, {"exit_code": done.returncode, "cause": "exit", "started": 0.0, "ended": 1.0})
    assert (status.reason, "packages" in status.message) == (Reason.BAD_IMAGE, True)


def test_colab_machine_gives_an_archive_in_parts(tmp_path, monkeypatch):
    """Parts joined are the archive, and what arrives damaged is not unpacked."""
    for name in ("FOLDER", "PARTS"):
        monkeypatch.setattr(colab_vm, name, tmp_path / name)
    monkeypatch.setattr(colab_vm, "PART_BYTES", 20_000)
    (tmp_path / "FOLDER" / "output").mkdir(parents=True)
    (tmp_path / "FOLDER" / "output" / "a").write_bytes(bytes(range(256)) * 300)
    parts = colab_vm.pack("output")
    assert len(parts) > 2
    whole = b"".join((tmp_path / "PARTS" / f"out-{number:05}").read_bytes() for number in range(len(parts)))
    assert sum(size for _, size, _ in parts) == len(whole)
    for number in range(0, len(whole), 30_000):
        (tmp_path / "PARTS" / f"in-{number:07}").write_bytes(whole[number : number + 30_000])
    with pytest.raises(ValueError, match="not what was sent"):
        colab_vm.unpack("0" * 64)
    (tmp_path / "FOLDER" / "output" / "a").unlink()
    colab_vm.unpack(hashlib.sha256(whole).hexdigest())
    assert (tmp_path / "FOLDER" / "output" / "a").read_bytes() == bytes(range(256)) * 300
    assert not list((tmp_path / "PARTS").glob("in-*"))


def test_colab_machine_needs_the_standard_library_alone():
    """It runs on the machine before anything is installed there."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import colab_vm, local_supervisor"
    folder = colab_vm.__file__.rpartition("/")[0]
    subprocess.run([sys.executable, "-I", "-S", "-c", code, folder], check=True)


def test_colab_notebook_masks_its_secrets_and_nothing_else(tmp_path):
    code = (
        "import pathlib, sys\nsys.path.insert(0, sys.argv[1])\nimport colab_vm\n"
        "colab_vm.FOLDER = pathlib.Path(sys.argv[2])\n"
        "argv = [sys.executable, '-c', 'import os; print(os.environ[\"LIMIT\"], os.environ[\"MY_TOKEN\"])']\n"
        "colab_vm.train(argv, {'LIMIT': '3600'}, {'MY_TOKEN': 'first-line\\nsecond-line'}, 'job')\n"
    )
    folder = colab_vm.__file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, folder, tmp_path], check=True, capture_output=True, text=True
    )
    assert done.stdout == (tmp_path / "log.txt").read_text() == "3600 ***\n***\n"
