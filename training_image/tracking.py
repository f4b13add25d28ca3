"""The curves, sent to what people look at them with: TensorBoard, MLflow, Weights & Biases, trackio.

By transformers' own reporters, so that the charts have the names that its users know. They hang on its Trainer and its
arguments, which this loop has not: they are told of the run by `Settings`, and of a step by a state of theirs. Where no
server is named (MLFLOW_TRACKING_URI, WANDB_API_KEY, TRACKIO_SPACE_ID) a tracker writes into the output, and the run can
be opened or sent on from there. A tracker that fails is left out, and the job goes on.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from training_image.progress import emit, say
from training_image.spec import Spec

PROJECT = "ftlaunch"
"""Experiment or project that the runs are put under; the run's name is the job's."""
JOB_TAG = "ftlaunch.job"
"""By which a job's run is found again on an MLflow server."""
Line = Mapping[str, float]


class Settings:
    """What the reporters read of transformers' TrainingArguments. Of those the run would have a hundred that this loop
    never looks at; it has the job's own instead."""

    trackio_bucket_id = None
    trackio_static_space_id = False
    """No copy of a Space is made when the run ends."""
    hub_private_repo = None

    def __init__(self, job: str, output: Path, values: Mapping[str, Any], sent: int) -> None:
        """``sent``: the last step of an earlier start, -1 for a first one."""
        self.run_name, self.project, self.output_dir, self.sent = job, PROJECT, str(output), sent
        self.trackio_space_id = os.environ.get("TRACKIO_SPACE_ID") or None
        self._values = dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The job's settings, as they are listed beside a run."""
        return dict(self._values)

    def to_json_string(self) -> str:
        """The same as text."""
        return json.dumps(self._values, indent=2)


class Sink(ABC):
    """One tracker: where its run is, and one of transformers' reporters that fills it."""

    link: str | None = None
    """Where the run can be looked at; None for one that lies in the output."""
    sent: int = -1
    """Last step that a server has of an earlier start; what lies in the output is begun anew."""
    prefixes: Mapping[str, str] = {"train/": "", "validation/": "eval_"}
    """Our beginnings of names, and what the reporter writes as ``train/`` and ``eval/``."""

    def __init__(self, settings: Settings) -> None:
        from transformers.trainer_callback import TrainerControl, TrainerState

        self._told: tuple[Any, ...] = (settings, TrainerState(), TrainerControl())
        self._reporters = self.open(settings)
        for reporter in self._reporters:
            reporter.on_train_begin(*self._told)

    @abstractmethod
    def open(self, settings: Settings) -> list[Any]:
        """Begin the run; gives its reporters. Raises what the client raises."""

    def is_known(self, name: str, step: int) -> bool:
        """Whether a server has this value from an earlier start."""
        return step <= self.sent

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the values of a step."""
        self._told[1].global_step = step
        new = {self._name(name): value for name, value in values.items() if not self.is_known(name, step)}
        for reporter in self._reporters if new else ():
            reporter.on_log(*self._told, logs=new)

    def close(self) -> None:
        """Send or write what is left."""
        for reporter in self._reporters:
            reporter.on_train_end(*self._told)

    def _name(self, name: str) -> str:
        start, slash, rest = name.partition("/")
        return self.prefixes.get(start + slash, start + slash) + rest


class Trackers:
    """Sends each line of metrics.jsonl to all trackers of the job."""

    def __init__(self, output: Path, spec: Spec, settings: Mapping[str, Any], history: Iterable[Line]) -> None:
        """``history``: the lines of an earlier start, sent again to what lies in the output; a server has them."""
        history = list(history)
        told = Settings(spec.job, output, settings, sent=max((int(line["step"]) for line in history), default=-1))
        self._sinks: dict[str, Sink] = {}
        for name in _wanted(spec):
            self._try(name, lambda name=name: self._open(name, told))  # type: ignore[misc]
        self.links = {name: sink.link for name, sink in self._sinks.items() if sink.link}
        if self.links:
            emit("tracking", **self.links)
        for line in history:
            self.log(line)

    def log(self, line: Line) -> None:
        """Send one line's values at its step."""
        values = {name: value for name, value in line.items() if "/" in name}
        for name, sink in list(self._sinks.items()):
            self._try(name, lambda sink=sink: sink.log(values, int(line["step"])))  # type: ignore[misc]

    def close(self) -> None:
        """End the runs."""
        for name, sink in list(self._sinks.items()):
            self._try(name, sink.close)

    def _open(self, name: str, settings: Settings) -> None:
        self._sinks[name] = _SINKS[name](settings)

    def _try(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # each client has its own kinds; none is worth the job
            say(f"{name} is left out from here on: {type(error).__name__}: {_told(error)}")
            self._sinks.pop(name, None)


def _reporter(name: str) -> Any:
    """Imported late: each one's module is there, its client may not be."""
    return getattr(importlib.import_module("transformers.integrations"), name)


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


class TensorBoard(Sink):
    """Event files in ``tensorboard/``, and where the service reads them itself (Vertex's AIP_TENSORBOARD_LOG_DIR)."""

    def open(self, settings: Settings) -> list[Any]:
        """A reporter for each of the two folders."""
        from torch.utils.tensorboard import SummaryWriter

        own = os.environ.get("AIP_TENSORBOARD_LOG_DIR", "").replace("gs://", "/gcs/", 1)
        folders = [Path(settings.output_dir) / "tensorboard", *([Path(own)] if own else [])]
        for old in [path for folder in folders for path in folder.glob("events.*")]:
            old.unlink()  # its steps are sent again, and would stand there twice
        return [_reporter("TensorBoardCallback")(SummaryWriter(str(folder))) for folder in folders]


class MLflow(Sink):
    """A run on the server of MLFLOW_TRACKING_URI, else in the folder ``mlflow/``; MLFLOW_RUN_ID names an open run."""

    prefixes: Mapping[str, str] = {}

    def __init__(self, settings: Settings) -> None:
        server = os.environ.get("MLFLOW_TRACKING_URI", "")  # the client puts its folder there
        super().__init__(settings)
        import mlflow

        # Else its threads write into one file of the folder at once, and lose lines; and no error would be told.
        self._reporters[0]._async_log = False
        active: Any = mlflow.active_run()
        run = active.info
        self._client, self._run = mlflow.MlflowClient(), run.run_id
        self._known: dict[str, int] = {}
        if not server:
            # A fetched folder has no empty folders in it, and the client finds no run without one for artifacts.
            mlflow.log_dict(settings.to_dict(), "settings.json")
        address = public_address(server)
        self.link = f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}" if address else None

    def open(self, settings: Settings) -> list[Any]:
        """Told by variables, as the reporter asks for it, which run to go on with or how a new one is marked."""
        server = os.environ.get("MLFLOW_TRACKING_URI")
        folder = Path(settings.output_dir).absolute() / "mlflow"
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import, which tells its maker otherwise
        if not server:
            # The client without its database packages has this store only, and wants to be asked for it twice.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            shutil.rmtree(folder, ignore_errors=True)
        import mlflow

        mlflow.set_tracking_uri(server or folder.as_uri())
        if "MLFLOW_RUN_ID" not in os.environ:
            experiment = os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", PROJECT)
            if run := _earlier_run(mlflow.MlflowClient(), experiment, settings.run_name):
                os.environ["MLFLOW_RUN_ID"] = run
            tags = json.loads(os.environ.get("MLFLOW_TAGS") or "{}")
            os.environ["MLFLOW_TAGS"] = json.dumps(tags | {JOB_TAG: settings.run_name})
        return [_reporter("MLflowCallback")()]

    def is_known(self, name: str, step: int) -> bool:
        """Asked of the run once for each name."""
        if name not in self._known:
            history = self._client.get_metric_history(self._run, name)
            self._known[name] = max((each.step for each in history), default=-1)
        return step <= self._known[name]


