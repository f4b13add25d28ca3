"""Ranks what a screening measured, and says whether prompting alone is already good enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from launcher.models_table import known_models
from launcher.price_to_tune import Price

GOOD = 0.92
"""What counts as good enough where the job file sets `evaluate.enough` to null; the default of that key."""
WAYS = {"zero_shot": "zero-shot", "few_shot": "few-shot", "probe": "linear probe"}


@dataclass(frozen=True)
class Candidate:
    """One base model, measured."""

    name: str
    kind: str | None
    best_by: str | None
    """The better of its ways to answer without tuning."""
    value: float | None
    ci95: tuple[float | None, float | None] | None
    evaluations: dict[str, Any]
    bits_per_character: float | None
    parameters: int | None
    licence: str | None
    """From the dated table; None: not in it."""
    price: Price
    """Of tuning it."""
    seconds: float
    error: str | None


@dataclass(frozen=True)
class Screened:
    """All of them, the best first."""

    metric: str
    models: list[Candidate]
    text: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ranked(result: dict[str, Any], enough: float | None, prices: Mapping[str, Price]) -> Screened:
    """Rank by the task metric on the validation rows; ``result``: result.json of a screening; ``prices``: by model."""
    metric, higher = result["task"]["metric"], result["task"]["higher_is_better"]
    licences = {
        model.id: model.licence + (" (not checked)" if model.licence_read == "no" else "") for model in known_models()
    }
    models = [_candidate(entry, metric, higher, licences, prices) for entry in result["screening"]]
    sign = 1 if higher else -1
    models.sort(key=lambda each: -sign * each.value if each.value is not None else float("inf"))
    return Screened(metric, models, _told(models, metric, higher, GOOD if enough is None else enough))


def _candidate(
    entry: dict[str, Any], metric: str, higher: bool, licences: dict[str, str], prices: Mapping[str, Price]
) -> Candidate:
    sign = 1 if higher else -1
    values = {name: each["metrics"].get(metric) for name, each in entry["evaluations"].items()}
    known = {name: sign * value for name, value in values.items() if value is not None}
    best = max(known, key=lambda name: known[name]) if known else None
    bounds = None if best is None else entry["evaluations"][best]["ci95"][metric]
    return Candidate(
        name=entry["name"],
        kind=entry["kind"],
        best_by=None if best is None else WAYS[best],
        value=None if best is None else values[best],
        ci95=None if bounds is None else (bounds[0], bounds[1]),
        evaluations=entry["evaluations"],
        bits_per_character=entry.get("bits_per_character"),
        parameters=entry.get("parameters"),
        licence=licences.get(entry["name"]),
        price=prices.get(entry["name"], Price(None, None)),
        seconds=entry["seconds"],
        error=entry.get("error"),
    )


def _told(models: list[Candidate], metric: str, higher: bool, enough: float) -> str:
    measured = [each for each in models if each.value is not None]
    if not measured:
        return "No model could be measured."
    best = measured[0]
    low, high = best.ci95 or (None, None)
    numbers = f"{metric} {best.value:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")
    text = f"{best.name} is ahead on the validation rows: {best.best_by} {numbers}."
    level = [each for each in measured[1:] if each.ci95 and _overlaps(best, each)]
    if level:
        text += f" Not clearly behind it: {', '.join(each.name for each in level)}."
        text += _cheaper([best, *level])
    asked = next((each for each in measured if each.best_by != WAYS["probe"]), None)  # a probe is no prompting
    if higher and asked is not None and asked.value is not None and asked.value >= enough:
        whose = "its" if asked is best else f"{asked.name}'s"
        text += f" Tuning may not be worth it: {whose} {asked.best_by} baseline is at {asked.value:.2f} already."
    near = [each for each in measured if each.bits_per_character is not None]
    if len(near) > 1:
        nearest = min(near, key=lambda each: each.bits_per_character or 0.0)
        text += f" Nearest to the text by bits per character: {nearest.name}."
    return text


def _cheaper(level: list[Candidate]) -> str:
    """Which of several that are not clearly apart is the cheapest to tune; empty where that is not known of all."""
    found = {each.name: each.price.here for each in level}
    if any(here is None or here.usd is None or here.hours is None for here in found.values()):
        return ""
    costs = {
        name: (here.usd["expected"], here.hours["expected"])
        for name, here in found.items()
        if here and here.usd and here.hours
    }
    least = min(costs, key=lambda name: costs[name])
    return f" The cheapest of these to tune: {least}."


def _overlaps(one: Candidate, other: Candidate) -> bool:
    """Whether the intervals meet; one that is not known may meet anything."""
    low_one, high_one = one.ci95 or (None, None)
    low_two, high_two = other.ci95 or (None, None)
    if low_one is None or high_one is None or low_two is None or high_two is None:
        return True
    return low_one <= high_two and low_two <= high_one
