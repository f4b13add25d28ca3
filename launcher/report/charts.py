"""The pictures, as SVG inside the page.

By matplotlib: its SVG is still and needs no script, its text stays text, and it comes as one package without a browser
or a JavaScript runtime, which Altair's SVG export wants. Colours are the page's own (CSS variables), so that one
picture serves light and dark.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that the page's variables take the place of; no other part of a picture has these colours.
INK, FAINT, ONE, TWO, THREE = "#010101", "#020202", "#030303", "#040404", "#050505"
FOUR, FIVE, SIX = "#060606", "#070707", "#080808"
_VARIABLES = {INK: "--ink", FAINT: "--line", ONE: "--one", TWO: "--two", THREE: "--three"}
_VARIABLES |= {FOUR: "--four", FIVE: "--five", SIX: "--six"}
_OF_JOBS = (TWO, THREE, FOUR, FIVE, SIX, ONE)
_MARKS = "os^Dv"
"""Told apart by these are jobs of one colour, where there are more jobs than colours."""
_WIDTH = 4.4
"""Inches: at this width the text can be read on a phone."""

Interval = tuple[float | None, float | None]
Points = Sequence[tuple[float, float]]


def intervals(values: Mapping[str, tuple[float | None, Interval]], metric: str) -> str:
    """Value and 95 % interval of each evaluation, the first one on top."""
    shown = {name: (value, bounds) for name, (value, bounds) in values.items() if value is not None}
    figure, axes = _figure(0.45 + 0.34 * len(shown))
    for place, (name, (value, (low, high))) in enumerate(shown.items()):
        colour = TWO if name == "tuned" else ONE
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot([value], [place], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(shown)), [_plain(name) for name in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(_plain(metric))
    axes.tick_params(axis="y", length=0)
    return _svg(figure, f"{metric} of each evaluation with its 95 % interval")


def curves(lines: Mapping[str, Points], label: str, best: float | None = None) -> str:
    """Curves over optimizer steps; ``best``: the step whose weights were kept. Empty where there is nothing to draw."""
    drawn = {name: points for name, points in lines.items() if points}
    if not drawn:
        return ""
    figure, axes = _figure(2.3)
    for colour, (name, points) in zip((ONE, TWO, THREE), drawn.items(), strict=False):
        style = "o-" if len(points) < 40 else "-"
        axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=1.4, markersize=3, label=_plain(name))
    if best is not None:
        axes.axvline(best, color=INK, linewidth=0.8, linestyle=":", label="kept")
    axes.set_xlabel("step")
    axes.set_ylabel(_plain(label))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return _svg(figure, f"{label} over the steps of the training")


def overlaid(jobs: Mapping[str, Sequence[Points]], label: str) -> str:
    """Curves of several jobs over optimizer steps, a colour for each job: its first curve solid, its second dashed.

    Empty where there is nothing to draw.
    """
    named = [job for job, lines in jobs.items() if any(lines)]
    if not named:
        return ""
    figure, axes = _figure(2.3 + 0.17 * len(named))
    for place, (job, lines) in enumerate(jobs.items()):
        colour, mark = _OF_JOBS[place % len(_OF_JOBS)], _MARKS[place // len(_OF_JOBS) % len(_MARKS)]
        for style, points in zip(("-", "--"), lines, strict=False):
            steps, values = [step for step, _ in points], [value for _, value in points]
            marked = mark if len(points) < 40 else ""
            axes.plot(steps, values, marked + style, color=colour, linewidth=1.4, markersize=3)
        if any(lines):
            axes.plot([], [], mark + "-", color=colour, markersize=3, label=job)  # a name for all of its curves
    axes.set_xlabel("step")
    axes.set_ylabel(_plain(label))
    figure.legend(loc="outside lower left", frameon=False, fontsize=8, labelcolor=INK)
    return _svg(figure, f"{label} of each job over the steps of its training")


def points_with_intervals(points: Sequence[tuple[float, float, Interval]], across: str, up: str) -> str:
    """A value with its interval over a quantity, joined by a line."""
    figure, axes = _figure(2.3)
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o-", color=TWO, linewidth=1.4, markersize=6)
    for x, _, (low, high) in points:
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=TWO, linewidth=2.2, solid_capstyle="round")
    axes.set_xlabel(_plain(across))
    axes.set_ylabel(_plain(up))
    axes.set_xlim(left=0)
    return _svg(figure, f"{up} over {across}")


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=8.5)
    axes.grid(axis="x" if height < 2.2 else "both", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element with a title for screen readers; the same figure gives the same text."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "text.parse_math": False}):
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    # Several pictures stand in one page, whose ids must differ.
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{mark}-", text)
    return text.replace("<svg ", '<svg role="img" ', 1)


def _plain(name: str) -> str:
    return name.replace("_", " ")
