"""The estimate of a planned job: the row of its machine, kept with the job, so that no history is priced anew.

Here too the budget is turned into the longest run time, and a job that cannot keep it is refused before it is sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from backends import prices
from backends.interface import Backend, Offer, Plan
from launcher.cost import compare, duration, history, places
from launcher.cost.compare import Row
from launcher.cost.speed import Run
from launcher.job import JobFile
from launcher.store import Record, Store
from training_image.errors import InputError

Estimate = dict[str, Any]
"""`Row.document` of the machine, with ``machines``, ``spot``, ``usd`` (low, expected, high of the whole job, 0 without
a bill, None where unknown), ``rate`` (dollars a billed second of one machine; None: unknown) and ``work``."""
LEAST_SECONDS = 120
"""A budget that leaves less than this for the run itself is refused."""


def offer_of(plan: Plan, backend: Backend) -> Offer | None:
    """The offer that a plan's machine is; None where its place does not tell it."""
    offers = list(backend.offers(plan.region))
    named = [offer for offer in offers if plan.machine is not None and offer.machine == plan.machine]
    if named:
        return named[0]
    free = [offer for offer in offers if offer.kind == "free"]
    return free[0] if plan.machine is None and len(offers) == len(free) == 1 else None


def estimate(file: JobFile, plan: Plan, backend: Backend, store: Store | None) -> Estimate | None:
    """What the planned job is expected to take; None where its machine, its model or its rows cannot be told."""
    offer = offer_of(plan, backend)
    if offer is None:
        return None
    own = history.own_runs(store)
    try:
        if file.candidates:
            return _screening(file, plan, offer, own)
        estimator = compare.Estimator(file, own)
        return _kept(estimator.row(offer), estimator, file, plan)
    except InputError:
        return None


def _screening(file: JobFile, plan: Plan, offer: Offer, own: Sequence[Run]) -> Estimate:
    """All candidates one after another in one job, whose start is billed once. Memory is that of the largest."""
    found = []
    for name in file.candidates:
        model = file.job.model.model_copy(update={"id": name, "revision": None})
        one = dataclasses.replace(file, job=file.job.model_copy(update={"model": model}), candidates=())
        estimator = compare.Estimator(one, own)
        found.append((estimator.row(offer), estimator))
    row, estimator = max(found, key=lambda each: each[0].needed_gib)
    told = [each.duration for each, _ in found if each.duration is not None]
    if len(told) == len(found):
        again = (len(found) - 1) * places.place(offer.backend).around[1]
        low, expected, high = duration.together(*(each.billed for each in told))
        billed = (max(0.0, low - again), expected - again, high - again)
        row = dataclasses.replace(row, duration=duration.Duration((0.0, 0.0, 0.0), billed, told[0].wait))
    return _kept(row, estimator, file, plan)


def _kept(row: Row, estimator: compare.Estimator, file: JobFile, plan: Plan) -> Estimate:
    machines, spot = file.job.resources.machines, file.job.resources.spot
    dollars, rate = row.spot if spot else row.total, _rate(row.offer, spot)
    afterwards = plan.kept_seconds * (rate or 0.0)
    usd = None if dollars is None else [machines * (value + afterwards) for value in dollars]
    if row.free:
        usd = [0.0, 0.0, 0.0]
    work = estimator.work(row.device, max(1, row.offer.gpu_count))
    billed = None if row.duration is None else [seconds / 3600 for seconds in row.duration.billed]
    return row.document() | {
        "machines": machines,
        "spot": spot,
        "usd": usd and dict(zip(("low", "expected", "high"), usd, strict=True)),
        "billed_hours": billed and dict(zip(("low", "expected", "high"), billed, strict=True)),
        "rate": rate,
        "work": {
            "train_tokens": work.train_tokens,
            "steps": work.steps,
            "tokens": row.setup.tokens,
            "weights": duration.weights_met(estimator.shape, row.setup),
            "cores": compare.cores(),
        },
    }


def _rate(offer: Offer, spot: bool) -> float | None:
    """Dollars a billed second of one machine; None where they cannot be right.

    SageMaker's spot is billed at the rate on demand, for fewer seconds.
    """
    if offer.kind == "free":
        return 0.0
    hourly = offer.usd_per_hour_spot if spot and offer.backend != "sagemaker" else offer.usd_per_hour
    return hourly / 3600 if hourly is not None and prices.credible(hourly, offer.gpu_count) else None


