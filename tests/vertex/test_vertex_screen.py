"""A screening at a service whose output folder is a bucket, to which the container copies its results."""

from tests.clouds.google.project import JOB_ACCOUNT
from tests.on_clouds import screening
from tests.vertex.conftest import MACHINE


def test_vertex_screens_two_models_in_one_job(google, image, tmp_path):
    options = {"vertex": {"service_account": JOB_ACCOUNT}}
    screening.check_two_models_in_one_job(tmp_path, "vertex", MACHINE, google.custom_jobs.jobs, backends=options)
