"""Dollars against hours, with their ranges: the picture of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.cost.compare import Row, recommend
from training_image.errors import InputError

MOST = 30
"""Machines in the picture, the cheapest ones; more would hide each other."""
COLOURS = {
    "sagemaker": "#d95f02",
    "vertex": "#1b9e77",
    "azureml": "#377eb8",
    "colab": "#e7a600",
    "local": "#555555",
}
"""By place; others share a colour."""
NAMED = 8
"""Machines that are named: the cheapest."""


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write the picture (svg, png or pdf by the name's end). Raises InputError where that cannot be done."""
    if path.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise InputError(f"--plot {path}: the picture is an .svg, a .png or a .pdf", hint="for example --plot cost.svg")
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise InputError(f"--plot needs {error.name}", hint="pip install 'ftlaunch[report]'") from None
    shown = [row for row in rows if row.total is not None and row.verdict != "no"][:MOST]
    if not shown:
        raise InputError("there is nothing to draw: no machine with a known price fits")
    matplotlib.rcParams |= {"svg.hashsalt": "ftlaunch", "svg.fonttype": "none"}
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    best = recommend(rows)
    for number, row in enumerate(shown):
        hours, dollars = row.hours, row.total
        assert dollars is not None
        colour = COLOURS.get(row.offer.backend, "#984ea3")
        across = [[hours[1] - hours[0]], [hours[2] - hours[1]]]
        up = [[dollars[1] - dollars[0]], [dollars[2] - dollars[1]]]
        first = row.offer.backend not in {each.offer.backend for each in shown[:number]}
        label = row.offer.backend if first else None
        axes.errorbar(
            hours[1], dollars[1], up, across, "o", ms=5, lw=0.8, alpha=0.8, color=colour, capsize=2, label=label
        )
        if number < NAMED:
            text = f"{row.offer.machine}{' (recommended)' if best and best[0] is row else ''}"
            axes.annotate(text, (hours[1], dollars[1]), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.set(
        xscale="log", yscale="log", xlabel="hours from submit to results", ylabel="US dollars on demand", title=title
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:.1g}")
    axes.tick_params(which="minor", labelsize=6)
    axes.grid(which="both", alpha=0.2)
    axes.legend(title="range: nine of ten cases", fontsize=8, title_fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        pyplot.close(figure)
