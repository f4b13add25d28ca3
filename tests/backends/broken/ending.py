"""Backends that break a promise about how a job ends, or goes on."""

import shutil
import signal
from typing import ClassVar

from backends.interface import BackendError, Reason, State
from tests.backends.broken.catalogue import breaks
from tests.backends.broken.reference import TROUBLE, Reference, folder_of, note, running, signal_worker

FAILED = {"state": State.FAILED, "reason": Reason.UNKNOWN}


def had_begun(folder):
    return (folder / "log").stat().st_size > 300


@breaks("cancel_ends_in_cancelled")
class CancelFails(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        cancelled = status.state == State.CANCELLED and had_begun(folder)
        return status.model_copy(update=FAILED) if cancelled else status


@breaks("cancel_ends_in_cancelled")
class CancelForNoReason(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        cancelled = status.state == State.CANCELLED and had_begun(folder)
        return status.model_copy(update={"reason": None}) if cancelled else status


@breaks("cancel_at_once_ends_in_cancelled")
class CancelAtOnceFails(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        cancelled = status.state == State.CANCELLED and not had_begun(folder)
        return status.model_copy(update=FAILED) if cancelled else status


@breaks("cancel_twice_is_harmless")
class RefusesSecondCancel(Reference):
    def cancel(self, handle):
        if (folder_of(handle) / "cancelled").exists():
            raise BackendError("the job is being cancelled", hint="wait")
        super().cancel(handle)


@breaks("cancel_leaves_the_ended_alone")
class CancelsTheEnded(Reference):
    def cancel(self, handle):
        (folder_of(handle) / "cancelled-late").touch()
        super().cancel(handle)

    def ended(self, folder, code):
        status = super().ended(folder, code)
        late = code == 0 and not (folder / "checkpoints/step").exists() and (folder / "cancelled-late").exists()
        return status.model_copy(update={"state": State.CANCELLED, "reason": Reason.USER}) if late else status


@breaks("bad_data_is_named")
class FailsForUnknownReason(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        return status.model_copy(update=FAILED) if code == 2 else status


@breaks("bad_data_is_named")
class FailsSilently(Reference):
    def ended(self, folder, code):
        return super().ended(folder, code).model_copy(update={"message": ""})


@breaks("time_limit_is_kept")
class RunsOn(Reference):
    extra_request: ClassVar = {"unlimited": True}


@breaks("time_limit_is_kept")
class LimitIsTheUsers(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        return status.model_copy(update={"state": State.CANCELLED, "reason": Reason.USER}) if code == 124 else status


@breaks("failures_have_their_reason")
class FullIsQuota(Reference):
    def submit(self, plan, secrets):
        try:
            return super().submit(plan, secrets)
        except BackendError as error:
            raise BackendError(error.message, error.hint, Reason.QUOTA) from error


@breaks("remove_twice_is_harmless")
class RefusesSecondRemove(Reference):
    def remove(self, handle):
        if not (folder_of(handle) / "data").exists():
            raise BackendError("nothing to remove", hint="leave it")
        super().remove(handle)


@breaks("resume_of_a_running_job_starts_nothing")
class ResumesTheRunning(Reference):
    def resume(self, handle):
        if running(folder_of(handle)):
            note(folder_of(handle) / "starts", "1\n")
        return super().resume(handle)


class LosesCheckpoint(Reference):
    def resume(self, handle):
        folder = folder_of(handle)
        if self.loses(folder):
            (folder / "checkpoints/step").unlink()
        return super().resume(handle)

    def loses(self, folder):
        return False


@breaks("resume_after_cancel")
class BeginsAnewAfterCancel(LosesCheckpoint):
    def loses(self, folder):
        return not running(folder) and (folder / "cancelled").exists()


@breaks("resume_after_kill")
class BeginsAnewAfterKill(LosesCheckpoint):
    def loses(self, folder):
        return not running(folder) and not (folder / "exit").exists()


@breaks("spot_interruption_resumes")
class BeginsAnewAfterSpot(LosesCheckpoint):
    def loses(self, folder):
        return not running(folder) and (folder / "interrupted").exists()


@breaks("spot_interruption_resumes")
class SpotIsUnknown(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        return status.model_copy(update=FAILED) if status.reason == Reason.SPOT_INTERRUPTED else status


@breaks("cancel_lets_the_training_save")
class KillsAtOnce(Reference):
    """What was trained since the checkpoint before the last is lost."""

    def cancel(self, handle):
        folder = folder_of(handle)
        if running(folder) and had_begun(folder):
            (folder / "cancelled").touch()
            signal_worker(folder, signal.SIGKILL)
            step = folder / "checkpoints/step"
            step.write_text(str(int(step.read_text()) - 4))
        super().cancel(handle)


@breaks("killed_job_fails")
class KilledIsCancelled(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        return status.model_copy(update={"state": State.CANCELLED, "reason": Reason.USER}) if code is None else status


@breaks("logs_go_on_after_resume")
class BeginsLogAnew(Reference):
    def resume(self, handle):
        folder = folder_of(handle)
        if not running(folder):
            (folder / "log").unlink()
        return super().resume(handle)


class FetchesSpoilt(Reference):
    def fetch(self, handle, into):
        super().fetch(handle, into)
        self.spoil(folder_of(handle), into)

    def spoil(self, folder, into):
        pass


@breaks("fetched_tree_is_whole")
class ForgetsFile(FetchesSpoilt):
    def spoil(self, folder, into):
        (into / "README.md").unlink(missing_ok=True)


@breaks("fetched_tree_is_whole")
class SpoilsFile(FetchesSpoilt):
    def spoil(self, folder, into):
        if (into / "README.md").exists():
            (into / "README.md").write_text("READMe.md\n")


@breaks("fetch_completes_a_broken_fetch")
class FetchesIntoEmptyOnly(Reference):
    def fetch(self, handle, into):
        if not any(into.iterdir()):
            super().fetch(handle, into)


@breaks("fetch_completes_a_broken_fetch")
class TrustsWhatIsThere(Reference):
    def fetch(self, handle, into):
        there = {path: path.read_bytes() for path in into.rglob("*") if path.is_file()}
        super().fetch(handle, into)
        for path, content in there.items():
            path.write_bytes(content)


@breaks("fetch_stays_inside")
class WritesBeside(FetchesSpoilt):
    def spoil(self, folder, into):
        (into.parent / "output.tar").write_text("beside")


@breaks("fetch_stays_inside")
class LinksOutside(FetchesSpoilt):
    def spoil(self, folder, into):
        shutil.copyfile("/etc/hostname", into.parent.parent / "hostname")
        if not (into / "hostname").exists():
            (into / "hostname").symlink_to(into.parent.parent / "hostname")


@breaks("cancelled_job_can_be_fetched")
class CancelledIsLost(FetchesSpoilt):
    def fetch(self, handle, into):
        if not (folder_of(handle) / "cancelled").exists():
            super().fetch(handle, into)


@breaks("failed_job_can_be_fetched")
class FailedIsRefused(Reference):
    def fetch(self, handle, into):
        if self.status(handle).state == State.FAILED:
            raise BackendError("the job failed", hint="look at its log")
        super().fetch(handle, into)


@breaks("throttled_calls_lose_nothing")
class GivesUpWhenThrottled(Reference):
    def status(self, handle):
        if TROUBLE.get() == "throttle":
            raise BackendError("slow down", hint="ask again")
        return super().status(handle)


@breaks("dropped_connections_lose_nothing")
class LosesRestWhenDropped(Reference):
    def logs(self, handle, after):
        lines = list(super().logs(handle, after))
        yield from lines[: len(lines) // 2] if TROUBLE.get() == "drop" else lines


@breaks("dropped_connections_lose_nothing")
class RepeatsWhenDropped(Reference):
    def logs(self, handle, after):
        lines = list(super().logs(handle, after))
        yield from lines[:3] + lines if TROUBLE.get() == "drop" else lines
