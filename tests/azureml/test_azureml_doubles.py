"""A job has one name at Azure ML, and starts once under it, whatever answer is lost on the way."""

from backends.azureml import AzureML
from backends.conformance.jobs import Watch, prepare


def test_azureml_a_lost_answer_to_the_create_call_starts_nothing_twice(harness, azure, monkeypatch):
    monkeypatch.setattr(azure, "starting_seconds", 60.0)  # cancelled before it has a machine
    sent = []
    for first in (0, 1):  # every other answer is lost: that of the create call either here or there
        job = prepare(harness, f"lost-{first}", steps=harness.long_steps)
        name = job.plan.job_name
        backend = AzureML.create()
        backend.stage(job.plan, job.files)
        with azure.trouble(drop=True):
            azure.troubles.calls = first
            handle = AzureML.create().submit(job.plan, {})
        assert [each.name for each in harness.jobs(name)] == [name]
        create = f"{azure.scope}/jobs/{name}"
        sent.append([call.method for call in azure.calls if call.url.partition("?")[0].endswith(create)].count("PUT"))
        backend.cancel(handle)
        Watch(harness, handle).to_end()
    assert max(sent) == 2
