"""How the starts of a container are judged, by the contract of each service."""

from __future__ import annotations

import pytest

from launcher.rehearsal.after import Seen, checks
from launcher.rehearsal.layout import Layout, of_contract
from launcher.rehearsal.stage import Start

STOPPED = Start(exit_code=143, interrupted=True, grace=2.0)
KILLED = Start(exit_code=137, interrupted=True, killed=True)
SLOW = Start(exit_code=137, interrupted=True, killed=True, grace=120.0)
DONE = Start(exit_code=0, seconds=3.0)
WHOLE = {"manifest.json": 100, "result.json": 100}


def judged(service: str, *starts: Start, resumed: int | None = None, **seen) -> dict[str, str]:
    layout = Layout(of_contract(service))
    whole = {"tree": WHOLE, "metrics": {"train/loss": [1.0]}, "checkpoints": ["step-1.pt"]} | seen
    made = Seen(list(starts), result={"training": {"resumed_from": resumed}}, **whole)
    return {check.code: check.level for check in checks(layout, made, interrupted=starts[0].interrupted)}


def test_a_success():
    assert judged("sagemaker", DONE) == {"exit": "ok", "output": "ok", "metrics": "ok"}


@pytest.mark.parametrize(
    ("seen", "code", "level"),
    [
        ({"tree": {}}, "output", "error"),
        ({"tree": {"result.json": 1}}, "output", "error"),
        ({"wrong": ["result.json"]}, "output", "error"),
        ({"checkpoints": []}, "checkpoints", "error"),
        ({"metrics": {}}, "metrics", "warning"),
    ],
)
def test_a_success_that_leaves_too_little(seen, code, level):
    assert judged("sagemaker", DONE, **seen)[code] == level


def test_colab_enterprise_keeps_no_checkpoints_and_needs_none():
    assert "checkpoints" not in judged("colab-enterprise", DONE, checkpoints=[])


@pytest.mark.parametrize(("service", "retried"), [("vertex", True), ("sagemaker", False)])
def test_an_exit_code_that_vertex_takes_for_its_own_fault(service, retried):
    found = judged(service, Start(exit_code=139, lines=["Segmentation fault"]))
    assert found["exit"] == "error"
    assert ("retried" in found) == retried


def test_a_container_out_of_memory():
    assert judged("azureml", Start(exit_code=137, out_of_memory=True)) == {"memory": "error"}


@pytest.mark.parametrize(
    ("service", "first", "resumed", "interrupt", "resume"),
    [
        ("sagemaker", STOPPED, 2, "ok", "ok"),
        ("sagemaker", STOPPED, None, "ok", "error"),
        ("sagemaker", SLOW, 2, "error", "ok"),
        ("sagemaker", Start(exit_code=1, interrupted=True, grace=1.0), 2, "error", "ok"),
        ("vertex", KILLED, 2, "ok", "ok"),
        ("azureml", KILLED, None, "ok", "error"),
        ("colab", KILLED, 2, "ok", "ok"),
        ("colab-enterprise", KILLED, None, "ok", "note"),
    ],
)
def test_an_interruption(service, first, resumed, interrupt, resume):
    found = judged(service, first, DONE, resumed=resumed)
    assert (found["interrupt"], found["resume"], found["exit"]) == (interrupt, resume, "ok")


def test_a_job_that_ends_before_it_could_be_interrupted_shows_nothing():
    layout = Layout(of_contract("sagemaker"))
    seen = Seen([DONE], tree=WHOLE, checkpoints=["step-1.pt"], metrics={"train/loss": [1.0]})
    assert {check.code for check in checks(layout, seen, interrupted=True) if check.level == "error"} == {"interrupt"}
