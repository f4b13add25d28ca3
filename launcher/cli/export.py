"""``ftlaunch export``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from launcher.cli import common
from launcher.store import Record
from training_image.errors import InputError


@click.command(epilog="Example: `ftlaunch export definitions-1a2b --gguf --output definitions.gguf`")
@common.job_argument
@click.option("--adapter", is_flag=True, help="The adapter alone, for peft or vLLM.")
@click.option("--merged", is_flag=True, help="One checkpoint in bf16, evaluated before it is kept.")
@click.option("--gguf", is_flag=True, help="One GGUF file of the merged model, for llama.cpp or Ollama.")
@click.option("--output", type=click.Path(path_type=Path), help="Where it goes; default: ./JOB-adapter and so on.")
@common.json_option
def command(job: str, output: Path | None, as_json: bool, **forms: bool) -> int:
    """Make a model to take away from the results of JOB: exactly one of --adapter, --merged and --gguf.

    What is merged is evaluated on the job's test rows, and not kept where it is worse than the adapter was.
    """
    chosen = [form for form, asked in forms.items() if asked]
    if len(chosen) != 1:
        problem = "what is to be exported?" if not chosen else f"--{' and --'.join(chosen)} exclude each other"
        raise InputError(problem, hint="give --adapter, --merged or --gguf")
    form = chosen[0]
    with common.opened_store() as store:
        record = common.find_record(store, job)
    target = output or Path(f"{record.job}.gguf" if form == "gguf" else f"{record.job}-{form}")
    from launcher.export import NotAsGood

    with common.asked(common.local()):
        try:
            made = _export(record, form, target.absolute())
        except NotAsGood as error:
            common.say(f"error: {error}")
            common.say("hint: take the adapter as it is: --adapter")
            return common.FAILED
    document = {"job": record.job, "form": form, "output": str(target)} | made
    if as_json:
        common.show_json(document)
    else:
        click.echo(str(target))
    return 0


def _export(record: Record, form: str, target: Path) -> dict[str, Any]:
    """Make it; gives what there is to say of it."""
    from launcher import export

    folder = export.results_folder(record)
    if form == "adapter":
        notes = export.copy_adapter(folder, target)
        for note in notes:
            common.say(f"note: {note}")
        return {"notes": notes}
    if form == "merged":
        return {"evaluation": export.merge(record, folder, target, common.say).document()}
    return _gguf(record, folder, target)


def _gguf(record: Record, folder: Path, target: Path) -> dict[str, Any]:
    from launcher import export, gguf_file

    if target.exists():
        raise InputError(f"the file {target} exists already", hint="name another with --output")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as made:
        merged, new = Path(made, "merged"), Path(made, "model.gguf")
        found = export.merge(record, folder, merged, common.say)
        writer = gguf_file.write(merged, new, export.own_spec(folder).base_model)
        common.say("loading the GGUF file back")
        difference = gguf_file.compare(merged, new)
        new.rename(target)
    return {"evaluation": found.document(), "writer": writer, "logits_difference": difference}