def max_seconds(file: JobFile, plan: Plan, backend: Backend) -> int | None:
    """The longest run time that keeps the budget; None without one. Raises InputError where it cannot be kept.

    Of ``budget.max_usd`` what is billed around the run (image, start, upload, a machine kept warm) is taken off first.
    """
    hours = file.job.max_seconds
    dollars = file.job.budget.max_usd
    offer = offer_of(plan, backend) if dollars is not None else None
    if dollars is None or (offer is not None and offer.kind == "free"):
        return hours
    rate = _whole_rate(file, offer)
    if rate is None:
        hint = "set budget.max_hours instead, or put the price into prices.csv beside config.yaml (docs/cost.md)"
        if plan.machine is None:
            hint = f"set budget.max_hours instead, or name the machine where {backend.name} has a price of it"
        machine = plan.machine or "this machine"
        raise InputError(
            f"budget.max_usd cannot be kept: the price of {backend.name} {machine} is not known", hint=hint
        )
    around = _around(plan, backend)
    seconds = int(dollars / rate - around)
    if seconds < LEAST_SECONDS:
        start = rate * (around + LEAST_SECONDS)
        hint = f"about {start:.2f} dollars are billed before and after the training alone; `ftlaunch cost` compares"
        raise InputError(f"budget.max_usd: {dollars:g} dollars do not last for the start on {backend.name}", hint=hint)
    return seconds if hours is None else min(seconds, hours)


def least_usd(file: JobFile, plan: Plan, backend: Backend, found: Estimate | None) -> float:
    """Dollars without which the job is not worth its start: what it is expected to cost, and no less than its start."""
    rate = _whole_rate(file, offer_of(plan, backend)) or 0.0
    return max(rate * (_around(plan, backend) + LEAST_SECONDS + 1), expected_usd(found) or 0.0)


def _around(plan: Plan, backend: Backend) -> float:
    """Billed seconds before and after the run itself."""
    return places.place(backend.name).around[1] + plan.kept_seconds


def _whole_rate(file: JobFile, offer: Offer | None) -> float | None:
    """Dollars a second of all machines; spot counts at the price on demand where its own is not known."""
    rate = None if offer is None else (_rate(offer, file.job.resources.spot) or _rate(offer, False))
    return None if rate is None else rate * file.job.resources.machines


def require_budget(file: JobFile, found: Estimate | None) -> None:
    """Raise InputError for a job that is expected to break its budget even at the low end of its estimate."""
    if found is None or found["price"]["kind"] == "free":
        return  # at a place without a bill the deadline alone holds
    budget, place = file.job.budget, f"{found['backend']} {found['machine']}"
    hint = f"raise the budget, train less, or take another machine: ftlaunch cost {file.path}"
    if budget.max_usd is not None and found["usd"] and found["usd"]["low"] > budget.max_usd:
        told = f"at least {found['usd']['low']:.2f} dollars, likely {found['usd']['expected']:.2f}"
        raise InputError(f"budget.max_usd is {budget.max_usd:g}, and {place} is expected to cost {told}", hint=hint)
    if budget.max_hours is not None and found["billed_hours"] and found["billed_hours"]["low"] > budget.max_hours:
        told = f"at least {found['billed_hours']['low']:.2f} hours"
        raise InputError(f"budget.max_hours is {budget.max_hours:g}, and {place} is expected to take {told}", hint=hint)


def require_rest(file: JobFile, record: Record, backend: Backend) -> None:
    """Raise InputError for a resume that may take more than is left of ``budget.max_usd``.

    It runs under the first run's limit again, at the price kept then; a first run of unknown cost counts as all of it.
    """
    dollars, found, plan = file.job.budget.max_usd, record.estimate, record.plan
    if dollars is None or found is None or plan is None or not found.get("rate"):
        return
    if plan.max_seconds is None:
        raise InputError("budget.max_usd cannot be kept: the job was started without a limit", hint="run it anew")
    most = float(found["rate"]) * int(found.get("machines", 1)) * (plan.max_seconds + _around(plan, backend))
    spent = most if record.actual_usd is None else record.actual_usd
    if spent + most > dollars * 1.005:  # a cent's rounding is no reason
        told = f"{spent:.2f} dollars {'may be' if record.actual_usd is None else 'are'} spent"
        message = f"budget.max_usd is {dollars:g}: {told}, and going on may take {most:.2f}"
        hint = f"set budget.max_usd to {spent + most:.2f} or more, or run the job anew without --resume"
        raise InputError(message, hint=hint)


def memory_warning(found: Estimate | None) -> str:
    """What is said of a job that does not seem to fit; empty where it does."""
    if found is None or found["fit"]["verdict"] not in ("no", "tight"):
        return ""
    fit, place = found["fit"], f"{found['backend']} {found['machine']}"
    doubt = "hardly fits" if fit["verdict"] == "tight" else "is not expected to fit"
    return f"the job {doubt} into {place}: {fit['needed_gib']:.1f} of {fit['usable_gib']:.1f} GiB (ftlaunch cost)"


def expected_usd(found: Estimate | None) -> float | None:
    """The expected dollars; 0 without a bill, None where unknown."""
    return None if found is None or not found["usd"] else float(found["usd"]["expected"])


def told(found: Estimate | None) -> str:
    """In words, for the question before a start."""
    if found is None or not found["usd"]:
        return "at a price that is not known"
    usd = found["usd"]
    return f"for about {usd['expected']:.2f} dollars ({usd['low']:.2f} to {usd['high']:.2f})"
