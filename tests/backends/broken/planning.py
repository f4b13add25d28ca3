"""Backends that break a promise about what happens before anything is started."""

import contextlib
import datetime
import itertools
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from backends.conformance.jobs import SECRET
from backends.interface import BackendOptions, Capabilities, Finding, Offer
from tests.backends.broken.catalogue import breaks
from tests.backends.broken.reference import Reference, ReferenceOptions, note, root


def with_request(plan, **more):
    return plan.model_copy(update={"request": plan.request | more})


def knock():
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=1).close()


@breaks("plan_is_repeatable")
class Counts(Reference):
    def __init__(self):
        self.numbers = itertools.count()

    def plan(self, submission):
        return with_request(super().plan(submission), number=next(self.numbers))


@breaks("plan_reads_no_clock")
class Dates(Reference):
    def plan(self, submission):
        return with_request(super().plan(submission), day=datetime.date.today().isoformat())


@breaks("plan_reads_no_clock")
class Stamps(Reference):
    def plan(self, submission):
        return with_request(super().plan(submission), week=int(time.time() // 604800))


@breaks("plan_reads_no_clock")
class HashOrder(Reference):
    def plan(self, submission):
        return with_request(super().plan(submission), tags=list({f"tag-{number}" for number in range(12)}))


@breaks("plan_needs_no_network")
class Connects(Reference):
    def plan(self, submission):
        knock()
        return super().plan(submission)


@breaks("plan_needs_no_network")
class AsksDaemon(Reference):
    def plan(self, submission):
        subprocess.run(["true"], check=True)
        return super().plan(submission)


@breaks("plan_reads_no_credentials")
class ReadsKey(Reference):
    def plan(self, submission):
        os.environ.get("VENDOR_SECRET_KEY")
        return super().plan(submission)


@breaks("plan_reads_no_credentials")
class ReadsKeyFile(Reference):
    def plan(self, submission):
        with contextlib.suppress(OSError):
            Path("~/.aws/credentials").expanduser().read_text()
        return super().plan(submission)


@breaks("plan_imports_no_sdk")
class PlansWithSdk(Reference):
    def plan(self, submission):
        import iniconfig  # noqa: F401

        return super().plan(submission)


@breaks("plan_is_json")
class Tuples(Reference):
    def plan(self, submission):
        return with_request(super().plan(submission), shape=(1, 2))


@breaks("plan_carries_the_submission")
class ForgetsLimit(Reference):
    def plan(self, submission):
        return super().plan(submission).model_copy(update={"max_seconds": None})


@breaks("plan_carries_the_submission")
class TakesLatestImage(Reference):
    def plan(self, submission):
        return super().plan(submission).model_copy(update={"image": "image:latest"})


@breaks("plan_lists_inputs")
class ForgetsInput(Reference):
    def plan(self, submission):
        plan = super().plan(submission)
        return plan.model_copy(update={"inputs": {"train.jsonl": plan.inputs["train.jsonl"]}})


@breaks("plan_lists_what_is_unresolved")
class ListsNothing(Reference):
    def plan(self, submission):
        return super().plan(submission).model_copy(update={"unresolved": ()})


@breaks("plan_lists_what_is_unresolved")
class HintsNothing(Reference):
    def plan(self, submission):
        plan = super().plan(submission)
        silent = tuple(each.model_copy(update={"hint": ""}) for each in plan.unresolved)
        return plan.model_copy(update={"unresolved": silent})


@breaks("plan_lists_what_is_unresolved")
class GuessesAccount(Reference):
    def plan(self, submission):
        return with_request(super().plan(submission), account=submission.options.get("account", "mine"))


@breaks("plan_shows_no_secret")
class ShowsSecret(Reference):
    def plan(self, submission):
        return with_request(super().plan(submission), environment={SECRET: "hf_abcdef"})


@breaks("resolve_keeps_the_plan")
class ResolvesMore(Reference):
    def resolve(self, plan):
        return with_request(plan, resolved=True)


@breaks("resolve_keeps_the_plan")
class ResolvesInName(Reference):
    def resolve(self, plan):
        return plan.model_copy(update={"unresolved": ()})


class SilentOptions(ReferenceOptions):
    speed: int = 1


class LooseOptions(BackendOptions):
    model_config: ClassVar = {"extra": "allow"}
    account: str | None = Field(None, description="The account that pays.")


@breaks("options_are_documented")
class SaysNothing(Reference):
    options = SilentOptions


@breaks("options_are_documented")
class TakesAnything(Reference):
    options = LooseOptions


@breaks("capabilities_are_plain")
class Sometimes(Reference):
    capabilities = Capabilities.model_construct(**{**vars(Reference.capabilities), "several_machines": "sometimes"})


@breaks("capabilities_are_plain")
class Nameless(Reference):
    summary = ""


class Offers(Reference):
    def offers(self, region):
        for offer in super().offers(region):
            yield self.spoil(offer)

    def spoil(self, offer: Offer) -> Offer:
        return offer


@breaks("offers_have_honest_prices")
class Gives(Offers):
    def spoil(self, offer):
        return offer.model_copy(update={"usd_per_hour": offer.usd_per_hour or 0.0})


@breaks("offers_have_honest_prices")
class ForFree(Offers):
    def spoil(self, offer):
        return offer.model_copy(update={"kind": "free"})


@breaks("offers_need_no_network")
class AsksPrices(Offers):
    def spoil(self, offer):
        knock()
        return offer


@breaks("preflight_passes_a_good_plan")
class Forbids(Reference):
    def preflight(self, plan):
        return [Finding(level="error", code="quota", message="the quota may be too small", hint="ask for more")]


@breaks("preflight_starts_nothing")
class TriesOut(Reference):
    def preflight(self, plan):
        note(root() / "jobs" / plan.job_name / "starts", "1\n")
        return super().preflight(plan)
