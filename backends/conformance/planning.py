"""Promises about what happens before anything is started."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backends.conformance.audit import recording
from backends.conformance.jobs import SECRET, Prepared, prepare
from backends.conformance.promise import expect, promise
from backends.interface import BackendOptions, Json, Plan, Submission

if TYPE_CHECKING:
    from backends.conformance.harness import Harness

ALWAYS_THERE = (
    frozenset(("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"))
    | frozenset(("yaml", "_yaml", "click", "rich", "platformdirs", "markdown_it", "mdurl", "pygments"))
    | frozenset(("backends", "launcher", "training_image"))
)
"""Top-level modules that the core brings along; whatever else is loaded belongs to an extra."""

PLACEHOLDER = re.compile(r"<([a-z][a-z0-9-]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+)>")


def _prepared(harness: Harness) -> Prepared:
    return harness.runs.once("prepared", lambda: prepare(harness, "plan", secret=True))


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _under(value: Any, key: str) -> Iterator[Any]:
    """Everything that stands under that key, at any depth."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key:
                yield each
            yield from _under(each, key)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _under(each, key)


def _dump(plan: Plan) -> Json:
    return plan.model_dump(mode="json", by_alias=True)


@promise()
def plan_is_repeatable(harness: Harness) -> None:
    """The same submission gives the same plan, from this backend and from another made afresh."""
    submission = _prepared(harness).submission
    reread = Submission.model_validate_json(submission.model_dump_json(by_alias=True))
    backend = harness.fresh()
    first, second, third = backend.plan(submission), backend.plan(submission), harness.fresh().plan(reread)
    expect(_dump(first) == _dump(second), f"two plans of one submission differ:\n{first!r}\n{second!r}")
    expect(_dump(first) == _dump(third), f"another backend plans the same submission otherwise:\n{first!r}\n{third!r}")


@promise()
def plan_reads_no_clock(harness: Harness) -> None:
    """The plan does not depend on the time, nor on the hash seed of the interpreter."""
    early, now = harness.runs.probe.plan, _dump(harness.fresh().plan(_prepared(harness).submission))
    expect(early == now, f"the plan made by another interpreter in 2001 differs from today's:\n{early}\n{now}")


@promise()
def plan_needs_no_network(harness: Harness) -> None:
    """Importing, creating and planning open no connection, ask no daemon and start no process."""
    told = harness.runs.probe
    expect(not told.connections, f"planning reached for {told.connections}")
    expect(not told.processes, f"planning started {told.processes}")


@promise()
def plan_reads_no_credentials(harness: Harness) -> None:
    """Importing, creating and planning read no secret from the environment and no SDK's credential file."""
    told = harness.runs.probe
    expect(not told.environment, f"planning read the environment variables {told.environment}")
    expect(not told.credential_files, f"planning opened {told.credential_files}")


def _extras(harness: Harness, modules: list[str]) -> list[str]:
    """Those of the modules that neither Python, nor the core, nor the backend's own package brings."""
    own = harness.backend.__module__.partition(".")[0]
    return [name for name in modules if name not in sys.stdlib_module_names | ALWAYS_THERE | {own}]


@promise()
def module_imports_no_sdk(harness: Harness) -> None:
    """Importing the backend's module imports no vendor's SDK, nor anything else of an extra."""
    extras = _extras(harness, harness.runs.probe.imported_by_module)
    expect(not extras, f"importing {harness.backend.__module__} imports {extras}; import them inside the methods")


@promise()
def plan_imports_no_sdk(harness: Harness) -> None:
    """Creating and planning import no vendor's SDK: a dry run works without the extra."""
    extras = _extras(harness, harness.runs.probe.imported_by_plan)
    expect(not extras, f"planning imports {extras}")


@promise()
def plan_is_json(harness: Harness) -> None:
    """The request is plain JSON: it survives writing and reading unchanged."""
    plan = _prepared(harness).plan
    again = json.loads(json.dumps(plan.request, allow_nan=False))
    expect(again == plan.request, f"the request is not plain JSON: {plan.request!r} became {again!r}")
    reread = Plan.model_validate_json(plan.model_dump_json(by_alias=True))
    expect(reread == plan, f"the plan changes by being written and read: {plan!r} became {reread!r}")


@promise()
def plan_carries_the_submission(harness: Harness) -> None:
    """The plan's backend, job name, spec, image and time limit are the submission's."""
    submission = prepare(harness, "plan", max_seconds=4321).submission
    plan = harness.fresh().plan(submission)
    expect(plan.backend == harness.backend.name, f"the plan names the backend {plan.backend!r}")
    expect(plan.job_name == submission.job_name, f"the job {submission.job_name!r} became {plan.job_name!r}")
    expect(plan.spec == submission.spec, f"the spec changed: {submission.spec!r} became {plan.spec!r}")
    expect(plan.max_seconds == 4321, f"a limit of 4321 s became {plan.max_seconds}")
    if harness.backend.capabilities.image:
        expect(plan.image == submission.image, f"the image {submission.image!r} became {plan.image!r}")


@promise()
def plan_lists_inputs(harness: Harness) -> None:
    """The plan's inputs are the submission's files with their digests: nothing more, nothing less."""
    job = _prepared(harness)
    expect(job.plan.inputs == job.submission.files, f"{job.submission.files} became {job.plan.inputs}")


