"""Shares hours or dollars of a sweep among its trials, so that all of them and the last training keep the total."""

from __future__ import annotations

from dataclasses import dataclass

LEAST = 30.0
"""Seconds below which a trial is not worth its start."""


@dataclass
class Budget:
    """An amount, of seconds or of dollars, over all jobs of a sweep."""

    total: float | None
    """None: no limit."""
    at_once: int
    least: float
    """What a trial is expected to take; with less left none is started."""
    last: float
    """What the last training is expected to take, until a trial has ended."""

    def cap(self, spent: float, promised: float, running: int, longest: float, expected: float = 0.0) -> float | None:
        """The most that the next trial may take; 0 where too little is left, None without a limit.

        ``spent``: by ended trials. ``promised``: the caps of the running ones. ``longest``: the most that an ended
        trial took; twice that is kept back for the training of the best, which measures baselines too. ``expected``:
        what this very trial is expected to take.
        """
        if self.total is None:
            return None
        room = self.total - spent - promised - (2 * longest or self.last)
        needed = max(self.least, expected, 0.5 * longest)
        return max(room / max(1, self.at_once - running), needed) if room >= needed else 0.0

    def left(self, spent: float, floor: float) -> float | None:
        """What is left for the training of the best, but never below ``floor``."""
        return None if self.total is None else max(self.total - spent, floor)
