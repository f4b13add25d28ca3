"""One job, really run: the image by its digest, in containers with Azure ML's mounts, environment and log files."""

import re
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from azure.core.exceptions import ResourceNotFoundError

from tests.clouds.azure.answers import timespan
from tests.clouds.azure.mounts import Mount
from tests.clouds.containers import Machine, quit_all
from training_image.contracts import AZUREML

ENDS = ("Completed", "Failed", "Canceled")
NO_CAPACITY = ("AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size.")
CODE = "/mnt/azureml/cr/j/9f3c1e/exe/wd"
"""Where a job's code asset lies, and its command starts."""
MACHINE_LOST = ("AzureMLCompute job failed", "The node on which the job ran is lost.")


class Failed(Exception):
    """The job fails: code and message of its error."""


class Job(threading.Thread):
    def __init__(self, cloud, name: str, body: dict) -> None:
        super().__init__(name=name, daemon=True)
        self.cloud, self.body = cloud, body
        self.tags = dict(body.get("tags", {}))
        self.created = time.time()
        self.status = "NotStarted"
        self.error: tuple[str, str] | None = None
        self.family, self.cores = self._size()
        self.lives: list[list[Machine]] = []
        """The containers of each life; a preemption ends one."""
        self.image_ids: set[str] = set()
        self.metrics: dict[str, list[dict]] = {}
        """What was logged to the run by MLflow, by key."""
        self.active = 0.0
        self.token = cloud.history.run_token(name)
        self.files: dict[str, bytearray] = {}
        self._began = self._ended_at = None
        self._asked = self._preempted = self._lost = False
        self._event, self._lock = threading.Event(), threading.Lock()
        self._folder = Path(cloud.folder) / "jobs" / name

    def _size(self) -> tuple[str, int]:
        if self.body.get("computeId"):
            return "", 0
        spot = self.body.get("queueSettings", {}).get("jobTier") == "Spot"
        family, cores = self.cloud.quotas.of(self.body["resources"]["instanceType"], spot)
        return family, cores * self.machines

    @property
    def machines(self) -> int:
        return self.body["resources"]["instanceCount"]

    @property
    def ended(self) -> bool:
        return self.status in ENDS

    def running(self) -> int:
        return sum(machine.running() for machine in (self.lives[-1] if self.lives else []))

    # what a test or a user may do to it

    def preempt(self) -> None:
        """The low-priority machines are taken away: no signal, no grace. The service queues the job again."""
        self._preempted = True
        for machine in self.lives[-1]:
            machine.signal("SIGKILL")

    def kill(self, host: int = 0) -> None:
        """A machine dies for good."""
        self._lost = True
        self.lives[-1][host].signal("SIGKILL")

    def cancel(self) -> None:
        if not self.ended:
            self.status = "CancelRequested"
            self._asked = True
            self._event.set()

    def destroy(self) -> None:
        """The session ends."""
        self.cancel()
        for machine in self.lives[-1] if self.lives else []:
            machine.signal("SIGKILL")

    # the life of it

    def run(self) -> None:
        try:
            self._live()
        except Failed as failure:
            self._end("Failed", failure.args)
        except Exception as error:  # a fault of this harness must not look like the service's answer
            self._end("Failed", ("ServiceError", f"the loopback cloud itself: {error!r}"))
            raise
        finally:
            for machine in [machine for life in self.lives for machine in life]:
                machine.remove()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _live(self) -> None:
        self._enter("Preparing")
        image = self.cloud.arm.image_of(self.body["environmentId"])
        while True:
            self._enter("Queued")
            self._event.wait(self.cloud.starting_seconds)
            if self.cloud.troubles.capacity:
                raise Failed(*NO_CAPACITY)
            if self._asked:
                return self._end("Canceled")
            mounts = self._mount()
            self._start(image, mounts)
            self._enter("Running")
            how = self._watch(mounts)
            for mount in mounts.values():
                mount.flush()
            if how != "preempted":
                break
            self._preempted = False
        if how == "canceled":
            return self._end("Canceled")
        self._judge()
        self._enter("Finalizing")
        return self._end("Completed")

    def _enter(self, status: str) -> None:
        if not self._asked:
            self.status = status

    def _mount(self) -> dict[str, Mount]:
        """By their names in the command (``inputs.data``); a folder of all machines is one mount."""
        found = {}
        for kind, pattern in (("inputs", AZUREML.inputs), ("outputs", AZUREML.outputs)):
            for name, told in self.body.get(kind, {}).items():
                folder = self._folder / f"{len(self.lives)}-{kind}-{name}"
                container, path = self.cloud.path(told["uri"])
                mount = Mount(container, path, folder, pattern.format(name=name), writable=kind == "outputs")
                if not mount.fill() and kind == "inputs":
                    message = f"Error Code: ScriptExecution.StreamAccess.NotFound: {told['uri']}"
                    raise Failed("UserError", message)
                found[f"{kind}.{name}"] = mount
        return found

    def _start(self, image: str, mounts: dict[str, Mount]) -> None:
        self.cloud.engine.images.pull(image)
        line = re.sub(r"\$\{\{(.+?)\}\}", lambda each: mounts[each[1]].target, self.body["command"])
        key = self.cloud.identity_key(self.body.get("identity"))
        names = [f"{self.name}-{len(self.lives)}-{node}" for node in range(self.machines)]
        binds = {mount.target: (mount.folder, "rw" if mount.writable else "ro") for mount in mounts.values()}
        if code := self.body.get("codeId"):
            folder = self._folder / f"{len(self.lives)}-code"
            self.cloud.codes.load(code, folder)
            binds[CODE] = (folder, "rw")
        life = []
        for node, host in enumerate(names):
            several = self.body.get("distribution") is not None
            log = f"user_logs/std_log{f'_process_{node}' if several else ''}.txt"
            with self._lock:
                self.files[log] = bytearray()  # a start has a file of its own under the same name
            machine = Machine(
                self.cloud.engine,
                self.cloud.network,
                image,
                [line],
                entrypoint=list(AZUREML.line_shell),
                name=host,
                environment=self._environment(key) | (self._distributed(node, names) if several else {}),
                working_dir=CODE if code else None,
                mounts=binds | {"/run/loopback/authority.pem": (self.cloud.authority.file, "ro")},
                line=lambda _, text, log=log: self._print(log, text),
            )
            self.image_ids.add(machine.image_id)
            life.append(machine)
        self.lives.append(life)
        self._write_logs(anew=True)
        for machine in life:
            machine.start()

    def _distributed(self, node: int, names: list[str]) -> dict[str, str]:
        """What the PyTorch distribution sets, of one process on each machine."""
        return {
            "MASTER_ADDR": names[0],
            "MASTER_PORT": "6105",
            "WORLD_SIZE": str(len(names)),
            "NODE_RANK": str(node),
            "RANK": str(node),
            "LOCAL_RANK": "0",
        }

    def _environment(self, key: str | None) -> dict[str, str]:
        """What the service sets, the job's own variables, and the way to the loopback cloud."""
        here = self.cloud
        told = {
            **AZUREML.environment,
            "AZUREML_RUN_ID": self.name,
            "AZUREML_ROOT_RUN_ID": self.name,
            "AZUREML_ARM_SUBSCRIPTION": here.subscription,
            "AZUREML_ARM_RESOURCEGROUP": here.group,
            "AZUREML_ARM_WORKSPACE_NAME": here.workspace,
            "AZUREML_ARM_PROJECT_NAME": self.body["experimentName"],
            "MLFLOW_EXPERIMENT_NAME": self.body["experimentName"],
            "MLFLOW_RUN_ID": self.name,
            "MLFLOW_TRACKING_URI": here.history.tracking,
            "MLFLOW_TRACKING_TOKEN": self.token,
            "AZUREML_RUN_TOKEN": self.token,
        }
        managed = {"MSI_ENDPOINT": here.msi, "MSI_SECRET": key, "DEFAULT_IDENTITY_CLIENT_ID": here.identity}
        return {
            **told,
            **(managed if key else {}),
            **self.body.get("environmentVariables", {}),
            "HTTPS_PROXY": f"http://{here.network.gateway}:{here.machine_proxy_port}",
            "NO_PROXY": f"{here.network.gateway},localhost,127.0.0.1",
            "REQUESTS_CA_BUNDLE": "/run/loopback/authority.pem",
            "SSL_CERT_FILE": "/run/loopback/authority.pem",
            "OMP_NUM_THREADS": str(here.threads),
        }

    def _watch(self, mounts: dict[str, Mount]) -> str:
        """Until all machines have ended, or one has failed: ended, canceled or preempted."""
        life, began, before = self.lives[-1], time.monotonic(), self.active
        self._began = self._began or time.time()
        limit = self.cloud.seconds_of(self.body)
        while True:
            codes = [machine.wait(0) for machine in life]
            self.active = before + time.monotonic() - began
            self._write_logs()
            for mount in mounts.values():
                mount.flush()
            if all(code is not None for code in codes) or any(codes):
                quit_all(life, self.cloud.grace_seconds)
                how = "preempted" if self._preempted else "canceled" if self._asked else "ended"
                self._write_logs()
                return how
            if limit is not None and self.active >= limit:
                self.cancel()
            if self._asked:
                quit_all(life, self.cloud.grace_seconds)
                self.active = before + time.monotonic() - began
                self._write_logs()
                return "canceled"
            self._event.wait(0.2)

    def _judge(self) -> None:
        if self._lost:
            raise Failed(*MACHINE_LOST)
        for machine, log in zip(self.lives[-1], sorted(self.files), strict=True):
            code = machine.wait(0)
            if code:
                last = bytes(self.files[log]).decode(errors="replace").strip().rpartition("error: ")[2][:500]
                raise Failed(
                    "UserError",
                    f"Execution failed. User process '/opt/venv/bin/python' exited with status code {code}. Please"
                    f" check log file '{log}' for error details. Error: {last}",
                )

    def _end(self, status: str, error: tuple | None = None) -> None:
        self.error = error
        self._ended_at = time.time()
        self.status = status  # last: who sees the end sees all of it

    # its log files

    def _print(self, log: str, text: str) -> None:
        with self._lock:
            self.files[log] += text.encode() + b"\n"

    def _write_logs(self, anew: bool = False) -> None:
        """Append what is new to the blobs; a new start replaces the file of the one before."""
        with self._lock:
            now = {log: bytes(content) for log, content in self.files.items()}
        for log, content in now.items():
            blob = self.cloud.storage.logs.get_blob_client(self.log_blob(log))
            if anew:
                if len(self.lives) > 1:
                    time.sleep(1.1)  # a blob's age is told in seconds
                blob.create_append_blob()
            size = blob.get_blob_properties().size
            if len(content) > size:
                blob.append_block(content[size:])

    def log_blob(self, log: str) -> str:
        return f"ExperimentRun/dcid.{self.name}/{log}"

    # what is told of it

    def content(self) -> dict:
        """The resource of it."""
        place = f"{self.cloud.scope}/jobs/{self.name}"
        studio = f"https://ml.azure.com/runs/{self.name}?wsid={self.cloud.scope}"
        services = {
            "Tracking": {"endpoint": f"{self.cloud.history.tracking}?", "jobServiceType": "Tracking"},
            "Studio": {"endpoint": studio, "jobServiceType": "Studio"},
        }
        told = self.body | {"tags": self.tags, "status": self.status, "services": services}
        return {
            "id": place,
            "name": self.name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "systemData": {"createdAt": _when(self.created), "createdBy": "launcher", "createdByType": "User"},
            "properties": told,
        }

    def history(self, details: bool) -> dict:
        """What the run history tells."""
        told = {"runId": self.name, "status": self.status, "tags": self.tags, "properties": {}}
        if self._began:
            told["startTimeUtc"] = _when(self._began)
        if self._ended_at:
            told["endTimeUtc"] = _when(self._ended_at)
            told["computeDuration"] = timespan(self.active)
        if self.error:
            code, message = self.error
            told["error"] = {"error": {"code": code, "message": message}, "time": _when(self._ended_at)}
        if details:
            told["logFiles"] = {
                log: self.cloud.storage.signed("azureml", self.log_blob(log)) for log in self._written()
            }
        return told

    def _written(self) -> list[str]:
        found = []
        for log in sorted(self.files):
            try:
                self.cloud.storage.logs.get_blob_client(self.log_blob(log)).get_blob_properties()
            except ResourceNotFoundError:
                continue
            found.append(log)
        return found


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
