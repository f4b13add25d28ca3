"""The curves in Azure ML's studio: logged to the job's own run at the workspace's MLflow.

Azure ML gives each job the address of its MLflow, the run's name and a token; azureml-mlflow, the plug-in of MLflow's
client for such addresses, renews the token. The studio is for people to look at: where it is slow no step waits for it,
and a line that cannot be sent is said once and lost there, and stands in metrics.jsonl all the same.

MLflow's own asynchronous logging (``synchronous=False``) is not taken: after a line that failed it goes on with the
next, and waits at the end without a limit, so that a server that hangs would hold the machine for hours.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from training_image.platform import Platform
from training_image.progress import say

MOST = 1000
"""Metrics that MLflow takes in one call."""
CLIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""With these a server that hangs is given up after some two minutes, which bounds what waits to be sent."""
LAST_SECONDS = 10.0
"""How long the job's end waits for what is still to be sent; less than any grace after SIGTERM."""


class Studio:
    """Sends metrics where there is a studio, and is silent elsewhere; one call at a time, beside the training."""

    def __init__(self, platform: Platform) -> None:
        """Nothing is asked before the first line."""
        there = platform.name == "azureml" and platform.main and "MLFLOW_TRACKING_URI" in os.environ
        self._run = os.environ.get("MLFLOW_RUN_ID") if there else None
        self._client: Any = None
        self._waiting: list[tuple[str, float, int, int]] = []
        """Name, value, time in milliseconds and step of what is still to be sent."""
        self._sender: threading.Thread | None = None
        self._error: Exception | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send one line's values at its step, with the next call that is made."""
        if self._run is None:
            return
        now = int(time.time() * 1000)
        self._waiting += [(name, float(value), now, step) for name, value in values.items()]
        self._go_on()

    def close(self) -> None:
        """Send what is left, as far as the server takes it in `LAST_SECONDS`."""
        deadline = time.monotonic() + LAST_SECONDS
        while self._run is not None and (self._sender is not None or self._waiting):
            if self._sender is not None:
                self._sender.join(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                say(f"the studio did not take the last metrics within {LAST_SECONDS:.0f} s")
                return
            self._go_on()

    def _go_on(self) -> None:
        """Begin the next call, unless one is under way; give the studio up after one that failed."""
        if self._sender is not None and self._sender.is_alive():
            return
        self._sender = None
        if self._error is not None:
            say(f"the studio does not take the metrics: {type(self._error).__name__}: {self._error}")
            self._run = None
        elif self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._sender = threading.Thread(target=self._send, args=(batch,), daemon=True)  # holds no process up
            self._sender.start()

    def _send(self, batch: list[tuple[str, float, int, int]]) -> None:
        try:
            client = self._connected()
            from mlflow.entities import Metric

            client.log_batch(self._run, metrics=[Metric(*each) for each in batch])
        except Exception as error:  # whatever a plug-in of the vendor's raises: no training ends because of a picture
            self._error = error

    def _connected(self) -> Any:
        if self._client is None:
            for name, value in CLIENT.items():  # before the import, which tells its maker otherwise
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient

            for name in ("mlflow", "azureml", "azure"):
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client = MlflowClient()
        return self._client
