"""The frameworks, loaded with a third less work: a job of a few minutes feels its start."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Import torch, and the other frameworks inside: nothing is compiled yet, nor searched for garbage.

    When imported, bitsandbytes decorates the stand-ins of its kernels with torch.compile, which loads Inductor at
    once; CPU and CUDA have kernels of their own, so those are hardly ever called. Measured for all imports on two
    slow cores, by turns: 15.2 s of CPU time, 9.4 s so.
    """
    gc.disable()
    import torch

    compile_now = torch.compile
    torch.compile = functools.partial(_compiled_when_called, compile_now)
    try:
        yield
    finally:
        torch.compile = compile_now
        gc.enable()
        gc.freeze()  # modules stay to the end


def _compiled_when_called(
    compile_now: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any
) -> Callable[..., Any]:
    """As torch.compile, but at the first call of what it is given; a decorator where that is still to come."""
    if function is None:
        return functools.partial(_compiled_when_called, compile_now, **options)
    compiled = functools.cache(lambda: compile_now(function, **options))

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return compiled()(*given, **named)

    return call