def _earlier_run(client: Any, experiment: str, job: str) -> str | None:
    """The job's run from an earlier start."""
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.`{JOB_TAG}` = '{job}'", max_results=1) if found else []
    return str(runs[0].info.run_id) if runs else None


class WandB(Sink):
    """A run on the site where WANDB_API_KEY is given, else an offline folder ``wandb/`` for ``wandb sync``."""

    def open(self, settings: Settings) -> list[Any]:
        """Begun here, where its name stays the same over all starts; the reporter takes the run that is there."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
        if not online:
            shutil.rmtree(Path(settings.output_dir) / "wandb", ignore_errors=True)
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=settings.run_name,
            name=settings.run_name,
            dir=settings.output_dir,
            mode="online" if online else "offline",
            resume="allow",
            settings=quiet,
        )
        summary: Any = self._run.summary
        self.sent = int(summary.get("train/global_step") or -1) if online else -1
        self.link = self._run.url if online else None
        return [_reporter("WandbCallback")()]

    def close(self) -> None:
        """Send or write the rest. The client's own logs go: its service may write there when the output is long counted
        file by file, and they are links to the machine's cache."""
        folder = Path(self._run.dir).parent
        self._run.finish()
        shutil.rmtree(folder / "logs", ignore_errors=True)
        for path in folder.parent.iterdir():
            if path.is_symlink():
                path.unlink()


class Trackio(Sink):
    """A run in the Space of TRACKIO_SPACE_ID, else in the folder ``trackio/``."""

    def open(self, settings: Settings) -> list[Any]:
        """The reporter begins the run itself."""
        folder, space = Path(settings.output_dir).absolute() / "trackio", settings.trackio_space_id
        if not space:
            shutil.rmtree(folder, ignore_errors=True)
            os.environ["TRACKIO_DIR"] = str(folder)  # read when it is imported
        self.link = f"https://huggingface.co/spaces/{space}" if space else None
        self.sent = settings.sent if space else -1  # a Space is not asked
        return [_reporter("TrackioCallback")()]


_SINKS: dict[str, Callable[[Settings], Sink]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": Trackio,
}
