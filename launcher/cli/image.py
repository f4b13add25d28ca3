"""``ftlaunch image build|push|show``: the training image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from backends.interface import BackendError
from launcher import image
from launcher.cli import common, transfer

F = TypeVar("F", bound=Callable[..., Any])


def _image_options(command: F) -> F:
    """What an image is made of."""
    extra = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--extra", metavar="FILE", type=extra, help="Requirements with hashes, added as a layer."),
        click.option(
            "--base", metavar="IMAGE", default=image.BASE, show_default=True, help="Image that it starts from."
        ),
        click.option(
            "--torch", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Torch's build."
        ),
    ):
        command = option(command)
    return command


@click.group(epilog="Example: `ftlaunch image build`, then `ftlaunch image push registry.example.com/team/ftlaunch`")
def command() -> None:
    """Build, push or show the training image, which is named by its content: REPOSITORY:TORCH-DIGEST.

    The same Dockerfile, lock and training code give the same name anywhere, so nothing is built or pushed twice.
    """


@command.command(epilog="Example: `ftlaunch image build --torch cuda`")
@_image_options
@click.option(
    "--wheels",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Wheels that pip takes instead of downloading them; default: the folder wheels of the clone.",
)
@common.json_option
def build(torch: image.Torch, base: str, extra: Path | None, wheels: Path | None, as_json: bool) -> None:
    """Build the image, unless the engine has it already. Needs a Docker engine and a client with BuildKit."""
    name, built = image.build(image.Image(torch, extra, base), wheels)
    if as_json:
        common.show_json({"image": name, "built": built, "torch": torch})
        return
    common.say("built" if built else "there already")
    click.echo(name)


@command.command(epilog="Example: `ftlaunch image push 127.0.0.1:5000/ftlaunch --torch cuda`")
@click.argument("repository")
@_image_options
@common.json_option
def push(repository: str, torch: image.Torch, base: str, extra: Path | None, as_json: bool) -> None:
    """Push the image to REPOSITORY (host/path), unless the registry has it already.

    Who you are there is what `docker login` has stored. ECR, Artifact Registry and ACR are pushed to by their backends.
    """
    made = image.Image(torch, extra, base)
    target = made.reference(repository)
    with transfer.shown():
        pushed = image.push(made.reference(), target)
    if as_json:
        common.show_json({"image": target, "pushed": pushed, "torch": torch})
        return
    common.say("pushed" if pushed else "there already")
    click.echo(target)


@command.command(epilog="Example: `ftlaunch image show --json`")
@_image_options
@common.json_option
def show(torch: image.Torch, base: str, extra: Path | None, as_json: bool) -> None:
    """Tell the image's name, whether the engine here has it, its labels and its size by layer."""
    made = image.Image(torch, extra, base)
    name = made.reference()
    answers = True
    try:
        labels = image.labels(name)
        layers = [] if labels is None else image.layers(name)
    except BackendError as error:  # the name is told without an engine too
        common.say(f"note: {error.message}\nhint: {error.hint}")
        answers, labels, layers = False, None, []
    if as_json:
        rows = [{"bytes": size, "made_by": made_by} for size, made_by in layers]
        total = sum(size for size, _ in layers) if layers else None
        there = labels is not None if answers else None
        document = {"image": name, "torch": torch, "there": there, "bytes": total, "labels": labels}
        common.show_json(document | {"layers": rows, "lock_sha256": made.lock_sha256()})
        return
    click.echo(name)
    if answers:
        click.echo("not built here" if labels is None else f"{sum(size for size, _ in layers) / 1e6:,.0f} MB")
    for size, made_by in layers:
        if size:
            click.echo(f"{size / 1e6:9,.1f} MB  {' '.join(made_by.split())[:100] or 'the base'}")
    for key, value in sorted((labels or {}).items()):
        click.echo(f"  {key} = {value}")
