"""The jobs that the place still holds, whoever recorded them and wherever they were sent."""

import json

from backends.home import data_home
from backends.sagemaker import SageMaker

ELSEWHERE = "eu-west-1"


def test_sagemaker_known_jobs_are_those_of_every_region_that_was_used(aws, harness, monkeypatch):
    """A job in another region than the default one is found by the note of any job that was sent there from this
    machine, or where AWS's own tools are set to that region."""
    handle = harness.runs.finished.handle
    for job in harness.jobs(handle.job_name):
        monkeypatch.setattr(job, "arn", job.arn.replace(aws.region, ELSEWHERE))
    there = handle.model_copy(update={"data": handle.data | {"region": ELSEWHERE}})
    assert handle.job_name not in {each.job_name for each in SageMaker.create().known()}
    monkeypatch.setenv("AWS_DEFAULT_REGION", ELSEWHERE)
    assert there in list(SageMaker.create().known())
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    note = data_home() / "sagemaker" / "another-0123abcd.json"
    note.write_text(json.dumps({"region": ELSEWHERE, "profile": None}))
    try:
        assert there in list(SageMaker.create().known())
    finally:
        note.unlink()
