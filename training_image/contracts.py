"""What each service gives its container: folders, files, environment, signals, limits. The one place for it.

Read by `training_image.platform` (where am I?), by `ftlaunch rehearse`, which plays these contracts on a local engine,
and by the tests' loopback clouds. Plain data. Sources: the services' documentation of custom training containers, read
2026-11; what they leave open is taken as its worst case, and said so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

SPEC, DATA, OUTPUT, CHECKPOINTS = "spec", "data", "output", "checkpoints"
"""What a folder of the container is for."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One service's contract with the container. Folders are absolute paths inside it."""

    service: str
    marks: tuple[str, ...]
    """Environment variables of which one tells that this is the service."""
    marker_file: str | None = None
    """A file that tells it where no variable does."""
    run_variable: str | None = None
    """Environment variable with the service's name of this run, the same in all lives of its container."""
    data: str | None = None
    output: str | None = None
    scratch: str | None = None
    """A folder on the machine's own disk in which the output tree is made, to be copied to `output` in the end: where
    that lies in a mounted bucket, which can neither rename a folder nor append to a file."""
    checkpoints: str | None = None
    """The folders where the service always has the same ones; None where the job's command has to be told."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables in which the service names output and checkpoints instead."""
    address: tuple[str, str] = ("", "")
    """Beginning of the addresses in these variables, and of the folder that one is mounted as."""
    inputs: str = "{name}"
    """Folder of an input that the request calls ``name``; a name that is an absolute path is the folder itself."""
    outputs: str = "{name}"
    """Folder of an output, likewise."""
    inputs_read_only: bool = False
    volume_depth: int | None = None
    """So many parts of a path make one mounted volume (``/gcs/BUCKET``: 2); None: each folder is one."""
    closed: str | None = None
    """A folder in which there is nothing, and nothing can be made, beside the volumes."""
    failure_file: str | None = None
    """Where the reason of a failure is left for the service to show."""
    failure_limit: int = 1024
    grace_seconds: int = 120
    """Seconds between SIGTERM and SIGKILL."""
    interruption_notice: bool = False
    """Whether a container whose machine is taken away (spot, low priority) gets SIGTERM and the grace, or dies."""
    kept: tuple[str, ...] = (OUTPUT, CHECKPOINTS)
    """The folders that a second start finds as the first one left them."""
    output_lost_on_failure: bool = False
    """Whether the output of a stopped or failed job is thrown away; its checkpoints are kept."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the service sets by itself, with values of the right shape, for a job on one machine."""
    files: dict[str, Any] = field(default_factory=dict)
    """JSON files that the service writes by itself, by path, for a job on one machine."""
    hyperparameters_file: str | None = None
    inputs_file: str | None = None
    """Where the request's inputs stand by name, each as `input_entry`."""
    input_entry: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ("train",)
    """What the service starts the image's entry point with, where the request does not say."""
    line_shell: tuple[str, ...] = ()
    """What runs the request's command line, where ``${{inputs.NAME}}`` and ``${{outputs.NAME}}`` stand for folders."""
    python: tuple[str, ...] = ()
    """What runs the entry point where there is no image, and so none that has one."""
    user: str = "root"
    name_pattern: str | None = None
    """Regular expression that the job's name has to match."""
    max_hyperparameters: int | None = None
    max_hyperparameter_length: int | None = None
    max_environment: int | None = None
    """Most variables of the request."""
    max_environment_length: int | None = None
    retried_exit_codes: tuple[int, ...] = ()
    """Exit codes that the service takes for faults of its own: it starts the container again, at the same price."""


# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html and the limits of
# CreateTrainingJob. That inputs cannot be written holds for some input modes; a job that keeps to it runs in all.
SAGEMAKER = Contract(
    service="sagemaker",
    marks=("TRAINING_JOB_NAME", "SM_TRAINING_ENV"),
    marker_file="/opt/ml/input/config/resourceconfig.json",
    run_variable="TRAINING_JOB_NAME",
    data="/opt/ml/input/data/training",
    output="/opt/ml/model",
    checkpoints="/opt/ml/checkpoints",
    inputs="/opt/ml/input/data/{name}",
    outputs="/opt/ml/{name}",
    inputs_read_only=True,
    failure_file="/opt/ml/output/failure",
    interruption_notice=True,
    kept=(CHECKPOINTS,),
    output_lost_on_failure=True,
    environment={
        "TRAINING_JOB_NAME": "rehearsal",
        "TRAINING_JOB_ARN": "arn:aws:sagemaker:us-east-1:123456789012:training-job/rehearsal",
        "AWS_REGION": "us-east-1",
    },
    files={
        "/opt/ml/input/config/resourceconfig.json": {
            "current_host": "algo-1",
            "current_instance_type": "ml.m5.xlarge",
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [
                {
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": "ml.m5.xlarge",
                    "hosts": ["algo-1"],
                }
            ],
            "network_interface_name": "eth0",
        }
    },
    hyperparameters_file="/opt/ml/input/config/hyperparameters.json",
    inputs_file="/opt/ml/input/config/inputdataconfig.json",
    input_entry={"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"},
    name_pattern=r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
    max_hyperparameters=100,
    max_hyperparameter_length=2500,
    max_environment=100,
    max_environment_length=512,
)

