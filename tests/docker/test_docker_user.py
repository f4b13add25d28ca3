"""Another user than root: the results are that user's own files, and a failed job leaves the engine with its fetch."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from backends.docker_engine import LABEL
from backends.docker_request import container_name
from tests.docker.conftest import write_job
from tests.launcher.conftest import Command, wait_for

USER = 4321
SOCKET = Path("/var/run/docker.sock")


@pytest.fixture
def user(ftlaunch, image):
    """The command run by a user of no rights but to the engine's socket."""
    return another_user(ftlaunch, may_use_the_engine=True)


@pytest.fixture
def stranger(ftlaunch, docker_client):
    """The command run by a user of no rights at all."""
    return another_user(ftlaunch, may_use_the_engine=False)


def another_user(ftlaunch, *, may_use_the_engine: bool) -> Command:
    if os.geteuid() != 0 or not SOCKET.exists():
        assert not os.environ.get("CI"), "CI is root, and has an engine here"
        pytest.skip("taking another user's place needs root, and an engine on this machine: tests/services.sh, as root")
    shutil.chown(ftlaunch.folder, USER, USER)
    home = ftlaunch.folder / "home"
    # The interpreter and the clone of a root who runs the tests may lie where others may not look.
    look = "-all,+dac_read_search"
    groups = f"--groups={SOCKET.stat().st_gid}" if may_use_the_engine else "--clear-groups"
    ids = [f"--reuid={USER}", f"--regid={USER}", groups]
    capabilities = [f"--inh-caps={look}", f"--ambient-caps={look}", f"--bounding-set={look}"]
    environment = ftlaunch.environment | {"HOME": str(home), "FTLAUNCH_HOME": str(home / "ftlaunch")}
    return Command(ftlaunch.folder, environment, ["setpriv", *ids, *capabilities])


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def held(client, job: str) -> list[str]:
    """The names of the containers and volumes that the engine has of a job."""
    of_job = {"label": f"{LABEL}={job}"}
    return [
        each.name for each in (*client.containers.list(all=True, filters=of_job), *client.volumes.list(filters=of_job))
    ]


def test_docker_results_are_the_users_and_a_failed_job_goes_with_its_fetch(user, docker_client):
    train = {"rank": 2, "batch_size": 2, "max_steps": 30, "epochs": 30.0, "patience": 0, "checkpoint_steps": 1}
    job = write_job(user.folder / "birds", train=train)
    name = user.json("run", job, "--detach")["job"]
    container = docker_client.containers.get(container_name(name))
    wait_for(lambda: re.search(rb"\[train\] .*step=[3-9]", container.logs()), seconds=120)
    container.kill()
    assert user.json("status", name, code=1)["state"] == "FAILED"
    assert len(held(docker_client, name)) == 3
    broken = user.json("fetch", name)
    assert owners(Path(broken["output"])) == {USER}
    assert held(docker_client, name) == []

    told = user.json("run", job, "--resume")
    assert (told["job"], told["state"]) == (name, "SUCCEEDED")
    result = json.loads(Path(told["output"], "result.json").read_text())
    assert result["training"]["resumed_from"] >= 2
    assert result["training"]["steps"] == 30
    assert Path(told["output"], "adapter", "adapter_model.safetensors").exists()
    assert owners(user.folder / "runs") == {USER}
    (aside,) = (user.folder / "runs").glob(f"{name}-*")
    assert "[train] " in (aside / "log.txt").read_text()
    assert held(docker_client, name) == []
    assert not list((user.home / "docker").glob("*"))


def test_docker_a_user_without_a_right_to_the_engine_is_told_so(stranger):
    job = write_job(stranger.folder / "birds")
    for command in (("run", job), ("image", "build"), ("rehearse", job, "--backend", "sagemaker")):
        done = stranger(*command, code=3)
        assert "this user may not use the Docker engine" in done.stderr
        assert "join the group docker" in done.stderr
