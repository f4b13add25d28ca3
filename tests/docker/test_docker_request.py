"""The create call holds what was promised: no network unless needed, limits, labels, data that cannot be written."""

import json

import pytest
from pydantic import ValidationError

from backends.docker import Docker
from backends.docker_request import DATA, DEVICES, DockerOptions, with_gpu
from backends.interface import Resources, Submission
from training_image.spec import Data, Model, Spec, Task, Tracking

LOCAL = {"train.jsonl": "0" * 64, "model/config.json": "1" * 64}


def plan(files=None, train="train.jsonl", report_to=(), **more):
    spec = Spec(
        job="birds",
        model=Model(id="model"),
        data=Data(train=train),
        task=Task(type="classification"),
        tracking=Tracking(report_to=list(report_to)),
    )
    return Docker.create().plan(
        Submission(job_name="birds-0123abcd", spec=spec, files=files or LOCAL, image="ftlaunch:cpu-0", **more)
    )


def config(*arguments, **more):
    return plan(*arguments, **more).request["config"]


@pytest.mark.parametrize(
    ("more", "network"),
    [
        ({}, "none"),
        ({"files": {"train.jsonl": "0" * 64}}, "bridge"),  # the model comes from the hub
        ({"train": "hub:org/rows"}, "bridge"),
        ({"report_to": ["tensorboard"]}, "none"),
        ({"report_to": ["mlflow"]}, "bridge"),
        ({"options": {"network": "lab"}}, "lab"),
    ],
)
def test_docker_network_is_off_unless_something_is_fetched_or_sent(more, network):
    made = config(**more)
    assert made["HostConfig"]["NetworkMode"] == network
    assert ("HF_HUB_OFFLINE=1" in made["Env"]) == (network == "none")


def test_docker_data_cannot_be_written_and_results_lie_in_a_volume():
    data, job = config()["HostConfig"]["Mounts"]
    assert (data["Type"], data["Target"], data["ReadOnly"]) == ("volume", DATA, True)
    assert (job["Type"], job.get("ReadOnly", False)) == ("volume", False)


def test_docker_limits_are_the_engines_and_the_containers_own():
    made = config(max_seconds=3600, options={"memory_gb": 1.5, "grace_seconds": 30})
    host = made["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 1_500_000_000  # no swap beyond it
    assert made["StopTimeout"] == 30
    assert "--kill-after=30 3600" in made["Entrypoint"][2]
    assert "Memory" not in config()["HostConfig"]
    assert "Entrypoint" not in config()  # the image's own


def test_docker_labels_tell_the_job_to_whoever_finds_the_container():
    labels = config(max_seconds=60, secrets=("HF_TOKEN",))["Labels"]
    assert labels == {"ftlaunch.job": "birds-0123abcd", "ftlaunch.max_seconds": "60", "ftlaunch.secrets": "HF_TOKEN"}


@pytest.mark.parametrize(("gpu", "there"), [("auto", True), ("auto", False), ("required", True), ("never", False)])
def test_docker_device_requests_follow_option_and_engine(gpu, there):
    made = plan(resources=Resources(gpu="T4"), options={"gpu": gpu})
    assert bool(made.unresolved) == (gpu == "auto")
    settled = with_gpu(made, there) if made.unresolved else made
    assert settled.request["config"]["HostConfig"]["DeviceRequests"] == (DEVICES if there else [])
    assert not settled.unresolved
    assert "docker.gpu" not in json.dumps(settled.request)


@pytest.mark.parametrize("wrong", [{"memory_gb": 0}, {"gpu": "sometimes"}, {"grace_seconds": 0}, {"imgae": "x"}])
def test_docker_options_are_strict(wrong):
    with pytest.raises(ValidationError):
        DockerOptions.model_validate(wrong)
