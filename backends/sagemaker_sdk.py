"""The sagemaker SDK (v3) as another way to send the same request, and to find role and bucket. Its telemetry is off.

ModelTrainer makes a job's name out of a base and the time; ours must be the plan's, or a repeated submit would start a
second job. So its own hook for the request's arguments is overridden for the name alone.
"""

from __future__ import annotations

import logging
from typing import Any

from backends.aws_calls import Account, call
from backends.interface import BackendError, Json

CONFIG: Json = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


def create(account: Account, request: Json) -> None:
    """Send a CreateTrainingJob request by ModelTrainer. Raises as `backends.aws_calls.call` does."""
    try:
        call(_trainer(account, request).train, wait=False, logs=False)
    except BackendError:
        raise
    except Exception as error:  # the SDK checks much by itself, and its errors have nothing else in common
        hint = "correct what it names, or leave out backends.sagemaker.via"
        raise BackendError(f"the sagemaker SDK refuses the job: {error}", hint=hint) from error


def known(account: Account, missing: set[str]) -> dict[str, str]:
    """Account, default bucket (made if it is missing) and execution role, as the SDK finds them."""
    from sagemaker.core.helper.session_helper import get_execution_role

    session = _session(account)
    found = {"account": str(account.identity()["Account"])}
    if "bucket" in missing:
        found["bucket"] = str(call(session.default_bucket))
    if "role" in missing:
        try:
            found["role"] = str(call(get_execution_role, sagemaker_session=session))
        except ValueError as error:  # the SDK knows a role only where the caller acts as one
            logging.getLogger(__name__).debug("no execution role: %s", error)
    return found


def _session(account: Account) -> Any:
    try:
        from sagemaker.core.helper.session_helper import Session
    except ModuleNotFoundError as error:
        hint = "pip install 'ftlaunch[sagemaker]', or leave out backends.sagemaker.via"
        raise BackendError("backends.sagemaker.via: sdk needs the sagemaker SDK", hint=hint) from error
    logging.getLogger("sagemaker").setLevel(logging.WARNING)
    client = account.client("sagemaker")
    return Session(boto_session=account.session, sagemaker_client=client, sagemaker_config=CONFIG)


def _trainer(account: Account, request: Json) -> Any:
    session = _session(account)
    from sagemaker.core import shapes
    from sagemaker.train import ModelTrainer, configs

    name = request["TrainingJobName"]

    class Trainer(ModelTrainer):  # type: ignore[misc, unused-ignore]
        def _create_training_job_args(self, *arguments: Any, **keywords: Any) -> Json:
            made: Json = super()._create_training_job_args(*arguments, **keywords)
            return made | {"training_job_name": name}

    resources, vpc = request["ResourceConfig"], request.get("VpcConfig", {})
    trainer = Trainer(
        sagemaker_session=session,
        base_job_name=name,
        role=request["RoleArn"],
        training_image=request["AlgorithmSpecification"]["TrainingImage"],
        training_input_mode=request["AlgorithmSpecification"]["TrainingInputMode"],
        compute=configs.Compute(
            instance_type=resources["InstanceType"],
            instance_count=resources["InstanceCount"],
            volume_size_in_gb=resources["VolumeSizeInGB"],
            volume_kms_key_id=resources.get("VolumeKmsKeyId"),
            keep_alive_period_in_seconds=resources.get("KeepAlivePeriodInSeconds"),
            enable_managed_spot_training=request["EnableManagedSpotTraining"],
        ),
        networking=configs.Networking(
            security_group_ids=vpc.get("SecurityGroupIds"),
            subnets=vpc.get("Subnets"),
            enable_network_isolation=request["EnableNetworkIsolation"],
            enable_inter_container_traffic_encryption=request["EnableInterContainerTrafficEncryption"],
        ),
        stopping_condition=configs.StoppingCondition(**_snake(request["StoppingCondition"])),
        output_data_config=shapes.OutputDataConfig(**_snake(request["OutputDataConfig"])),
        checkpoint_config=shapes.CheckpointConfig(**_snake(request["CheckpointConfig"])),
        input_data_config=[_input(configs, shapes, channel) for channel in request["InputDataConfig"]],
        environment=request["Environment"],
        tags=[configs.Tag(key=tag["Key"], value=tag["Value"]) for tag in request["Tags"]],
    )
    metrics = request["AlgorithmSpecification"]["MetricDefinitions"]
    trainer.with_metric_definitions(
        [shapes.MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in metrics]
    )
    if "RetryStrategy" in request:
        trainer.with_retry_strategy(configs.RetryStrategy(**_snake(request["RetryStrategy"])))
    return trainer


def _input(configs: Any, shapes: Any, channel: Json) -> Any:
    source = shapes.S3DataSource(**_snake(channel["DataSource"]["S3DataSource"]))
    data = shapes.DataSource(s3_data_source=source)
    return configs.Channel(channel_name=channel["ChannelName"], data_source=data, input_mode=channel["InputMode"])


def _snake(content: Json) -> Json:
    """The SDK's own names of a structure's members."""
    from sagemaker.core.utils.utils import pascal_to_snake

    return {pascal_to_snake(key): value for key, value in content.items()}
