"""The largest micro-batch that fits, measured on the longest rows before the training.

An out-of-memory then comes in the first seconds, not in the step that happens to hold the longest rows, and is met by
smaller micro-batches or gradient checkpointing: the same rows a step, the same loss. An accelerator says itself that
its memory is full. On a CPU the system kills instead, and where the base is sharded a process that stops in the middle
of a pass leaves the others waiting: there a pass is predicted, from what the longest row alone took, before it is
tried; and on a CPU not tried at all where it would fit even if all of it grew with the square of the tokens, as nothing
in a model grows faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from training_image.batches import ALIKE, Layout, MicroBatch, common_beginning, micro_batches
from training_image.data.examples import Sample
from training_image.errors import OutOfMemory, is_out_of_memory
from training_image.processes import Processes
from training_image.progress import say

_SMALLEST = 64
"""Tokens of the smallest micro-batch."""
_WORTH = {"cuda": 2048, "cpu": _SMALLEST}
"""Below so many tokens, checkpointing larger micro-batches is faster: four bits are written out once a pass, which adds
16 % to a pass of 2,048 tokens and 60 % to one of 512 (computed for an H100); on a CPU they are written out but once."""
_MOMENTS = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 0}
"""Bytes that an optimizer keeps of each trained weight; those of a paged one give way."""
_USED = 0.9
"""Share of the free memory that may be predicted to be taken."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a step's rows are run."""

    tokens: int
    """Of a micro-batch at most; one longer row is one all the same."""
    checkpointing: bool

    def __str__(self) -> str:
        return f"micro-batches of {self.tokens} tokens {'with' if self.checkpointing else 'without'} checkpointing"


