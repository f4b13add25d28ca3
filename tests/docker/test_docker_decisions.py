"""What decides between models and settings runs in containers as it does here: a screening, and a sweep's trials."""

from pathlib import Path

from tests.docker.conftest import write_job
from tests.tiny_model import MODEL


def test_docker_screening_and_sweep_end_with_a_choice(ftlaunch, image):
    job = write_job(ftlaunch.folder / "birds", train={"rank": 2, "batch_size": 2, "max_steps": 4, "patience": 0})
    screened = ftlaunch.json("screen", job, "--models", MODEL)
    assert screened["job"]["backend"] == "docker"
    (model,) = screened["models"]
    assert set(model["evaluations"]) == {"zero_shot", "few_shot"}

    search = ("--search", "train.learning_rate=1e-4..1e-3", "--trials", "2", "--at-once", "2")
    swept = ftlaunch.json("sweep", job, *search)
    assert {trial["state"] for trial in swept["trials"]} <= {"COMPLETE", "PRUNED"}
    assert len(swept["trials"]) == 2
    best = swept["job"]
    assert (best["backend"], best["state"]) == ("docker", "SUCCEEDED")
    assert Path(best["output"], "result.json").exists()
