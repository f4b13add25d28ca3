"""One custom job, really run: the image that was pushed, in containers that have Vertex AI's contract."""

import datetime
import functools
import json
import re
import secrets
import threading
import time

from google.cloud.aiplatform_v1.types import CustomJob, JobState
from google.rpc import status_pb2

from tests.clouds.containers import Machine, quit_all
from training_image.contracts import VERTEX

IMAGE = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/]+/[^/]+/[^:@]+)(?::([\w.-]+))?(?:@(sha256:\w{64}))?")
TRANSIENT = VERTEX.retried_exit_codes
MOST_RETRIES, MOST_PREEMPTIONS = 3, 6
STOCKOUT = (
    "Resources are insufficient in region: {region}. Please try a different region or use a different accelerator."
)
AGENT = "service-{number}@gcp-sa-aiplatform-cc.iam.gserviceaccount.com"
"""Who a job runs as that names no service account."""
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 3, 4, 5
RESOURCE_EXHAUSTED, INTERNAL = 8, 13


class Failed(Exception):
    """The job fails with that google.rpc.Code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Job(threading.Thread):
    def __init__(self, cloud, request: CustomJob, resource: str, body: bytes) -> None:
        super().__init__(name=request.display_name, daemon=True)
        self.cloud, self.request, self.resource = cloud, request, resource
        self.body = json.loads(body)
        """The request as it came."""
        self.number = resource.rpartition("/")[2]
        self.created = time.time()
        self.state = JobState.JOB_STATE_PENDING
        self.error: tuple[int, str] | None = None
        self.image: str | None = None
        self.lives: list[list[Machine]] = []
        """The containers of each life; an interruption ends one."""
        self.image_ids: set[str] = set()
        self._event = threading.Event()
        self._cancelled = self._lost = self._reclaimed = self._destroyed = False
        self._began: float | None = None
        self._ended: float | None = None
        self._ran = 0.0
        """Seconds of all lives so far."""

    @property
    def account(self) -> str:
        return self.request.job_spec.service_account or AGENT.format(number=self.cloud.number)

    @property
    def retries(self) -> bool:
        return not self.request.job_spec.scheduling.disable_retries

    def running(self) -> int:
        return sum(machine.running() for machine in (self.lives[-1] if self.lives else []))

    # what a test may do to it

    def preempt(self) -> None:
        """The spot machines are taken away, without a notice that the container would hear."""
        self._reclaimed = True
        for machine in self.lives[-1]:
            machine.signal("SIGTERM" if VERTEX.interruption_notice else "SIGKILL")
        self._event.set()

    def kill(self, host: int = 0) -> None:
        """A machine dies without notice."""
        self._lost = True
        self.lives[-1][host].signal("SIGKILL")

    def cancel(self) -> None:
        self._cancelled = True
        self.state = JobState.JOB_STATE_CANCELLING
        self._event.set()

    def destroy(self) -> None:
        """The session ends."""
        self._destroyed = True
        self._event.set()
        for machine in self.lives[-1] if self.lives else []:
            machine.signal("SIGKILL")

    # the life of it

    def run(self) -> None:
        try:
            self._live()
        except Failed as failure:
            self._finish(JobState.JOB_STATE_FAILED, failure.code, str(failure))
        except Exception as error:  # a fault of this harness must not look like the service's answer
            self._finish(JobState.JOB_STATE_FAILED, INTERNAL, f"the loopback cloud itself: {error!r}")
            if not self._destroyed:
                raise
        finally:
            for machine in [machine for life in self.lives for machine in life]:
                machine.remove()

    def _live(self) -> None:
        retries = preemptions = 0
        self._say("Waiting for job to be provisioned.")
        while True:
            if self.cloud.troubles.capacity:
                raise Failed(RESOURCE_EXHAUSTED, STOCKOUT.format(region=self.cloud.region))
            self._event.wait(self.cloud.starting_seconds)
            if self._cancelled or self._destroyed:
                return self._finish(JobState.JOB_STATE_CANCELLED, CANCELLED, "The job was cancelled.")
            self._start_machines()
            self._enter(JobState.JOB_STATE_RUNNING)
            self._began = self._began or time.time()
            ending = self._watch()
            self.cloud.buckets.sync()
            if ending == "cancelled":
                return self._finish(JobState.JOB_STATE_CANCELLED, CANCELLED, "The job was cancelled.")
            if ending == "done":
                self._say("Job completed successfully.")
                return self._finish(JobState.JOB_STATE_SUCCEEDED)
            if ending == "timeout":
                raise Failed(DEADLINE_EXCEEDED, "The job timed out: it ran longer than scheduling.timeout.")
            preempted, transient = ending == "reclaimed", ending in ("lost", "transient")
            if preempted and self.retries and preemptions < MOST_PREEMPTIONS:
                preemptions += 1
            elif transient and self.retries and retries < MOST_RETRIES:
                retries += 1
            else:
                raise self._failure(ending)
            self._say("The job is restarted.")
            self._enter(JobState.JOB_STATE_PENDING)
            self._lost = self._reclaimed = False
            self._event.clear()

    def _start_machines(self) -> None:
        pools = self.request.job_spec.worker_pool_specs
        self.image = self._image(pools[0].container_spec.image_uri)
        self.cloud.engine.images.pull(self.image)
        stamp = secrets.token_hex(5)
        hosts = {
            f"workerpool{pool}": [
                f"cmle-training-workerpool{pool}-{stamp}-{index}" for index in range(spec.replica_count)
            ]
            for pool, spec in enumerate(pools)
        }
        way = machine_environment(self.cloud, self.account)
        life = []
        for pool, spec in enumerate(pools):
            container = spec.container_spec
            for index, host in enumerate(hosts[f"workerpool{pool}"]):
                cluster = {
                    "cluster": {name: [f"{each}:2222" for each in names] for name, names in hosts.items()},
                    "environment": "cloud",
                    "task": {"type": f"workerpool{pool}", "index": index},
                }
                task = f"workerpool{pool}-{index}"
                machine = Machine(
                    self.cloud.engine,
                    self.cloud.network,
                    self.image,
                    list(container.args),
                    name=host,
                    environment=self._environment(container) | way | {"CLUSTER_SPEC": json.dumps(cluster)},
                    mounts={
                        "/gcs": (self.cloud.buckets.folder, "rw"),
                        "/run/loopback/authority.pem": (self.cloud.authority.file, "ro"),
                    },
                    line=lambda _, line, task=task: self.cloud.logs.write(self.number, task, line),
                )
                self.image_ids.add(machine.image_id)
                life.append(machine)
        self.lives.append(life)
        for machine in life:
            machine.start()

    def _image(self, uri: str) -> str:
        """The local registry's name of the image, by digest."""
        match = IMAGE.fullmatch(uri)
        digest = match and self.cloud.front.digest(match[2], match[4] or match[3] or "latest")
        if digest is None:
            raise Failed(NOT_FOUND, f'Image "{uri}" not found, or its pull is not permitted.')
        self.cloud.used.add((self.account, "artifactregistry.repositories.downloadArtifacts"))
        return f"{self.cloud.front.local(match[2])}@{digest}"

    def _environment(self, container) -> dict[str, str]:
        """What the service sets, and the job's own variables."""
        place = self.request.job_spec.base_output_directory.output_uri_prefix.rstrip("/")
        return {
            **VERTEX.environment,
            **{each.name: each.value for each in container.env},
            "CLOUD_ML_JOB_ID": self.number,
            "CLOUD_ML_PROJECT_ID": self.cloud.number,
            "CLOUD_ML_REGION": self.cloud.region,
            "AIP_MODEL_DIR": f"{place}/model/",
            "AIP_CHECKPOINT_DIR": f"{place}/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": f"{place}/logs/",
        }

    def _watch(self) -> str:
        """Until the first machine has ended, or any has failed: how this life ended."""
        life, began, before = self.lives[-1], time.monotonic(), self._ran
        limit = self.request.job_spec.scheduling.timeout
        while True:
            codes = [machine.wait(0) for machine in life]
            self._ran = before + time.monotonic() - began
            asked = "cancelled" if self._cancelled or self._destroyed else "reclaimed" if self._reclaimed else None
            if codes[0] is not None or any(codes):
                quit_all(life, self.cloud.grace_seconds)
                failed = [code for code in codes if code]
                if asked or not failed:
                    return asked or "done"
                return "lost" if self._lost else "transient" if failed[0] in TRANSIENT else "failed"
            if limit and self._ran >= limit.total_seconds():
                asked = "timeout"
            if asked:
                quit_all(life, self.cloud.grace_seconds)
                return asked
            self._event.wait(0.1)

    def _failure(self, ending: str) -> Failed:
        if ending == "reclaimed":
            return Failed(INTERNAL, "The job was preempted too often: the spot machines were taken away.")
        if ending == "lost":
            return Failed(INTERNAL, "Internal error occurred for the current attempt.")
        for machine in self.lives[-1]:
            code = machine.wait(0)
            if code:
                task = re.sub(r"cmle-training-(workerpool\d+)-\w+-(\d+)", r"\1-\2", machine.name)
                text = f"The replica {task} exited with a non-zero status of {code}."
                return Failed(
                    INVALID_ARGUMENT, f"{text} To find out more about why your job exited please check the logs."
                )
        raise AssertionError(ending)

    def _say(self, text: str) -> None:
        self.cloud.logs.write(self.number, "service", text)

    def _enter(self, state: JobState) -> None:
        if not self._cancelled:
            self.state = state

    def _finish(self, state: JobState, code: int = 0, message: str = "") -> None:
        if message:
            self._say(message)
        self.error = (code, message) if code else None
        self._ended = time.time()
        self.state = state  # last: who sees the end sees all of it

    def description(self) -> CustomJob:
        """GetCustomJob."""
        told = CustomJob(self.request)
        told.name, told.state = self.resource, self.state
        told.create_time = _moment(self.created)
        if self._began:
            told.start_time = _moment(self._began)
        if self._ended:
            told.end_time = _moment(self._ended)
        if self.error:
            told.error = status_pb2.Status(code=self.error[0], message=self.error[1])
        return told


def machine_environment(cloud, account: str) -> dict[str, str]:
    """The way from a machine to the loopback cloud, and whom it acts as there."""
    gateway = cloud.network.gateway
    metadata = functools.partial(cloud.tokens.metadata, account)
    port = cloud.gateway.listen_plain(gateway, 0, metadata)
    return {
        "GCE_METADATA_HOST": f"{gateway}:{port}",
        "GCE_METADATA_IP": f"{gateway}:{port}",
        "HTTPS_PROXY": f"http://{gateway}:{cloud.machine_proxy_port}",
        "NO_PROXY": f"{gateway},localhost,127.0.0.1",
        "REQUESTS_CA_BUNDLE": "/run/loopback/authority.pem",
        "SSL_CERT_FILE": "/run/loopback/authority.pem",
        "OMP_NUM_THREADS": str(cloud.threads),
    }


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