def ways(most: int, longest: int, checkpointing: Literal["auto", "on", "off"], device: str) -> list[Way]:
    """From the fastest way to the most frugal. ``longest``: tokens of the longest row; smaller micro-batches than that
    would need as much."""
    sizes = [most]
    while sizes[-1] > max(longest, _SMALLEST):
        sizes.append(max(sizes[-1] // 2, _SMALLEST))
    plain = [Way(size, False) for size in sizes]
    frugal = [Way(size, True) for size in sizes]
    if checkpointing == "auto":
        return [way for way in plain if way.tokens in (most, max(way.tokens, _WORTH[device]))] + frugal
    return frugal if checkpointing == "on" else plain


def heaviest(samples: Sequence[Sample], rows: int, tokens: int, layout: Layout, pad: int) -> MicroBatch:
    """The largest micro-batch that a step of ``rows`` rows can come to, as near as filling up from the longest goes."""
    ordered = sorted(samples, key=lambda sample: -len(sample.input_ids))
    if layout == "padded":
        start, count = _most_padded([len(sample.input_ids) for sample in ordered], rows, tokens)
        chosen = ordered[start : start + count]
        return micro_batches(chosen, max(tokens, len(chosen[0].input_ids)), layout, pad)[0]
    half = [sample for sample in ordered if len(sample.input_ids) <= tokens // 2]
    # The longest ones alone may share a longer beginning than all rows do, and so fill a micro-batch with more of them.
    found = [_filled(some, rows, tokens, layout, pad) for some in (ordered, half, ordered[:rows]) if some]
    return max(found, key=lambda batch: batch.input_ids.numel())


def _most_padded(lengths: Sequence[int], rows: int, tokens: int) -> tuple[int, int]:
    """Where the rows of the largest padded micro-batch begin, and how many they are. ``lengths``: the longest first.

    The longest row need not be among them: it may have none of like length beside it, where many shorter ones have.
    """
    best, found, end = 0, (0, 1), 0
    for start, longest in enumerate(lengths):
        while end < len(lengths) and lengths[end] >= ALIKE * longest:
            end += 1
        count = min(rows, max(1, tokens // longest), end - start)
        if count * longest > best:
            best, found = count * longest, (start, count)
    return found


def _filled(ordered: Sequence[Sample], rows: int, tokens: int, layout: Layout, pad: int) -> MicroBatch:
    shared = common_beginning(ordered) if layout in ("shared", "ragged") else 0  # laid down once
    chosen, used = [ordered[0]], len(ordered[0].input_ids)
    for sample in ordered[1:]:
        size = len(sample.input_ids) - shared
        if len(chosen) < rows and used + size <= tokens:
            chosen.append(sample)
            used += size
    return micro_batches(chosen, max(tokens, used), layout, pad)[0]


class Probe:
    """Tries ways on the longest rows, and remembers what each took."""

    def __init__(self, device: torch.device, moments: int, together: Processes | None = None) -> None:
        """``moments``: bytes that the optimizer will take beside. ``together``: processes that share the base."""
        self.device, self.moments, self.together = device, moments, together
        self.free = free_bytes(device)
        self.tried: list[dict[str, Any]] = []
        self._alone: dict[bool, float] = {}

    def fits(self, way: Way, batch: MicroBatch, longest: MicroBatch, work: Callable[[MicroBatch], None]) -> bool:
        """Run ``work`` on the largest micro-batch of a way; False where memory does not suffice.

        ``longest``: the longest row alone, from which the memory is predicted.
        """
        size = batch.input_ids.numel()
        took: int | None = None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_ballast(self.moments, self.device))
                if self._too_much(way, longest, work, size):
                    return self._told(way, size, None)
                if self._plenty(way, longest, work, size):
                    return self._told(way, size, int(self._predicted(way, longest, work) * size), foretold=True)
                took = measured(self.device, lambda: work(batch))
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.together:
                    raise
        if took is None and self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._told(way, size, took)

    def _too_much(self, way: Way, longest: MicroBatch, work: Callable[[MicroBatch], None], size: int) -> bool:
        """Whether so many tokens are not to be tried, in any of the processes that share a base."""
        if self.device.type != "cpu" and not self.together:
            return False
        found = self._predicted(way, longest, work) * size > _USED * self.free
        return self.together.any(found) if self.together else found

    def _predicted(self, way: Way, longest: MicroBatch, work: Callable[[MicroBatch], None]) -> float:
        """Bytes a token, by the longest row alone."""
        if way.checkpointing not in self._alone:
            took = measured(self.device, lambda: work(longest))
            self._alone[way.checkpointing] = took / longest.input_ids.numel()
        return self._alone[way.checkpointing]

    def _plenty(self, way: Way, longest: MicroBatch, work: Callable[[MicroBatch], None], size: int) -> bool:
        """Whether so many tokens fit beyond doubt, on a CPU with a base of its own."""
        if self.device.type != "cpu" or self.together:
            return False
        growth = max(1.0, size / longest.input_ids.numel())
        return self._predicted(way, longest, work) * size * growth <= _USED * self.free

    def _told(self, way: Way, size: int, took: int | None, *, foretold: bool = False) -> bool:
        tried = {"micro_batch_tokens": way.tokens, "checkpointing": way.checkpointing, "tokens": size, "bytes": took}
        self.tried.append(tried | {"foretold": foretold})
        memory = f"{self.free / 2**30:.2f} GiB of free memory"
        if took is None:
            say(f"{way}: the longest rows do not fit into {memory}")
        else:
            verb = "will take about" if foretold else "took"
            say(f"{way}: the longest rows {verb} {took / 2**30:.2f} of {memory}")
        return took is not None


def too_little(longest: int, checkpointing: str) -> OutOfMemory:
    """The error where no way is left. ``longest``: tokens of the longest row."""
    more = "train.checkpointing: auto, " if checkpointing == "off" else ""
    return OutOfMemory(
        f"the longest row, {longest} tokens, does not fit into the device's memory",
        f"Take {more}a smaller model, train.method: qlora, or a data.max_length below {longest}.",
    )


def moments_bytes(optimizer: str, weights: int) -> int:
    """What an optimizer keeps of so many trained weights."""
    return _MOMENTS[optimizer] * weights


@contextlib.contextmanager
def _ballast(size: int, device: torch.device) -> Iterator[None]:
    """Memory that stands for what is not there yet, the optimizer's moments."""
    held = torch.ones(size, dtype=torch.uint8, device=device)
    yield
    del held


def measured(device: torch.device, work: Callable[[], None]) -> int:
    """Bytes that ``work`` needed, at its worst moment, above what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    with contextlib.suppress(AttributeError, OSError):  # what freed tensors left in the heap would hide the need
        ctypes.CDLL(None).malloc_trim(0)
    before, ended, seen = _pages()[1], threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.002):
            seen.append(_pages()[1])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return max(0, max(seen) - before)


def free_bytes(device: torch.device) -> float:
    """Free memory of an accelerator; on a CPU the least of what machine, container and process limit leave."""
    if device.type == "cuda":
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + spare)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    found = [math.inf if limit == resource.RLIM_INFINITY else limit - _pages()[0]]
    told = {"MemAvailable:": math.inf} | {name: 1024.0 * value for name, value in _table(Path("/proc/meminfo"))}
    found.append(told["MemAvailable:"])
    for folder, most, now in _CONTAINERS:
        with contextlib.suppress(OSError, ValueError):  # "max", and where there is no such limit
            used = int((folder / now).read_text()) - dict(_table(folder / "memory.stat")).get("inactive_file", 0)
            found.append(int((folder / most).read_text()) - used)
    return max(0.0, min(found))


_CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where a container's limit stands, in control groups of version 2 and 1."""


def _pages() -> tuple[int, int]:
    """Bytes of this process's address space, and of its memory; zero where the system does not tell."""
    try:
        whole, resident = Path("/proc/self/statm").read_text().split()[:2]
    except OSError:
        return 0, 0
    return int(whole) * resource.getpagesize(), int(resident) * resource.getpagesize()


def _table(path: Path) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, value = line.split()[:2]
            yield name, int(value)
