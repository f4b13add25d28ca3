"""``ftlaunch report``: what a job came to, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common


@click.command(epilog="Example: `ftlaunch report definitions-1a2b --output definitions.html`")
@common.job_argument
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; default: report.html beside the results.",
)
@common.json_option
def command(job: str, output: Path | None, as_json: bool) -> None:
    """Write one HTML page on the ended job JOB: its name, a beginning of it, or its results folder.

    The page needs no network and no script: it opens from disk, on a phone, light and dark. Prints its path.
    """
    from launcher.report import failed, finished, page
    from launcher.report.findings import findings

    with common.opened_store() as store:
        folder, record = common.find_results(store, job)
    path = output.absolute() if output else folder / "report.html"
    if record is not None and failed.is_failed(folder, record):
        page.write(failed.failed_page(folder, record), path)
        name = record.job
    else:
        read = finished.read(folder, record)
        page.write(page.page(read, *findings(read)), path)
        name = read.result["job"]
    if as_json:
        common.show_json({"job": name, "page": str(path)})
    else:
        click.echo(path)
