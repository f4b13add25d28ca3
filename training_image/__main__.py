"""``python -m training_image train|baseline|check`` — the entrypoint of the container and of the local place."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from training_image import loading, secrets
from training_image.errors import BAD_INPUT, DONE, InputError, OutOfMemory, RunError, Stopped, is_out_of_memory
from training_image.platform import Platform, StopSignal, detect

_COMMANDS = "train: all of it; baseline: no training; check: only the data, as JSON on standard output"


def main(arguments: list[str] | None = None) -> int:
    """Run a job; returns the exit code."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m training_image", description=__doc__)
    parser.add_argument("command", choices=("train", "baseline", "check"), help=_COMMANDS)
    for name in ("spec", "data", "output", "checkpoints"):
        parser.add_argument(
            f"--{name}", metavar="PATH", help=f"the {name}; else FTLAUNCH_{name.upper()}, else detected"
        )
    parser.add_argument("--deadline", metavar="UNIX_SECONDS", help="when the job must have ended")
    given = parser.parse_args(arguments)
    platform: Platform | None = None
    try:
        stop = StopSignal()
        stop.install()
        platform = detect({name: value for name, value in vars(given).items() if name != "command"})
        if platform.deadline is not None:
            os.environ["FTLAUNCH_DEADLINE"] = str(platform.deadline)  # for the processes that this one starts
        return _command(given.command, platform, stop, sys.argv[1:] if arguments is None else arguments, began)
    except (RunError, Stopped) as error:
        return _fail(error, platform)
    except (OSError, MemoryError) as error:
        return _fail(_translated(error), platform)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            _leave_failure(f"{type(error).__name__}: {error}", platform)
            raise
        return _fail(_translated(MemoryError()), platform)
    except Exception as error:
        _leave_failure(f"{type(error).__name__}: {error}", platform)
        raise


def _command(command: str, platform: Platform, stop: StopSignal, arguments: list[str], began: float) -> int:
    """Everything heavy is imported here, after the signals are heard. ``began``: by `time.perf_counter`."""
    # torch's threads sleep while they wait, instead of spinning: spinning makes two jobs that share the cores up to
    # fifty times slower. To be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not platform.main:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the first process speaks for all, to the end
    if secrets.load(os.environ):
        secrets.hide()
    with loading.quickly():  # torch alone, until it is known who trains
        from training_image.launch import launch

    code = launch(command, arguments)
    if code is not None:
        return code
    from training_image.given import look, read_spec

    spec = read_spec(platform)
    if command == "check":
        from training_image.data.check import check

        report = check(spec, platform.data)
        print(json.dumps(report.as_json(), ensure_ascii=False, default=str))
        return DONE if report.ok else BAD_INPUT
    if spec.goal == "screen" and not platform.main:
        return DONE  # one process does it all
    given = look(platform, spec)
    with loading.quickly():
        from training_image.run import run
    if spec.goal == "screen":
        from training_image.screen import screen

        screen(platform, given, began)
    else:
        run(platform, given, stop, baselines_only=command == "baseline", began=began)
    return DONE


def _translated(error: OSError | MemoryError) -> RunError:
    if isinstance(error, MemoryError):
        return OutOfMemory("memory ran out", hint="Take a smaller model or a lower data.max_length.")
    place = f" {error.filename}" if error.filename else ""
    return InputError(f"cannot read or write{place}: {error.strerror or error}", hint="Is the disk full or read-only?")


def _fail(error: RunError | Stopped, platform: Platform | None) -> int:
    text = f"{error.message}\n  {error.hint}" if error.hint else error.message
    print(f"error: {text}", file=sys.stderr, flush=True)
    _leave_failure(text, platform)
    return error.exit_code


def _leave_failure(text: str, platform: Platform | None) -> None:
    """Tell the service why, where it has a file for that."""
    if platform is None or platform.failure_file is None or not platform.main:
        return
    with contextlib.suppress(OSError):
        platform.failure_file.parent.mkdir(parents=True, exist_ok=True)
        Path(platform.failure_file).write_text(secrets.masked(text)[: platform.failure_limit])


if __name__ == "__main__":
    sys.exit(main())
