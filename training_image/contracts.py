"""What each service gives its container: folders, environment, signals, limits. The one place where this is written.

Read by `training_image.platform` (where am I?), by the rehearsal, which plays these contracts on a local engine, and by
the tests' loopback clouds. Sources: the services' documentation of custom training containers, read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Contract:
    """One service's contract with the container. Folders are absolute paths inside it."""

    service: str
    marks: tuple[str, ...]
    """Environment variables of which one tells that this is the service."""
    marker_file: str | None = None
    """A file that tells it where no variable does."""
    data: str | None = None
    output: str | None = None
    checkpoints: str | None = None
    failure_file: str | None = None
    """Where the reason of a failure is left for the service to show."""
    failure_limit: int = 1024
    grace_seconds: int = 120
    """Seconds between SIGTERM and SIGKILL."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the service sets by itself, with a value of the right shape."""
    argv: tuple[str, ...] = ("train",)
    user: str = "root"
    output_lost_on_failure: bool = False
    """Whether the output of a stopped or failed job is thrown away; its checkpoints are kept."""
    checkpoints_restored: bool = True
    """Whether a second start finds the checkpoints of the first."""
    max_hyperparameters: int | None = None
    max_hyperparameter_length: int | None = None
    max_environment_length: int | None = None
    retried_exit_codes: tuple[int, ...] = ()


SAGEMAKER = Contract(
    service="sagemaker",
    marks=("TRAINING_JOB_NAME", "SM_TRAINING_ENV"),
    marker_file="/opt/ml/input/config/resourceconfig.json",
    data="/opt/ml/input/data/training",
    output="/opt/ml/model",
    checkpoints="/opt/ml/checkpoints",
    failure_file="/opt/ml/output/failure",
    output_lost_on_failure=True,
    environment={"TRAINING_JOB_NAME": "rehearsal", "AWS_REGION": "us-east-1"},
    max_hyperparameters=100,
    max_hyperparameter_length=2500,
    max_environment_length=512,
)

VERTEX = Contract(
    service="vertex",
    marks=("CLOUD_ML_JOB_ID", "AIP_MODEL_DIR", "CLUSTER_SPEC"),
    data="/gcs/bucket/job/data",
    output="/gcs/bucket/job/model",
    checkpoints="/gcs/bucket/job/checkpoints",
    grace_seconds=30,
    environment={
        "CLOUD_ML_JOB_ID": "1234567890",
        "AIP_MODEL_DIR": "gs://bucket/job/model/",
        "AIP_CHECKPOINT_DIR": "gs://bucket/job/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": "gs://bucket/job/logs/",
    },
    retried_exit_codes=(6, 11, 134, 139),
)

AZUREML = Contract(
    service="azureml",
    marks=("AZUREML_RUN_ID",),
    data="/mnt/azureml/inputs/data",
    output="/mnt/azureml/outputs/output",
    checkpoints="/mnt/azureml/outputs/checkpoints",
    grace_seconds=30,
    environment={"AZUREML_RUN_ID": "rehearsal", "AZUREML_ARM_WORKSPACE_NAME": "workspace"},
)

COLAB = Contract(
    service="colab",
    marks=("COLAB_RELEASE_TAG", "COLAB_GPU"),
    data="/content/ftlaunch/data",
    output="/content/ftlaunch/output",
    checkpoints="/content/ftlaunch/checkpoints",
    grace_seconds=0,
    environment={"COLAB_RELEASE_TAG": "release-colab"},
    checkpoints_restored=False,
)

CONTRACTS: dict[str, Contract] = {each.service: each for each in (SAGEMAKER, VERTEX, AZUREML, COLAB)}
