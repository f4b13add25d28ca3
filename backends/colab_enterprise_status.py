"""What Colab Enterprise and the notebook itself say of an execution, in our words."""

from __future__ import annotations

import json
from typing import Any

from backends import vertex_status
from backends.cloud_status import exit_reason
from backends.google_storage import Store
from backends.interface import Json, Reason, State, Status
from backends.last_words import last_words
from training_image.errors import STOPPED

STOP, END, LOG = "stop", "end.json", "log.txt"
"""In the job's folder: the launcher's wish, the notebook's last word, the training's output."""


def told(job: Any, place: Store) -> Status:
    """The status of a NotebookExecutionJob.

    The service knows of a failed notebook only that a cell of it failed, and whatever made it end. What the training
    said goes before that: a stop by the user's wish is no failure, an exit code names its reason.
    """
    status = vertex_status.status(job, job.job_state, job.status, machines=1)
    if status.state is State.SUCCEEDED:
        return status
    wished = place.has(STOP)
    if not status.state.ended:
        return status.model_copy(update={"state": State.STOPPING}) if wished else status
    end: Json = json.loads(place.text(END) or "{}")
    code = end.get("exit_code")
    if wished and (code == STOPPED or (code is None and status.reason is Reason.USER)):
        return status.model_copy(update={"state": State.CANCELLED, "reason": Reason.USER})
    if code is None:
        return status.model_copy(update={"message": end.get("error") or status.message})
    reason = Reason.UNKNOWN if code == STOPPED else exit_reason(code)  # a stop that nobody here wished
    words = last_words((place.text(LOG) or "").splitlines())
    return status.model_copy(update={"state": State.FAILED, "reason": reason, "message": words or status.message})
