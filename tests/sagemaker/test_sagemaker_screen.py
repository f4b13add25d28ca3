"""A screening whose results SageMaker packs into the job's archive."""

from tests.on_clouds import screening
from tests.sagemaker.conftest import MACHINE


def test_sagemaker_screens_two_models_in_one_job(aws, image, tmp_path):
    screening.check_two_models_in_one_job(tmp_path, "sagemaker", MACHINE, aws.training.jobs)