# https://cloud.google.com/vertex-ai/docs/training/code-requirements. Buckets are mounted below /gcs; whether a
# container hears of a preemption is not documented, so it does not here.
VERTEX = Contract(
    service="vertex",
    marks=("CLOUD_ML_JOB_ID", "AIP_MODEL_DIR", "CLUSTER_SPEC"),
    run_variable="CLOUD_ML_JOB_ID",
    data="/gcs/bucket/job/data",
    output="/gcs/bucket/job/model",
    scratch="/tmp/ftlaunch/output",  # noqa: S108  # the container is this job's alone
    checkpoints="/gcs/bucket/job/checkpoints",
    variables={OUTPUT: "AIP_MODEL_DIR", CHECKPOINTS: "AIP_CHECKPOINT_DIR"},
    address=("gs://", "/gcs/"),
    inputs="/gcs/{name}",
    outputs="/gcs/{name}",
    volume_depth=2,
    closed="/gcs",
    grace_seconds=30,
    environment={
        "CLOUD_ML_JOB_ID": "1234567890",
        "CLOUD_ML_PROJECT_ID": "123456789012",
        "CLOUD_ML_REGION": "us-central1",
        "AIP_MODEL_DIR": "gs://bucket/job/model/",
        "AIP_CHECKPOINT_DIR": "gs://bucket/job/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": "gs://bucket/job/logs/",
        "CLUSTER_SPEC": '{"cluster": {"workerpool0": ["cmle-training-workerpool0-0:2222"]}, "environment": "cloud",'
        ' "task": {"type": "workerpool0", "index": 0}}',
    },
    retried_exit_codes=(6, 11, 134, 139),
)

# https://learn.microsoft.com/azure/machine-learning/how-to-train-model and how-to-read-write-data-v2. The folders have
# a random part, so only the command line knows them. A preempted low-priority node gives no signal. Whether a file of a
# mounted blob container can be appended to is not documented.
AZUREML = Contract(
    service="azureml",
    marks=("AZUREML_RUN_ID",),
    run_variable="AZUREML_RUN_ID",
    inputs="/mnt/azureml/cr/j/9f3c1e/cap/data-capability/wd/INPUT_{name}",
    outputs="/mnt/azureml/cr/j/9f3c1e/cap/data-capability/wd/{name}",
    inputs_read_only=True,
    grace_seconds=30,
    scratch="/tmp/ftlaunch/output",  # noqa: S108  # the container is this job's alone
    environment={
        "AZUREML_RUN_ID": "rehearsal",
        "AZUREML_ROOT_RUN_ID": "rehearsal",
        "AZUREML_EXPERIMENT_ID": "00000000-0000-0000-0000-000000000000",
        "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
        "AZUREML_ARM_RESOURCEGROUP": "group",
        "AZUREML_ARM_WORKSPACE_NAME": "workspace",
        "AZUREML_ARM_PROJECT_NAME": "ftlaunch",
        "MLFLOW_EXPERIMENT_ID": "00000000-0000-0000-0000-000000000000",
        "MLFLOW_EXPERIMENT_NAME": "ftlaunch",
        "MLFLOW_RUN_ID": "rehearsal",
    },
    line_shell=("/bin/sh", "-c"),
)

# A virtual machine with /content that may vanish at any time, with all that is in it. What is kept, the launcher keeps:
# it brings the checkpoints to its own machine while the training runs, and lays them on the next one of Colab's.
COLAB = Contract(
    service="colab",
    marks=("COLAB_RELEASE_TAG", "COLAB_GPU"),
    data="/content/ftlaunch/data",
    output="/content/ftlaunch/output",
    checkpoints="/content/ftlaunch/checkpoints",
    inputs="/content/{name}",
    outputs="/content/{name}",
    grace_seconds=0,
    kept=(CHECKPOINTS,),
    environment={"COLAB_RELEASE_TAG": "release-colab", "COLAB_GPU": ""},
    python=("python3", "-m", "training_image"),
)

# The same kind of machine in a project of Google Cloud; Google's own notebooks tell it by this variable. A notebook
# that lost its machine is not run again.
COLAB_ENTERPRISE = replace(
    COLAB,
    service="colab-enterprise",
    marks=("VERTEX_PRODUCT",),
    kept=(),
    environment={"VERTEX_PRODUCT": "COLAB_ENTERPRISE"},
)

CONTRACTS: dict[str, Contract] = {each.service: each for each in (SAGEMAKER, VERTEX, AZUREML, COLAB_ENTERPRISE, COLAB)}
