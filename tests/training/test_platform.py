"""Where am I: every service's contract is recognised by what the service itself sets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from training_image.contracts import CONTRACTS
from training_image.errors import InputError
from training_image.platform import detect, hosts

FLAGS: dict[str, str | None] = {"spec": "/s", "data": "/d", "output": "/o", "checkpoints": "/c", "deadline": None}
NONE: dict[str, str | None] = dict.fromkeys(FLAGS)


@pytest.mark.parametrize("service", CONTRACTS)
def test_a_service_is_recognised(service: str) -> None:
    contract = CONTRACTS[service]
    given = {**FLAGS, **{name: None for name in ("output", "checkpoints") if getattr(contract, name)}, "spec": None}
    found = detect(given, contract.environment)
    assert found.name == service
    assert str(found.checkpoints) == (contract.checkpoints or "/c")
    assert str(found.mirror if contract.scratch else found.output) == (contract.output or "/o")
    assert found.spec == found.data / "spec.json"


def test_flags_go_before_the_environment_before_the_contract() -> None:
    environment = {**CONTRACTS["sagemaker"].environment, "FTLAUNCH_DATA": "/env", "FTLAUNCH_OUTPUT": "/env-out"}
    found = detect({**NONE, "data": "/flag"}, environment)
    assert (str(found.data), str(found.output)) == ("/flag", "/env-out")
    assert str(found.checkpoints) == CONTRACTS["sagemaker"].checkpoints


def test_azureml_has_no_folders_of_its_own() -> None:
    with pytest.raises(InputError, match="where is output"):
        detect({**FLAGS, "output": None}, CONTRACTS["azureml"].environment)


def test_on_vertex_the_output_is_made_on_the_machines_disk_unless_a_folder_is_given() -> None:
    contract = CONTRACTS["vertex"]
    found = detect({**NONE, "data": contract.data}, contract.environment)
    assert (str(found.output), str(found.mirror)) == (contract.scratch, contract.output)
    told = detect({**NONE, "data": contract.data, "output": "/flag"}, contract.environment)
    assert (str(told.output), told.mirror) == ("/flag", None)


def test_without_a_service_every_folder_must_be_told() -> None:
    assert detect(FLAGS, {}).name == "local"
    with pytest.raises(InputError, match="where is data"):
        detect(NONE, {})


def test_a_deadline_must_be_a_number() -> None:
    assert detect({**FLAGS, "deadline": "1800000000"}, {}).deadline == 1.8e9
    with pytest.raises(InputError, match="deadline"):
        detect({**FLAGS, "deadline": "tomorrow"}, {})


def test_a_limit_in_seconds_counts_from_the_start() -> None:
    before = time.time()
    found = detect(FLAGS, {"FTLAUNCH_MAX_SECONDS": "60"}).deadline
    assert found is not None
    assert before + 60 <= found <= time.time() + 60
    assert detect({**FLAGS, "deadline": "5"}, {"FTLAUNCH_MAX_SECONDS": "60"}).deadline == 5
    with pytest.raises(InputError, match="FTLAUNCH_MAX_SECONDS"):
        detect(FLAGS, {"FTLAUNCH_MAX_SECONDS": "an hour"})


def test_a_limit_runs_over_all_lives_of_a_run(tmp_path: Path) -> None:
    flags = {**FLAGS, "checkpoints": str(tmp_path)}
    first = {**CONTRACTS["vertex"].environment, "FTLAUNCH_MAX_SECONDS": "600"}
    (tmp_path / "time-used.json").write_text(json.dumps({"run": first["CLOUD_ML_JOB_ID"], "seconds": 500}))
    life = detect(flags, first)
    assert life.deadline is not None
    assert life.time_used is not None
    assert 90 < life.deadline - time.time() <= 100
    life.time_used.note()
    assert json.loads((tmp_path / "time-used.json").read_text())["seconds"] >= 500
    resumed = detect(flags, {**first, "CLOUD_ML_JOB_ID": "another"}).deadline
    assert resumed is not None
    assert resumed - time.time() > 590
    (tmp_path / "time-used.json").write_text('{"run": ')
    assert detect(flags, first).deadline is not None


def test_hosts_of_sagemaker(tmp_path: Path) -> None:
    path = tmp_path / "resourceconfig.json"
    path.write_text(json.dumps({"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]}))
    found = hosts({"FTLAUNCH_RESOURCE_CONFIG": str(path)})
    assert (found.names, found.rank) == (("algo-1", "algo-2"), 1)


def test_hosts_of_vertex() -> None:
    cluster = {"workerpool0": ["a:2222"], "workerpool1": ["b:2222", "c:2222"]}
    spec = {"cluster": cluster, "task": {"type": "workerpool1", "index": 1}}
    found = hosts({"CLUSTER_SPEC": json.dumps(spec)})
    assert (found.names, found.rank) == (("a", "b", "c"), 2)
    assert hosts({}).names == ("localhost",)
