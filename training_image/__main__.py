"""``python -m training_image train|baseline`` — the entrypoint of the container and of the local place."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training_image.errors import DONE, InputError, OutOfMemory, RunError
from training_image.platform import Platform, StopSignal, detect


def main(arguments: list[str] | None = None) -> int:
    """Run a job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training_image", description=__doc__)
    parser.add_argument("command", choices=("train", "baseline"), help="train: all of it; baseline: no training")
    for name in ("spec", "data", "output", "checkpoints"):
        parser.add_argument(
            f"--{name}", metavar="PATH", help=f"the {name}; else FTLAUNCH_{name.upper()}, else detected"
        )
    parser.add_argument("--deadline", metavar="UNIX_SECONDS", help="when the job must have ended")
    given = parser.parse_args(arguments)
    stop = StopSignal()
    stop.install()
    platform: Platform | None = None
    try:
        platform = detect({name: value for name, value in vars(given).items() if name != "command"})
        from training_image.run import run

        run(platform, stop, baselines_only=given.command == "baseline")
    except RunError as error:
        return _fail(error, platform)
    except (OSError, MemoryError) as error:
        return _fail(_translated(error), platform)
    return DONE


def _translated(error: OSError | MemoryError) -> RunError:
    if isinstance(error, MemoryError):
        return OutOfMemory("memory ran out", hint="Take a smaller model or a lower data.max_length.")
    place = f" {error.filename}" if error.filename else ""
    return InputError(f"cannot read or write{place}: {error.strerror or error}", hint="Is the disk full or read-only?")


def _fail(error: RunError, platform: Platform | None) -> int:
    text = f"{error.message}\n  {error.hint}" if error.hint else error.message
    print(f"error: {text}", file=sys.stderr, flush=True)
    if platform is not None and platform.failure_file is not None and error.exit_code != DONE:
        platform.failure_file.parent.mkdir(parents=True, exist_ok=True)
        Path(platform.failure_file).write_text(text[:1024])
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