@promise()
def plan_lists_what_is_unresolved(harness: Harness) -> None:
    """An account fact that is not given stands as <name.key> in the request and under `unresolved`, with a hint.

    Checked with the options given and with none: a place that needs facts plans without them all the same.
    """
    submission = _prepared(harness).submission
    for options in (submission.options, {}):
        plan = harness.fresh().plan(submission.model_copy(update={"options": options}))

        standing, listed = _standing(plan), _listed(plan)
        expect(standing == listed, f"placeholders in the request: {sorted(standing)}; listed: {sorted(listed)}")
        silent = [each.path for each in plan.unresolved if not each.hint]
        expect(not silent, f"no hint where to set {silent}")


def _standing(plan: Plan) -> set[str]:
    """Paths of the placeholders in the request."""
    return {f"backends.{name}" for text in _texts(plan.request) for name in PLACEHOLDER.findall(text)}


def _listed(plan: Plan) -> set[str]:
    return {each.path for each in plan.unresolved}


@promise()
def plan_shows_no_secret(harness: Harness) -> None:
    """What stands in the request under a secret's name is *** and nothing else."""
    shown = [value for value in _under(_prepared(harness).plan.request, SECRET) if value != "***"]
    expect(not shown, f"the request shows {SECRET} as {shown}")


@promise()
def resolve_keeps_the_plan(harness: Harness) -> None:
    """`resolve` leaves a plan with nothing unresolved as it is, and what it cannot resolve stays listed."""
    job = _prepared(harness)
    again = harness.fresh().resolve(job.plan)
    expect(again == job.plan, f"resolve changed a resolved plan: {job.plan!r} became {again!r}")
    bare = harness.fresh().plan(job.submission.model_copy(update={"options": {}}))
    filled = harness.fresh().resolve(bare)
    lost = (_listed(bare) - _listed(filled)) & _standing(filled)
    expect(not lost, f"resolve took {sorted(lost)} off the list, and left the placeholders standing")
    new = _listed(filled) - _listed(bare)
    expect(not new, f"resolve made {sorted(new)} unresolved")
    kept = {"job_name", "backend", "inputs", "spec", "max_seconds"}
    expect(
        filled.model_dump(include=kept) == bare.model_dump(include=kept),
        f"resolve changed more than the request: {filled!r}",
    )


@promise()
def options_are_documented(harness: Harness) -> None:
    """The options' schema is strict, and every key has a description."""
    options = harness.backend.options
    expect(issubclass(options, BackendOptions), f"{options.__name__} is no BackendOptions")
    schema = options.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        silent = [key for key, value in part.get("properties", {}).items() if not value.get("description")]
        expect(not silent, f"{part.get('title')}: no description for {silent}")
        if "properties" in part:
            expect(part.get("additionalProperties") is False, f"{part.get('title')} takes unknown keys")


@promise()
def capabilities_are_plain(harness: Harness) -> None:
    """Name, summary and extra are there, and each capability is True or False."""
    backend = harness.backend
    plain = re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", backend.name)
    expect(plain is not None, f"the name {backend.name!r} is no plain name")
    expect(bool(backend.summary) and "\n" not in backend.summary, "the summary is not one line")
    expect(isinstance(backend.extra, str), f"the extra is {backend.extra!r}")
    vague = {name: value for name, value in vars(backend.capabilities).items() if not isinstance(value, bool)}
    expect(not vague, f"neither True nor False: {vague}")


@promise()
def offers_have_honest_prices(harness: Harness) -> None:
    """An offer costs something, or its price is unknown (None); only a place without a bill is free."""
    billing = harness.backend.capabilities.billable_seconds
    for offer in harness.fresh().offers(None):
        expect(offer.backend == harness.backend.name, f"the offer is another backend's: {offer!r}")
        expect(bool(offer.source and (offer.as_of or offer.kind == "free")), f"no date or source: {offer!r}")
        expect(not (offer.kind == "free" and billing), f"free, in a place with billable seconds: {offer!r}")
        prices = [price for price in (offer.usd_per_hour, offer.usd_per_hour_spot) if price is not None]
        if offer.kind != "free":
            expect(all(price > 0 for price in prices), f"a price of nothing: {offer!r}")


@promise()
def offers_need_no_network(harness: Harness) -> None:
    """The offers come from the bundled prices: no connection, no process."""
    with recording() as reached:
        list(harness.fresh().offers(None))
    expect(not reached.connections + reached.processes, f"offers reached for {reached.connections + reached.processes}")


@promise()
def preflight_passes_a_good_plan(harness: Harness) -> None:
    """A good plan raises no error, and an error always says what to do."""
    findings = harness.fresh().preflight(_prepared(harness).plan)
    silent = [each for each in findings if each.level == "error" and not each.hint]
    expect(not silent, f"errors without a hint: {silent}")
    errors = [each for each in findings if each.level == "error"]
    expect(not errors, f"errors for a good plan: {errors}")


@promise()
def preflight_starts_nothing(harness: Harness) -> None:
    """A preflight leaves no job behind."""
    job = prepare(harness, "preflight")
    harness.runs.started.append(job.plan.job_name)
    harness.fresh().preflight(job.plan)
    expect(harness.census(job.plan.job_name).started == 0, "the preflight started the job")
