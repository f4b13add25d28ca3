"""Publishes a job's adapter on the hub, by the hub's own client."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from backends import secret_values
from backends.interface import BackendError, Reason
from launcher.report.finished import Finished
from training_image.errors import InputError

TOKEN = "HF_TOKEN"  # noqa: S105  # a name, not a value
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Say = Callable[[str], None]


def push(job: Finished, hub_id: str, *, private: bool, say: Say) -> str:
    """Upload adapter, tokenizer and model card in one commit; gives the page's address.

    Neither rows nor predictions are sent. Raises InputError for a job without an adapter or a bad id, BackendError for
    what the hub refuses.
    """
    if not _ID.fullmatch(hub_id):
        raise InputError(f"{hub_id!r} is no id of the hub", hint="it has the form ORGANISATION/NAME")
    files = published(job)
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    except ModuleNotFoundError as error:
        raise InputError(f"a push needs {error.name}", hint="pip install 'ftlaunch[local]'") from error
    if job.result["verdict"]["outcome"] == "degraded":
        say("warning: the verdict on this job is that tuning made it worse; the card says so")
    own = secret_values.known([TOKEN]).get(TOKEN)
    api = HfApi(token=None if own is None else own.get_secret_value())
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in files.items()]
    try:
        created = api.create_repo(hub_id, private=private, exist_ok=True)
        message = f"{job.result['job']}: {job.result['verdict']['outcome'].replace('_', ' ')}"
        api.create_commit(hub_id, operations, commit_message=message)
    except HfHubHTTPError as error:
        raise _refused(error) from error
    except Exception as error:
        # The client lets the errors of its HTTP library through, whose name is another from version to version.
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError | OfflineModeIsEnabled) and not library.startswith("httpx"):
            raise
        hint = "is there a network, or HF_HUB_OFFLINE set?"
        raise BackendError(f"the hub cannot be reached: {error}", hint=hint) from error
    return str(created)


def published(job: Finished) -> dict[str, Path]:
    """What is sent, by name in the repository. Raises InputError where nothing was tuned."""
    adapter = job.folder / "adapter"
    if not adapter.is_dir():
        raise InputError(f"{job.result['job']} has no adapter: nothing was tuned", hint="see the job's verdict")
    files = {str(path.relative_to(adapter)): path for path in sorted(adapter.rglob("*")) if path.is_file()}
    return files | {"README.md": job.folder / "README.md"}


def _refused(error: Exception) -> BackendError:
    first = str(error).strip().splitlines()[0]
    if any(code in first for code in ("401", "403")):
        hint = f"export {TOKEN}=... with a token that may write there, or hf auth login"
        return BackendError(f"the hub refused: {first}", hint=hint, reason=Reason.CREDENTIALS)
    return BackendError(f"the hub refused: {first}", hint="look at the id, then try again")
