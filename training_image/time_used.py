"""How long this run of a service has worked, its earlier lives included.

A service counts the maximum run time of a job over all lives of its container (a spot machine taken away and given
again), so the deadline of a later life is what the earlier ones left over. Only the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path


class TimeUsed:
    """Seconds of one run, kept beside its checkpoints. What a life does after its last note is not counted."""

    def __init__(self, checkpoints: Path, run: str) -> None:
        """``run``: what the service calls this run; a resumed job is another one, with its time before it."""
        self._path, self._run, self._began = checkpoints / "time-used.json", run, time.time()
        self.before = 0.0
        """Seconds of the earlier lives."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # the first life, or half a file
            told = json.loads(self._path.read_text())
            self.before = float(told["seconds"]) if told["run"] == run else 0.0

    def note(self) -> None:
        """Keep the seconds so far. A disk that is full is told of by what matters more than this."""
        told = {"run": self._run, "seconds": round(self.before + time.time() - self._began, 3)}
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(told))
            new.replace(self._path)
