"""Rehearsals with a real engine and the real image: what each service would see, and what it would not let through."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.rehearse.conftest import FTLAUNCH, left

pytestmark = pytest.mark.usefixtures("engine")
SECRET = "REHEARSED_TOKEN"
VALUE = "a-value-to-be-hidden"


def levels(told) -> dict[str, str]:
    return {check["code"]: check["level"] for check in told["checks"]}


def message(told, code: str) -> str:
    return next(check["message"] + check["hint"] for check in told["checks"] if check["code"] == code)


def test_sagemaker_interrupted_goes_on_by_the_real_plan(rehearse):
    job = rehearse.job(secrets=[SECRET])
    told = rehearse(job, "--backend", "sagemaker", "--interrupt", **{SECRET: VALUE})
    assert (told["ok"], told["played"], told["service"]) == (True, "plan", "sagemaker")
    first, second = told["starts"]
    assert (first["exit_code"], first["interrupted"], first["killed"]) == (143, True, False)
    assert 0 < first["grace_seconds"] < 120
    assert first["steps"] <= told["resumed_from"] < 12
    assert (second["exit_code"], second["steps"]) == (0, 12)
    assert levels(told)["resume"] == levels(told)["interrupt"] == levels(told)["output"] == "ok"
    assert {"result.json", "metrics.jsonl", "manifest.json", "adapter/adapter_model.safetensors"} <= told[
        "output"
    ].keys()
    assert told["metrics"]["train/loss"]["lines"] >= 12

    request = json.loads(
        subprocess.run(
            [FTLAUNCH, "run", str(job), "--backend", "sagemaker", "--dry-run", "--json"],
            env=rehearse.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )["request"]["CreateTrainingJob"]
    assert request["Environment"].items() <= told["environment"].items()
    assert told["environment"]["TRAINING_JOB_NAME"] == request["TrainingJobName"] == told["job"]
    assert told["environment"][SECRET] == "***"
    assert VALUE not in json.dumps(told)


def test_vertex_killed_without_notice_goes_on(rehearse):
    told = rehearse(rehearse.job(), "--backend", "vertex", "--interrupt")
    first, second = told["starts"]
    assert (first["killed"], first["exit_code"], first["grace_seconds"]) == (True, 137, None)
    assert (told["ok"], told["played"], second["exit_code"]) == (True, "plan", 0)
    assert told["resumed_from"] >= 1
    assert told["folders"]["output"][0].startswith("/gcs/")
    assert levels(told)["output"] == "ok"


def test_azureml_killed_without_notice_goes_on_by_its_command_line(rehearse):
    told = rehearse(rehearse.job(), "--backend", "azureml", "--interrupt")
    assert told["played"] == "plan"
    assert (told["ok"], [start["exit_code"] for start in told["starts"]]) == (True, [137, 0])
    assert told["resumed_from"] >= 1
    assert told["entrypoint"] == ["/bin/sh", "-c"]
    assert levels(told)["resume"] == levels(told)["output"] == levels(told)["metrics"] == "ok"


def test_colab_with_wheel_and_lock_goes_on_from_the_checkpoints_alone(rehearse):
    told = rehearse(rehearse.job(), "--backend", "colab", "--interrupt")
    assert told["played"] == "plan"
    assert told["image"].startswith("ftlaunch-bare-python:")
    assert (told["ok"], [start["exit_code"] for start in told["starts"]]) == (True, [137, 0])
    assert told["resumed_from"] >= 1
    assert levels(told)["resume"] == levels(told)["output"] == "ok"


def test_a_metric_that_the_image_lacks_is_found(rehearse):
    task = {"type": "instruction", "metric": "loudness"}
    data = {"train": "train.jsonl", "columns": {"prompt": "text", "completion": "label"}}
    told = rehearse(rehearse.job(task=task, data=data), "--backend", "sagemaker", code=1)
    assert told["starts"][0]["exit_code"] == 2
    assert "task.metric loudness is unknown" in told["failure"]
    assert "image.extra" in message(told, "exit")


@pytest.mark.parametrize(
    ("service", "line", "words"),
    [
        (
            "azureml",
            'D=/mnt/azureml/inputs/data; exec python -m training_image train --data "$D" '
            "--output ${{outputs.output}} --checkpoints ${{outputs.checkpoints}}",
            "cannot read /mnt/azureml/inputs/data/spec.json",
        ),
        (
            "vertex",
            "exec python -m training_image train --data /gcs/b/data --output /gcs/other/out "
            "--checkpoints /gcs/b/checkpoints",
            "/gcs/other/out: Read-only file system",
        ),
        (
            "azureml",
            'D=${{inputs.data}}; exec python -m training_image train --data "$D" --output "$D/out" '
            "--checkpoints ${{outputs.checkpoints}}",
            "INPUT_data/out: Read-only file system",
        ),
    ],
    ids=["azureml-path", "vertex-unwritable", "azureml-unwritable"],
)
def test_what_only_the_run_can_tell_is_caught_by_it(rehearse, service, line, words):
    job = rehearse.job(backends={"spoiled": {"service": service, "line": line}})
    told = rehearse(job, "--backend", "spoiled", code=1)
    assert told["starts"][0]["exit_code"] == 2
    assert words in message(told, "exit")


def test_nothing_stays_behind_after_ctrl_c_nor_after_a_kill(rehearse):
    """A killed one cannot clear up; the next one does. What stays until then tells no secret."""
    job = rehearse.job(secrets=[SECRET])
    killed = begun(rehearse, job)
    killed.kill()
    killed.communicate()
    found = left(killed.pid)
    assert found != []
    assert VALUE not in subprocess.run(["docker", "inspect", *found], capture_output=True, text=True, check=True).stdout
    stopped = begun(rehearse, job)
    assert left(killed.pid) == []
    assert left(stopped.pid) != []
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert (stopped.returncode, left(stopped.pid)) == (130, [])
    assert "Traceback" not in errors


def begun(rehearse, job) -> subprocess.Popen[str]:
    process = rehearse.start("rehearse", job, "--backend", "vertex", **{SECRET: VALUE})
    for line in process.stderr:
        if line.startswith("[start]"):
            return process
    raise AssertionError("it never began")
