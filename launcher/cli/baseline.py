"""``ftlaunch baseline``: what can be had without tuning, measured on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from backends import local_checks
from launcher import results, submission
from launcher.cli import common
from launcher.cli.run import store_if_any
from launcher.cli.summary import show
from launcher.cli.view import make_view
from launcher.job import JobFile, load
from training_image import progress
from training_image.errors import BAD_INPUT, InputError


@click.command(epilog="Example: `ftlaunch baseline examples/definitions`")
@common.job_file_argument
@common.set_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results; default: ./runs/JOB-baseline.")
@common.json_option
def command(job: str | None, sets: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Measure zero-shot, few-shot and, for classification, a classical model, by the job file JOB, on this machine.

    Nothing is trained. What was measured before for the same content is shown again.
    """
    file = load(job, sets, "local")
    content = submission.content(file, common.local(), store_if_any())
    name = submission.job_name(file.stem, content.digest, 0)
    target = output.absolute() if output else Path.cwd() / "runs" / f"{name}-baseline"
    if output is not None or results.verify(target):
        code = _measure(file, content, name, target)
        if code:
            return code
    else:
        common.say(f"measured before: {target}")
    result = json.loads((target / "result.json").read_text(encoding="utf-8"))
    if as_json:
        common.show_json(result | {"output": str(target)})
    else:
        show(target)
    return 0


def _measure(file: JobFile, content: submission.Content, name: str, target: Path) -> int:
    """Run the baselines in a child process; its results get their name when they are whole."""
    if lacking := local_checks.missing():
        raise InputError(f"measuring here needs {', '.join(lacking)}", hint="pip install 'ftlaunch[local]'")
    results.prepare_target(target)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with submission.staged(content.files) as data:
            spec = data / "spec.json"
            spec.write_text(content.spec.model_copy(update={"job": name}).model_dump_json(by_alias=True))
            places = {"spec": spec, "data": data, "output": part / "output", "checkpoints": part / "checkpoints"}
            arguments = [text for key, place in places.items() for text in (f"--{key}", str(place))]
            code = _run([sys.executable, "-m", "training_image", "baseline", *arguments], file.stem)
        if code == 0:
            (part / "output").rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return code


def _run(argv: list[str], title: str) -> int:
    """Run to the end and show its lines; gives an exit code of ours."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        with make_view(title) as view:
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
                view.line(text, progress.parse(text))
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        code = process.wait()
    if code == BAD_INPUT:
        raise InputError("the baselines cannot be measured: see above")
    return common.FAILED if code else 0
