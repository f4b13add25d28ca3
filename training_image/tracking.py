"""The curves, sent to what people look at them with: TensorBoard, MLflow, Weights & Biases, trackio.

Each by its own client, not by transformers' callbacks: those hang on transformers' Trainer and its state, which this
loop does not have. Where no server is named (MLFLOW_TRACKING_URI, WANDB_API_KEY, TRACKIO_SPACE_ID) a tracker writes
into the output, and the run can be opened or sent on from there. A tracker that fails is left out, and the job goes on.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from training_image.progress import emit, say
from training_image.spec import Spec

PROJECT = "ftlaunch"
"""Experiment or project that the runs are put under; the run's name is the job's."""
Line = Mapping[str, float]


class Sink(Protocol):
    """Where lines go."""

    link: str | None
    """Where the run can be looked at; None for one that lies in the output."""

    def log(self, values: dict[str, float], step: int, when: float) -> None:
        """Take the values of a step; ``when`` in Unix seconds."""

    def close(self) -> None:
        """Send or write what is left."""


class Trackers:
    """Sends each line of metrics.jsonl to all trackers of the job."""

    def __init__(self, output: Path, spec: Spec, settings: Mapping[str, Any], history: Iterable[Line]) -> None:
        """``history``: the lines of an earlier start, sent again: what lies in the output is begun anew, and a server
        passes over the steps that it has."""
        self._sinks: dict[str, Sink] = {}
        for name in _wanted(spec):
            self._try(name, lambda name=name: self._open(name, output, spec, settings))  # type: ignore[misc]
        self.links = {name: sink.link for name, sink in self._sinks.items() if sink.link}
        if self.links:
            emit("tracking", **self.links)
        for line in history:
            self.log(line)

    def log(self, line: Line) -> None:
        """Send one line's values at its step."""
        values = {name: value for name, value in line.items() if "/" in name}
        for name, sink in list(self._sinks.items()):
            self._try(name, lambda sink=sink: sink.log(values, int(line["step"]), line["time"]))  # type: ignore[misc]

    def close(self) -> None:
        """End the runs."""
        for name, sink in list(self._sinks.items()):
            self._try(name, sink.close)

    def _open(self, name: str, output: Path, spec: Spec, settings: Mapping[str, Any]) -> None:
        self._sinks[name] = _SINKS[name](output, spec, settings)

    def _try(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # each client has its own kinds; none is worth the job
            say(f"{name} is left out from here on: {type(error).__name__}: {_told(error)}")
            self._sinks.pop(name, None)


def _wanted(spec: Spec) -> list[str]:
    """As asked; where Azure ML names its own MLflow, `training_image.studio` sends the curves there already."""
    studio = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("azureml")
    return [name for name in spec.tracking.report_to if not (studio and name == "mlflow")]


def _told(error: Exception) -> str:
    """What an error says; MLflow's client puts the whole address into it, with the password."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    return str(error).replace(server, public_address(server) or "the server") if server else str(error)


def public_address(server: str) -> str | None:
    """An HTTP server's address as results may tell it, without name, password and query; None where in doubt."""
    try:
        parts = urlsplit(server)
    except ValueError:  # half of a bracket
        return None
    host = parts.netloc.rpartition("@")[2]
    # A password that is not encoded may hold a slash, and what is before it would be taken for the host.
    if parts.scheme not in ("http", "https") or not host or server.count("@") > parts.netloc.count("@"):
        return None
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


class TensorBoard:
    """Event files in ``tensorboard/``, and where the service reads them itself (Vertex's AIP_TENSORBOARD_LOG_DIR)."""

    link: str | None = None

    def __init__(self, output: Path, spec: Spec, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        own = os.environ.get("AIP_TENSORBOARD_LOG_DIR", "").replace("gs://", "/gcs/", 1)
        folders = [output / "tensorboard", *([Path(own)] if own else [])]
        for old in [path for folder in folders for path in folder.glob("events.*")]:
            old.unlink()  # its steps are sent again, and would stand there twice
        self._writers = [SummaryWriter(str(folder)) for folder in folders]

    def log(self, values: dict[str, float], step: int, when: float) -> None:
        """As scalars."""
        for writer in self._writers:
            for name, value in values.items():
                writer.add_scalar(name, value, step, when)

    def close(self) -> None:
        """Flush and close the files."""
        for writer in self._writers:
            writer.close()


class MLflow:
    """A run on the server of MLFLOW_TRACKING_URI, else in the folder ``mlflow/``; MLFLOW_RUN_ID names an open run."""

    def __init__(self, output: Path, spec: Spec, settings: Mapping[str, Any]) -> None:
        server = os.environ.get("MLFLOW_TRACKING_URI")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import, which tells its maker otherwise
        if not server:
            # The client without its database packages has this store only, and wants to be asked for it twice.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            shutil.rmtree(output / "mlflow", ignore_errors=True)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=server or (output / "mlflow").absolute().as_uri())
        self._run = os.environ.get("MLFLOW_RUN_ID") or self._found(spec.job)
        run = self._client.get_run(self._run).info
        for name, value in settings.items():
            self._client.log_param(self._run, name, value)
        if not server:
            # A fetched folder has no empty folders in it, and the client finds no run without one for artifacts.
            self._client.log_dict(self._run, dict(settings), "settings.json")
        self._logged: dict[str, int] = {}
        address = public_address(server or "")
        self.link = f"{address}/#/experiments/{run.experiment_id}/runs/{self._run}" if address else None

    def _found(self, job: str) -> str:
        """The job's run from an earlier start, else a new one."""
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        runs = self._client.search_runs([number], f"tags.`ftlaunch.job` = '{job}'", max_results=1)
        made = runs[0] if runs else self._client.create_run(number, run_name=job, tags={"ftlaunch.job": job})
        return str(made.info.run_id)

    def log(self, values: dict[str, float], step: int, when: float) -> None:
        """As metrics; steps that an earlier start sent are passed over."""
        for name, value in values.items():
            if name not in self._logged:
                known = self._client.get_metric_history(self._run, name)
                self._logged[name] = max((each.step for each in known), default=-1)
            if step > self._logged[name]:
                self._client.log_metric(self._run, name, value, timestamp=int(1000 * when), step=step)

    def close(self) -> None:
        """Mark the run as finished, where it is ours to end."""
        if "MLFLOW_RUN_ID" not in os.environ:
            self._client.set_terminated(self._run)


class WandB:
    """A run on the site where WANDB_API_KEY is given, else an offline folder ``wandb/`` for ``wandb sync``."""

    def __init__(self, output: Path, spec: Spec, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
        if not online:
            shutil.rmtree(output / "wandb", ignore_errors=True)
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=spec.job,
            name=spec.job,
            dir=str(output),
            mode="online" if online else "offline",
            resume="allow",
            config=dict(settings),
            settings=quiet,
        )
        self.link = self._run.url if online else None

    def log(self, values: dict[str, float], step: int, when: float) -> None:
        """As one row of the history; the client drops steps that the run has."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Send or write the rest. The client's own logs go: its service may write there when the output is long counted
        file by file, and they are links to the machine's cache."""
        folder = Path(self._run.dir).parent
        self._run.finish()
        shutil.rmtree(folder / "logs", ignore_errors=True)
        for path in folder.parent.iterdir():
            if path.is_symlink():
                path.unlink()


class Trackio:
    """A run in the Space of TRACKIO_SPACE_ID, else in the folder ``trackio/``."""

    def __init__(self, output: Path, spec: Spec, settings: Mapping[str, Any]) -> None:
        space = os.environ.get("TRACKIO_SPACE_ID")
        if not space:
            shutil.rmtree(output / "trackio", ignore_errors=True)
            os.environ["TRACKIO_DIR"] = str((output / "trackio").absolute())  # read when it is imported
        trackio: Any = importlib.import_module("trackio")
        # What the machine does stands in the service's own charts.
        self._run = trackio.init(
            project=PROJECT, name=spec.job, space_id=space, config=dict(settings), resume="allow", auto_log_cpu=False
        )
        self.link = f"https://huggingface.co/spaces/{space}" if space else None

    def log(self, values: dict[str, float], step: int, when: float) -> None:
        """As one row."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Send or write the rest."""
        self._run.finish()


_SINKS: dict[str, Callable[[Path, Spec, Mapping[str, Any]], Sink]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": Trackio,
}
