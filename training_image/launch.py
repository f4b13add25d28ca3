"""Starts one process a GPU on every machine of a job, by torchrun's own launcher in this process.

One code path for all places: what the service says of its machines (`training_image.platform.hosts`) becomes torchrun's
rendezvous. Azure ML sets torch's variables itself, so that nothing is started there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence

from training_image.errors import DONE, STOPPED
from training_image.platform import Hosts, hosts
from training_image.progress import emit

PORT = 29400
"""Where the processes of several machines meet, on the first one."""
_SAVING_SECONDS = 100
"""Between SIGTERM and SIGKILL for the processes; less than the 120 s that SageMaker gives the container."""


def launch(command: str, arguments: Sequence[str]) -> int | None:
    """Run the job in several processes and give its exit code; None where one process does it, this one.

    ``arguments``: those of ``python -m training_image``.
    """
    if command == "check":
        return None
    if "RANK" in os.environ:
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # else torchrun's, whose parent has said so
            with contextlib.redirect_stdout(sys.__stdout__):  # the first process speaks for all others from here on
                told = {"rank": os.environ["RANK"], "of": os.environ.get("WORLD_SIZE", "1")}
                emit("start", machine=socket.gethostname(), **told)
        return None
    import torch

    here, processes = hosts(), max(1, torch.cuda.device_count())
    if len(here.names) == 1 and (processes == 1 or command == "baseline"):
        return None
    emit("start", machine=here.names[here.rank], machines=len(here.names), processes=processes)
    if command == "baseline":
        return None if here.rank == 0 else DONE
    return _run(arguments, here, processes)


def _run(arguments: Sequence[str], here: Hosts, processes: int) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    several = len(here.names) > 1
    config = LaunchConfig(
        min_nodes=len(here.names),
        max_nodes=len(here.names),
        nproc_per_node=processes,
        run_id="ftlaunch",
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=f"{here.names[0]}:{PORT}" if several else "localhost:0",
        rdzv_configs={"rank": here.rank, "timeout": 900} if several else {},
        max_restarts=0,
        monitor_interval=0.5,
        shutdown_timeout=_SAVING_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "training_image", *arguments)
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        # A process that was killed has a negative one; a service may take what a shell makes of it for its own fault.
        return code if code > 0 else 1
    return DONE
