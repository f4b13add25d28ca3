"""Backends that break a promise about staging and submitting."""

import json
import os
import time
from typing import ClassVar

from backends.interface import BackendError
from tests.backends.broken.catalogue import breaks
from tests.backends.broken.reference import TROUBLE, Reference, known, note, root, running


def folder_of(plan):
    return root() / "jobs" / plan.job_name


@breaks("submit_refuses_unresolved")
class SendsPlaceholders(Reference):
    def submit(self, plan, secrets):
        return super().submit(plan.model_copy(update={"unresolved": ()}), secrets)


@breaks("find_knows_nothing_before_submit")
class FindsAll(Reference):
    def find(self, job_name):
        return self.handle(root() / "jobs" / job_name)


@breaks("find_knows_the_job_after_submit")
class FindsNone(Reference):
    def find(self, job_name):
        return None


@breaks("known_jobs_are_listed")
class ListsSome(Reference):
    def known(self):
        return [handle for handle in super().known() if "-good-" not in handle.job_name]


class Remembers(Reference):
    def __init__(self):
        self.seen = set()

    def submit(self, plan, secrets):
        handle = super().submit(plan, secrets)
        self.seen.add(plan.job_name)
        return handle


@breaks("submit_twice_is_one_job")
class SaysExists(Remembers):
    def submit(self, plan, secrets):
        if plan.job_name in self.seen:
            raise BackendError("the job exists", hint="take another name")
        return super().submit(plan, secrets)


@breaks("submit_twice_is_one_job")
class StartsTwice(Remembers):
    def submit(self, plan, secrets):
        if plan.job_name in self.seen:
            note(folder_of(plan) / "starts", "1\n")
        return super().submit(plan, secrets)


@breaks("submit_after_a_crash_is_one_job")
class RemembersOnlyItself(Remembers):
    """Knows by its own memory which long jobs it started."""

    def submit(self, plan, secrets):
        if plan.spec.train.max_steps > 100 and known(folder_of(plan)) and plan.job_name not in self.seen:
            note(folder_of(plan) / "starts", "1\n")
        return super().submit(plan, secrets)


@breaks("submit_at_once_is_one_job")
class LooksThenStarts(Reference):
    def submit(self, plan, secrets):
        if plan.unresolved or TROUBLE.get() or known(folder_of(plan)):
            return super().submit(plan, secrets)
        time.sleep(0.2)  # another launcher looks in the meantime
        folder_of(plan).mkdir(parents=True, exist_ok=True)
        self.launch(folder_of(plan), plan)
        return self.handle(folder_of(plan))


@breaks("submit_after_the_end_starts_nothing")
class StartsTheEndedAgain(Reference):
    def submit(self, plan, secrets):
        if known(folder_of(plan)) and not running(folder_of(plan)) and (folder_of(plan) / "exit").exists():
            note(folder_of(plan) / "starts", "1\n")
        return super().submit(plan, secrets)


@breaks("job_outlives_the_launcher")
class DiesWithLauncher(Reference):
    extra_request: ClassVar = {"dies_with_launcher": True}


def of_another_launcher(folder):
    return known(folder) and json.loads((folder / "request.json").read_text())["launcher"] != os.getpid()


@breaks("job_outlives_the_launcher")
class KnowsJobsOfItsOwnProcess(Reference):
    """What a launcher that died had started is not found, and is started again."""

    def find(self, job_name):
        return None if of_another_launcher(root() / "jobs" / job_name) else super().find(job_name)

    def submit(self, plan, secrets):
        if of_another_launcher(folder_of(plan)):
            note(folder_of(plan) / "starts", "1\n")
        return super().submit(plan, secrets)


@breaks("stage_twice_sends_nothing")
class SendsAlways(Reference):
    def stage(self, plan, files):
        super().stage(plan, files)
        for name, digest in plan.inputs.items():
            self.send(plan, files[name], root() / "blobs" / digest)


@breaks("handle_survives_json")
class TupleInHandle(Reference):
    def handle(self, folder):
        handle = super().handle(folder)
        return handle.model_copy(update={"data": handle.data | {"shape": (1, 2)}})
