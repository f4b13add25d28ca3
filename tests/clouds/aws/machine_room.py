"""One training job, really run: the image by its digest, in containers that have SageMaker's `/opt/ml` contract."""

import json
import secrets
import shutil
import tarfile
import threading
import time
from pathlib import Path

from tests.clouds.aws.folders import Bucket, split_uri
from tests.clouds.aws.log_writer import LOG_GROUP, LogWriter
from tests.clouds.containers import Machine, quit_all
from training_image.contracts import SAGEMAKER

NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
MACHINE_LOST = "InternalServerError: We encountered an internal error.  Please try again."
SYNC_SECONDS = 0.5


class Failed(Exception):
    """The job fails; the text is its FailureReason."""


class Job(threading.Thread):
    def __init__(self, cloud, request: dict, arn: str) -> None:
        super().__init__(name=request["TrainingJobName"], daemon=True)
        self.cloud, self.request, self.arn = cloud, request, arn
        self.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        self.created = time.time()
        self.status, self.secondary, self.failure = "InProgress", "Starting", ""
        self.transitions: list[dict] = []
        self.metrics: dict[str, tuple[float, float]] = {}
        self.image: str | None = None
        self.lives: list[list[Machine]] = []
        """The containers of each life; an interruption ends one."""
        self.image_ids: set[str] = set()
        self.logs = LogWriter(cloud, self.request, self.metrics)
        self._stop_asked: str | None = None
        self._event = threading.Event()
        self._lost = self._reclaimed = self._destroyed = False
        self._billed = self._trained = 0.0
        self._begin = self._end = None
        self._artifact = None
        self._folder = Path(cloud.folder) / "jobs" / self.request["TrainingJobName"]
        self._enter("Starting", "Starting the training job")

    @property
    def machines(self) -> int:
        return self.request["ResourceConfig"]["InstanceCount"]

    @property
    def ended(self) -> bool:
        return self.status in ("Completed", "Failed", "Stopped")

    def takes(self, machine: str, spot: bool) -> bool:
        resources = self.request["ResourceConfig"]
        return (resources["InstanceType"], self.request.get("EnableManagedSpotTraining", False)) == (machine, spot)

    def running(self) -> int:
        return sum(machine.running() for machine in (self.lives[-1] if self.lives else []))

    # what a test may do to it

    def preempt(self) -> None:
        """The spot machines are taken away, with the notice that the service gives."""
        self._reclaimed = True
        self._event.set()

    def kill(self, host: int = 0) -> None:
        """A machine dies without notice."""
        self._lost = True
        self.lives[-1][host].signal("SIGKILL")

    def stop(self, how: str) -> None:
        if self._stop_asked is None:
            self._stop_asked = how
            self.status = "Stopping"
            self._enter("Stopping", "Stopping the training job")
        self._event.set()

    def destroy(self) -> None:
        """The session ends."""
        self._destroyed = True
        self.stop("Stopped")
        for machine in self.lives[-1] if self.lives else []:
            machine.signal("SIGKILL")

    # the life of it

    def run(self) -> None:
        try:
            self._live()
        except Failed as failure:
            self._finish("Failed", "Failed", str(failure))
        except Exception as error:  # a fault of this harness must not look like the service's answer
            self._finish("Failed", "Failed", f"InternalServerError: the loopback cloud itself: {error!r}")
            if not self._destroyed:
                raise
        finally:
            for machine in [machine for life in self.lives for machine in life]:
                machine.remove()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _live(self) -> None:
        while True:
            self._wait_for_machines()
            if self._stop_asked:
                return self._finish("Stopped", self._stop_asked)
            started = time.time()
            self._begin = self._begin or started
            self._enter("Downloading", "Downloading input data")
            hosts = self._prepare()
            self._enter("Downloading", "Downloading the training image")
            self._start_machines(hosts)
            self._enter("Training", "Training image download completed. Training in progress.")
            ending = self._watch(hosts)
            self._save_checkpoints(hosts, last=True)
            self._billed += time.time() - started
            if ending != "interrupted":
                break
            self._enter("Interrupted", "Training job interrupted: spot capacity was reclaimed")
            self._reclaimed = False
            self._event.clear()
            self._enter("Starting", "Preparing the instances for training")
        if ending != "stopped":
            self._judge(hosts, ending)
        self._enter("Uploading", "Uploading generated training model")
        self._upload(hosts)
        if ending == "stopped":
            return self._finish("Stopped", self._stop_asked)
        return self._finish("Completed", "Completed")

    def _wait_for_machines(self) -> None:
        if self.cloud.troubles.capacity:
            raise Failed(NO_CAPACITY)
        self._event.wait(self.cloud.starting_seconds)
        self._enter("Starting", "Preparing the instances for training")

    def _prepare(self) -> list[Path]:
        names = [f"algo-{number + 1}" for number in range(self.machines)]
        hosts = []
        for name in names:
            root = self._folder / f"{len(self.lives)}-{name}" / "ml"
            for part in ("input/config", "input/data", "model", "output/data", "checkpoints"):
                (root / part).mkdir(parents=True)
            self._configure(root / "input" / "config", name, names)
            for channel in self.request.get("InputDataConfig", []):
                source = channel["DataSource"]["S3DataSource"]
                found = self._bucket(source["S3Uri"]).fetch(root / "input" / "data" / channel["ChannelName"])
                if not found:
                    raise Failed(f"ClientError: Data download failed:NoSuchKey (404): {source['S3Uri']}")
            if point := self.request.get("CheckpointConfig"):
                self._bucket(point["S3Uri"]).fetch(root / "checkpoints")
            hosts.append(root)
        return hosts

    def _configure(self, folder: Path, name: str, names: list[str]) -> None:
        resources = self.request["ResourceConfig"]
        group = {
            "instance_group_name": "homogeneousCluster",
            "instance_type": resources["InstanceType"],
            "hosts": names,
        }
        channels = {
            channel["ChannelName"]: SAGEMAKER.input_entry | {"TrainingInputMode": channel.get("InputMode", "File")}
            for channel in self.request.get("InputDataConfig", [])
        }
        machines = {
            "current_host": name,
            "current_instance_type": resources["InstanceType"],
            "hosts": names,
            "instance_groups": [group],
        }
        files = {
            SAGEMAKER.hyperparameters_file: self.request.get("HyperParameters", {}),
            SAGEMAKER.inputs_file: channels,
            SAGEMAKER.marker_file: SAGEMAKER.files[SAGEMAKER.marker_file] | machines,
        }
        for file, content in files.items():
            (folder / Path(file).name).write_text(json.dumps(content))

    def _start_machines(self, hosts: list[Path]) -> None:
        uri = self.request["AlgorithmSpecification"]["TrainingImage"]
        image = self.cloud.training.image(uri)
        self._as_role("ecr:GetAuthorizationToken", "*")
        for action in ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"):
            self._as_role(action, self.cloud.images.arn(uri))
        self.cloud.engine.images.pull(image)
        self.image = image
        key = secrets.token_hex(8)
        self.cloud.rights.add_key_of_role(f"ASIA{key.upper()}", self.request["RoleArn"])
        stamp = f"{time.time_ns() // 1_000_000}"
        life = []
        for root in hosts:
            name = root.parent.name.partition("-")[2]
            for action in (
                "logs:CreateLogGroup",
                "logs:DescribeLogStreams",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
            ):
                self._as_role(action, f"arn:aws:logs:{self.cloud.region}:{self.cloud.account}:log-group:{LOG_GROUP}:*")
            self._as_role("cloudwatch:PutMetricData", "*")
            stream = self.logs.open(f"{self.name}/{name}-{stamp}")
            mounts = {
                "/opt/ml": (root, "rw"),
                "/run/loopback/authority.pem": (self.cloud.authority.file, "ro"),
            }
            machine = Machine(
                self.cloud.engine,
                self.cloud.network,
                image,
                list(SAGEMAKER.argv),
                name=name,
                environment=self._environment(key),
                mounts=mounts,
                line=stream,
            )
            self.image_ids.add(machine.image_id)
            life.append(machine)
        self.lives.append(life)
        for machine in life:
            machine.start()

    def _environment(self, key: str) -> dict[str, str]:
        """What the service sets, the job's own variables, and the way to the loopback cloud."""
        return {
            **self.request.get("Environment", {}),
            **SAGEMAKER.environment,
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.arn,
            "AWS_REGION": self.cloud.region,
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": f"/credentials/{key}",
            "HTTPS_PROXY": f"http://{self.cloud.network.gateway}:{self.cloud.machine_proxy_port}",
            "NO_PROXY": f"{self.cloud.network.gateway},localhost,127.0.0.1",
            "AWS_CA_BUNDLE": "/run/loopback/authority.pem",
            "REQUESTS_CA_BUNDLE": "/run/loopback/authority.pem",
            "SSL_CERT_FILE": "/run/loopback/authority.pem",
            "OMP_NUM_THREADS": str(self.cloud.threads),
        }

    def _watch(self, hosts: list[Path]) -> str:
        """Until all machines have ended, or one has failed: ended, stopped or interrupted."""
        life = self.lives[-1]
        began = time.monotonic() - self._trained
        limit = self.request["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
        saved = time.monotonic()
        while True:
            codes = [machine.wait(0) for machine in life]
            self._trained = time.monotonic() - began
            if all(code is not None for code in codes) or any(codes):
                quit_all(life, self.cloud.grace_seconds)
                return "interrupted" if self._reclaimed else "stopped" if self._stop_asked else "ended"
            if self._trained >= limit:
                self.stop("MaxRuntimeExceeded")
            if self._stop_asked or self._reclaimed:
                quit_all(life, self.cloud.grace_seconds)
                return "stopped" if self._stop_asked else "interrupted"
            if time.monotonic() - saved > SYNC_SECONDS:
                self._save_checkpoints(hosts)
                saved = time.monotonic()
            self._event.wait(0.1)

    def _judge(self, hosts: list[Path], ending: str) -> None:
        if self._lost:
            raise Failed(MACHINE_LOST)
        for root, machine in zip(hosts, self.lives[-1], strict=True):
            code = machine.wait(0)
            if code:
                told = root / "output" / "failure"
                text = told.read_text(errors="replace")[:1024] if told.exists() else ""
                raise Failed(f"AlgorithmError: {text}, exit code: {code}")

    def _save_checkpoints(self, hosts: list[Path], last: bool = False) -> None:
        if point := self.request.get("CheckpointConfig"):
            for root in hosts:
                self._bucket(point["S3Uri"]).mirror(root / "checkpoints", delete=len(hosts) == 1)

    def _upload(self, hosts: list[Path]) -> None:
        base = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        for part, name in (("model", "model.tar.gz"), ("output/data", "output.tar.gz")):
            if not any(path.is_file() for root in hosts for path in (root / part).rglob("*")):
                continue
            archive = self._folder / name
            with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
                added: set[str] = set()
                for root in hosts:
                    for path in sorted((root / part).rglob("*")):
                        inner = str(path.relative_to(root / part))
                        if inner not in added:
                            added.add(inner)
                            tar.add(path, inner, recursive=False)
            self._bucket(f"{base}/{name}").put(archive)
            if part == "model":
                self._artifact = f"{base}/{name}"

    def _bucket(self, uri: str) -> Bucket:
        return Bucket(self.cloud.s3, *split_uri(uri), self._as_role)

    def _as_role(self, action: str, resource: str) -> None:
        """What the service does for a job it does as the job's role."""
        role = self.request["RoleArn"]
        self.cloud.role_used.add((role, action))
        if not self.cloud.rights.role_allows(role, action, resource):
            raise Failed(f"ClientError: AccessDenied: {role} is not authorized to perform {action} on {resource}")

    def _enter(self, secondary: str, message: str) -> None:
        now = time.time()
        if self.transitions:
            self.transitions[-1]["EndTime"] = now
        self.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
        self.secondary = secondary

    def _finish(self, status: str, secondary: str, failure: str = "") -> None:
        self.logs.close()
        self._enter(secondary, failure or f"Training job {status.lower()}")
        self.failure = failure
        self._end = time.time()
        self.status = status  # last: who sees the end sees all of it

    def description(self) -> dict:
        """DescribeTrainingJob."""
        keys = (
            "AlgorithmSpecification RoleArn InputDataConfig OutputDataConfig ResourceConfig VpcConfig "
            "StoppingCondition CheckpointConfig Environment HyperParameters RetryStrategy"
        ).split()
        flags = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")
        told = {key: self.request[key] for key in keys if key in self.request}
        told |= {flag: self.request.get(flag, False) for flag in flags}
        told |= {
            "TrainingJobName": self.name,
            "TrainingJobArn": self.arn,
            "TrainingJobStatus": self.status,
            "SecondaryStatus": self.secondary,
            "CreationTime": self.created,
            "LastModifiedTime": self.transitions[-1]["StartTime"],
            "SecondaryStatusTransitions": self.transitions,
        }
        if self.failure:
            told["FailureReason"] = self.failure
        if self._artifact:
            told["ModelArtifacts"] = {"S3ModelArtifacts": self._artifact}
        if self._begin:
            told["TrainingStartTime"] = self._begin
        if self._end and self._begin:
            told["TrainingEndTime"] = self._end
            told["TrainingTimeInSeconds"] = max(1, round(self._end - self._begin))
            told["BillableTimeInSeconds"] = max(1, round(self._billed))
        told["FinalMetricDataList"] = [
            {"MetricName": name, "Value": value, "Timestamp": when} for name, (value, when) in self.metrics.items()
        ]
        return told
