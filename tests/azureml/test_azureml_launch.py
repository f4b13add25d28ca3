"""The whole walk of a user: one command from the rows to the verdict, in the real image, on a loopback subscription."""

import json

import pytest

from backends.azure_calls import Account, Workspace
from backends.conformance.jobs import prepare
from backends.interface import State
from tests.clouds.azure import JOB
from tests.clouds.azure.account import CLUSTER, MACHINE
from tests.on_clouds.walk import Walk, write_job


@pytest.fixture(scope="module")
def walk(azure, image, tmp_path_factory):
    """On a low-priority cluster; subscription, workspace, registry and key vault are for Azure to tell."""
    made = Walk(tmp_path_factory.mktemp("walk"), "azureml", MACHINE, {"compute": CLUSTER})
    made.job = azure.jobs.jobs[made.name]
    return made


def test_azureml_walk_ends_with_a_verdict(walk):
    walk.check_verdict()
    assert walk.document["billable_seconds"] == pytest.approx(walk.job.active, abs=1e-3)


def test_azureml_body_sent_is_the_one_planned(walk, azure):
    dry = walk.planned()
    text = json.dumps(dry["request"]["JobBase"]["properties"])
    for key, value in (
        ("subscription", azure.subscription),
        ("resource_group", azure.group),
        ("workspace", azure.workspace),
        ("key_vault", azure.vault.name),
    ):
        text = text.replace(f"<azureml.{key}>", value)
    planned, sent = json.loads(text.replace(dry["job"], walk.name)), dict(walk.job.body)
    # whose version tells the registry too, which only the resolved plan knows
    assert planned.pop("environmentId").rpartition("-")[0] == sent.pop("environmentId").rpartition("-")[0]
    assert planned == sent
    assert sent["properties"] == {}  # nothing of the user's git repository


def test_azureml_record_names_the_image_that_ran(walk, azure):
    walk.check_image([azure.engine.images.get(each) for each in walk.job.image_ids])


def test_azureml_metrics_are_read_through_mlflow(walk, azure):
    account = Account(Workspace(azure.subscription, azure.group, azure.workspace))
    base = f"https://{azure.history.host}/mlflow/v2.0{azure.scope}/api/2.0/mlflow/metrics/get-history"

    def history(key):
        found = account.get(base, "https://ml.azure.com/.default", run_id=walk.name, metric_key=key)["metrics"]
        return [(each["step"], each["value"]) for each in found]

    lines = [json.loads(line) for line in (walk.folder / "out" / "metrics.jsonl").read_text().splitlines()]
    for key in ("train/loss", "train/learning_rate", "validation/macro_f1"):
        assert history(key) == [(line["step"], line[key]) for line in lines if key in line]
        assert history(key)
    result = json.loads((walk.folder / "out" / "result.json").read_text())
    for name in ("zero_shot", "few_shot", "tuned"):
        assert history(f"{name}/macro_f1") == [(0, result["evaluations"][name]["metrics"]["macro_f1"])]


def test_azureml_secret_is_where_it_belongs_and_nowhere_else(walk, azure):
    name = next(key for key in azure.vault.deleted if walk.name in key)
    assert azure.vault.deleted[name]["value"] == walk.value  # removed when the results were fetched
    assert JOB in {who for who, read in azure.vault.read if read == name}
    sent = [call for call in azure.calls if walk.value.encode() in call.url.encode() + call.body]
    assert {(call.method, call.url.partition("/secrets/")[0]) for call in sent} == {("PUT", azure.vault.host)}
    containers = (azure.storage.blobs, azure.storage.logs)
    walk.check_secret_nowhere(
        (blob, container.download_blob(blob).readall())
        for container in containers
        for blob in container.list_blob_names()
    )


def test_azureml_finished_jobs_are_known_without_credentials(walk, azure):
    walk.check_known_without_credentials(azure)


def test_azureml_log_is_shown_to_the_last_line(walk):
    walk.check_log(walk.name, walk.followed)
    assert "experimental" not in walk.followed  # what the SDK says of its own classes


def test_azureml_walk_sends_nothing_a_second_time(walk, azure, monkeypatch):
    monkeypatch.setattr(azure, "starting_seconds", 60.0)  # cancelled before it has a machine
    before, pushed = azure.storage.received.value, azure.registry.front.received.value
    done = walk.here("run", walk.folder, "--json", "--yes", "--detach", "--output", walk.folder / "again")
    document = json.loads(done.stdout)
    assert document["job"] != walk.name
    azure.jobs.jobs[document["job"]].cancel()
    assert azure.storage.received.value - before < 10_000  # spec.json, which names the job
    assert azure.registry.front.received.value == pushed


def test_azureml_cluster_is_priced_by_the_machines_that_it_has(walk, azure, tmp_path, monkeypatch):
    """The job names none; Azure's own spelling is not that of its price list."""
    monkeypatch.setattr(azure, "starting_seconds", 60.0)  # cancelled before it has a machine
    azure.arm.add_cluster("t4s", "STANDARD_NC4AS_T4_V3", 1, low_priority=False)
    options = {"compute": "t4s", "image": azure.arm.environment_of(walk.job.body["environmentId"])}

    folder = write_job(tmp_path, backend="azureml", backends={"azureml": options})
    started = ("run", folder, "--json", "--yes", "--detach", "--output", tmp_path / "out")
    jobs = len(azure.jobs.jobs)
    refused = walk.here(*started, "--set", "budget.max_hours=0.05", exits=2)
    assert "budget.max_hours is 0.05, and azureml Standard_NC4as_T4_v3 is expected to take" in refused.stderr
    assert len(azure.jobs.jobs) == jobs
    with azure.rights.without("Microsoft.MachineLearningServices/workspaces/computes/read"):  # a warning, no refusal
        blind = walk.here(*started)
    document = json.loads(blind.stdout)
    azure.jobs.jobs[document["job"]].cancel()
    assert document["estimate_usd"] is None
    assert "and so its price, are not known" in blind.stderr
    done = walk.here(*started, "--set", "train.seed=2")
    document = json.loads(done.stdout)
    azure.jobs.jobs[document["job"]].cancel()
    assert document["estimate_usd"] > 0
    told = f"for about {document['estimate_usd']:.2f} dollars"
    assert f"azureml Standard_NC4as_T4_v3: expected to be billed {told}" in done.stderr


def test_azureml_every_right_of_the_shipped_role_is_needed(walk, azure, harness):
    """By the walks above, a job cancelled and resumed, and one look at a serverless job; a right that no call asks for
    would be too much."""
    assert harness.runs.resumed.run.end.state is State.SUCCEEDED
    harness.fresh().preflight(prepare(harness, "look").plan)
    used = {action.lower() for principal, action in azure.rights.used if principal == "launcher"}
    unused = {action for action in azure.rights.actions("launcher") if action.lower() not in used}
    assert unused <= {"Microsoft.KeyVault/vaults/secrets/recover/action"}, unused  # tried in the storage's tests
