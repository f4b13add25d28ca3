"""What is seen before any container starts: limits and folders, by the contract of each service. No engine answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import bundle
from backends.interface import ContainerRequest, Mount
from launcher.rehearsal.before import checks
from launcher.rehearsal.layout import Layout, of_contract, without_placeholders
from tests.rehearse.conftest import NO_ENGINE
from training_image.contracts import CONTRACTS

LONG = "x" * 513
TOO_LONG = "x" * 2501
COLABS = {"colab": "path", "colab-enterprise": "path"}


def faults(request: ContainerRequest, name: str = "tiny-12345678") -> set[str]:
    return {check.code for check in checks(Layout(request), name) if check.level == "error"}


def spoiled(service: str, **changes: object) -> ContainerRequest:
    request = of_contract(service)
    if "environment" in changes:
        changes["environment"] = request.environment | changes["environment"]
    return request.model_copy(update=changes)


@pytest.mark.parametrize("service", CONTRACTS)
def test_a_sound_request_passes(service):
    found = checks(Layout(of_contract(service)), "tiny-12345678")
    assert [(check.level, check.code) for check in found] == [("ok", "request")]


@pytest.mark.parametrize(
    ("changes", "caught_by"),
    [
        ({"hyperparameters": {"prompt": TOO_LONG}}, {"sagemaker": "hyperparameter"}),
        ({"hyperparameters": {f"key{n}": "1" for n in range(101)}}, {"sagemaker": "hyperparameters"}),
        ({"environment": {"NOTE": LONG}}, {"sagemaker": "environment"}),
        ({"environment": {f"KEY{n}": "1" for n in range(101)}}, {"sagemaker": "environment"}),
        ({"environment": {"FTLAUNCH_SPEC": "/data/spec.json"}}, dict.fromkeys(CONTRACTS, "path")),
        (
            {"environment": {"FTLAUNCH_OUTPUT": "/gcs/another/out"}},
            {"sagemaker": "path", "vertex": "unwritable", **COLABS},
        ),
        (
            {"environment": {"FTLAUNCH_OUTPUT": "/opt/ml/input/data/training/out"}},
            {"sagemaker": "unwritable", "vertex": "path", **COLABS},
        ),
        (
            {"environment": {"FTLAUNCH_CHECKPOINTS": "/tmp/checkpoints"}},
            {"sagemaker": "path", "vertex": "path", "colab": "path"},
        ),
    ],
)  # fmt: skip
def test_a_broken_request_is_caught_where_it_would_break_and_nowhere_else(changes, caught_by):
    found = {service: faults(spoiled(service, **changes)) for service in CONTRACTS}
    assert found == {service: {caught_by[service]} if service in caught_by else set() for service in CONTRACTS}


@given(st.integers(0, 600), st.integers(2400, 2600))
def test_sagemakers_limits_are_met_to_the_character(variable, parameter):
    request = spoiled("sagemaker", environment={"A": "x" * variable}, hyperparameters={"b": "y" * parameter})
    expected = {"environment"} if variable > 512 else set()
    assert faults(request) == expected | ({"hyperparameter"} if parameter > 2500 else set())


@pytest.mark.parametrize(("name", "taken"), [("a" * 63, True), ("a" * 64, False), ("-a", False), ("a_b", False)])
def test_sagemakers_names(name, taken):
    assert (faults(of_contract("sagemaker"), name) == set()) == taken


def test_sagemakers_limits_are_those_of_its_own_model():
    model = pytest.importorskip("botocore.session").get_session().get_service_model("sagemaker")
    members = model.operation_model("CreateTrainingJob").input_shape.members
    contract = CONTRACTS["sagemaker"]
    assert contract.name_pattern == members["TrainingJobName"].metadata["pattern"]
    limits = [
        (contract.max_hyperparameters, contract.max_hyperparameter_length, members["HyperParameters"]),
        (contract.max_environment, contract.max_environment_length, members["Environment"]),
    ]
    for many, length, shape in limits:
        assert (many, length) == (shape.metadata["max"], shape.value.metadata["max"])


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("python -m training_image train --data ${{inputs.rows}}", {"placeholder"}),
        ("python -m training_image train --data ${{ inputs.data }} --output ./outputs", {"path"}),
        ("FTLAUNCH_OUTPUT=${{outputs.checkpoints}} python -m training_image train --data ${{inputs.data}} "
         "--checkpoints ${{outputs.checkpoints}}", {"path"}),
        ("python -m training_image train --data ${{inputs.data}} --output ${{inputs.data}}/out "
         "--checkpoints ${{outputs.checkpoints}}", {"unwritable"}),
        ("exec python -m training_image train --data ${{inputs.data}} --output ${{outputs.output}} "
         "--checkpoints ${{outputs.checkpoints}}", set()),
        ('D=/elsewhere; python -m training_image train --data "$D"', set()),  # only the run itself can tell
    ],
)  # fmt: skip
def test_azuremls_command_line_is_read_as_its_shell_would(line, codes):
    assert faults(of_contract("azureml").model_copy(update={"arguments": (line,)})) == codes


def test_azuremls_names_of_folders_become_paths():
    (line,) = Layout(of_contract("azureml")).arguments
    assert "${{" not in line
    assert "--data /mnt/azureml/cr/j/9f3c1e/cap/data-capability/wd/INPUT_data " in line


def test_a_buckets_folders_are_one_volume_beside_which_nothing_can_be_made():
    (volume,) = Layout(of_contract("vertex")).volumes
    assert (volume.path, volume.read_only, volume.kept) == ("/gcs/bucket", False, True)


def test_a_path_of_the_request_is_taken_as_it_is():
    request = of_contract("sagemaker")
    mounts = (*request.mounts[:2], Mount(name="/checkpoints", holds="checkpoints"))
    assert Layout(request.model_copy(update={"mounts": mounts})).paths("checkpoints") == ["/checkpoints"]


def test_unresolved_facts_get_names_of_their_own():
    request = of_contract("vertex").model_copy(update={"environment": {"PLACE": "gs://<vertex.bucket>/job"}})
    assert without_placeholders(request).environment == {"PLACE": "gs://vertex-bucket/job"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"environment": {"FTLAUNCH_SPEC": "/opt/ml/input/data/training/spec.json"}}, "path"),
        ({"environment": {"FTLAUNCH_OUTPUT": "/opt/ml/input/data/training/out"}}, "unwritable"),
        ({"hyperparameters": {"prompt": TOO_LONG}}, "hyperparameter"),
        ({"environment": {"NOTE": LONG}}, "environment"),
    ],
)
def test_a_spoiled_plan_of_sagemaker_is_refused_without_an_engine(rehearse, options, code):
    job = rehearse.job(backends={"spoiled-sagemaker": options})
    told = rehearse(job, "--backend", "spoiled-sagemaker", code=1, **NO_ENGINE)
    (check,) = told["checks"]
    assert (check["level"], check["code"], told["ok"], told["starts"]) == ("error", code, False, [])
    assert check["hint"]


def test_a_secrets_long_name_breaks_sagemakers_limit(rehearse):
    """By a job file alone: the variable that names the secret holds the job's name and the secret's."""
    name = "T" * 500
    told = rehearse(rehearse.job(secrets=[name]), "--backend", "sagemaker", code=1, **NO_ENGINE, **{name: "value"})
    assert [check["code"] for check in told["checks"]] == ["environment"]


def test_a_request_that_no_container_can_be_made_of(rehearse):
    job = rehearse.job(backends={"spoiled-sagemaker": {"hyperparameters": {"epochs": 3}}})
    with rehearse.start("rehearse", job, "--backend", "spoiled-sagemaker", **NO_ENGINE) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "hyperparameters.epochs" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        (("--backend", "local"), {}, 2, "--backend sagemaker|vertex|azureml|colab"),
        ((), {}, 2, "--backend sagemaker|vertex|azureml|colab"),
        (("--backend", "sagemkaer"), {}, 2, "did you mean 'sagemaker'?"),
        (("--backend", "sagemaker"), NO_ENGINE, 3, "start one"),
    ],
)
def test_what_cannot_be_rehearsed_says_what_to_do(rehearse, arguments, environment, code, words):
    with rehearse.start("rehearse", rehearse.job(), *arguments, **environment) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "")
    assert words in errors
    assert "Traceback" not in errors


def test_the_wheel_is_the_same_whenever_it_is_made():
    name, content = bundle.wheel()
    assert (name, content) == bundle.wheel()
    assert name.endswith("-py3-none-any.whl")


def test_the_files_that_sagemaker_writes():
    files = {path.rpartition("/")[2]: json.loads(text) for path, text in Layout(of_contract("sagemaker")).files.items()}
    assert files["resourceconfig.json"]["hosts"] == ["algo-1"]
    assert files["hyperparameters.json"] == {}
