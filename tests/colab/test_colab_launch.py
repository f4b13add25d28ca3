"""The whole walk of a user: one command and a machine that is lost in the middle; a second one, killed while it takes a
new machine; a third one, and the verdict."""

import json
from pathlib import Path

import pytest

from tests.colab.walking import SECRET, Walk, kill

STEPS = 180


@pytest.fixture(scope="module")
def walk(colab, tmp_path_factory):
    # Steps enough that some looks fall into the training.
    train = {"epochs": 1000.0, "rank": 4, "max_steps": STEPS, "checkpoint_steps": 25, "patience": 0}
    made = Walk(tmp_path_factory.mktemp("walk"), train=train, secrets=[SECRET], budget={"max_hours": 1.0})
    made.balance, before = colab.balance, set(colab.machines)
    with made.start("run", "--yes", "--output", "out") as launcher:
        made.until(lambda: made.record().get("checkpoints"))
        [lost] = colab.assigned()
        made.files = lost.contents("/content"), lost.contents("/tmp")
        lost.take_away()
        made.first = launcher.communicate(timeout=200)
        assert launcher.returncode == 1, made.first
    made.status = json.loads(made.run("status", made.only_job()["job"], "--json", code=1).stdout)
    made.running_then, made.units_then = len(colab.assigned()), made.record()["units"]
    with made.start("run", "--resume", "--yes") as launcher:
        made.until(lambda: made.record()["endpoint"])
        kill(launcher)
    made.running_killed = len(colab.assigned())
    made.run("jobs", "--reconcile")
    made.running_reconciled = len(colab.assigned())
    made.document = json.loads(made.run("run", "--resume", "--yes", "--json", "--output", "out").stdout)
    made.machines = [machine for name, machine in colab.machines.items() if name not in before]
    return made


def test_colab_walk_tells_of_the_lost_machine(walk):
    assert (walk.status["state"], walk.status["reason"]) == ("FAILED", "SPOT_INTERRUPTED")
    assert "--resume" in walk.status["message"]
    assert "from step" in walk.status["message"]
    assert walk.running_then == 0


def test_colab_launcher_killed_while_it_resumes(walk):
    """The new machine is given back, and the next command starts with what was kept of the first."""
    assert (walk.running_killed, walk.running_reconciled) == (1, 0)


def test_colab_walk_goes_on_to_the_verdict(walk):
    assert walk.document["state"] == "SUCCEEDED"
    result = json.loads((walk.folder / "out" / "result.json").read_text())
    assert result["platform"]["name"] == "colab"
    assert 25 <= result["training"]["resumed_from"] < STEPS == result["training"]["steps"]
    assert result["verdict"]["outcome"] in ("improved", "inconclusive", "degraded")
    assert (walk.folder / "out" / "adapter" / "adapter_model.safetensors").exists()
    assert "train/loss" in walk.first[1]


def test_colab_walk_leaves_no_machine(walk, colab):
    assert len(walk.machines) == 3
    assert not [machine.endpoint for machine in walk.machines if machine.running]


def test_colab_walk_stores_the_units(walk):
    assert walk.units_then["after"] <= walk.units_then["before"]
    units = walk.record()["units"]
    assert units["before"] <= walk.balance + 0.005  # the tool tells two digits
    assert units["after"] <= units["before"]  # a quick job uses less than the last digit
    assert units["rate"] == pytest.approx(1.19)
    assert 0 < units["used"] < 1.19
    assert "compute units used" in walk.document["message"]


def test_colab_walk_secret_is_nowhere(walk, colab):
    """Neither on the machine while it trained, nor here: in the launcher's home, the results, or the tool's own log."""
    value = walk.value.encode()
    assert not [files for files in walk.files if value in files]
    assert walk.value not in walk.printed + "".join(walk.first)
    here = [walk.folder, Path(walk.environment["HOME"])]
    found = [path for folder in here for path in folder.rglob("*") if path.is_file() and value in path.read_bytes()]
    assert found == []
