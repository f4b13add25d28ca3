"""Backends that break a promise about status, errors and logs."""

import fcntl
import itertools
import json
import time
from typing import ClassVar

from backends.interface import BackendError, JobNotFound, LogLine, Reason, State, Status
from tests.backends.broken.catalogue import breaks
from tests.backends.broken.reference import Reference, folder_of, known, root, running


def starts(folder):
    return len((folder / "starts").read_text().splitlines())


@breaks("unknown_job_is_not_found")
class NeverWasSucceeded(Reference):
    def status(self, handle):
        if "folder" in handle.data and not known(root() / "jobs" / handle.job_name):
            return Status(state=State.SUCCEEDED)
        return super().status(handle)


@breaks("unknown_job_is_not_found")
class NeverWasKeyError(Reference):
    def status(self, handle):
        if "folder" in handle.data and not known(root() / "jobs" / handle.job_name):
            raise KeyError(handle.job_name)
        return super().status(handle)


@breaks("unknown_job_gives_nothing")
class EmptyLogOfNothing(Reference):
    def logs(self, handle, after):
        if known(root() / "jobs" / handle.job_name):
            yield from super().logs(handle, after)


@breaks("unknown_job_gives_nothing")
class CancelsNothing(Reference):
    def cancel(self, handle):
        if known(root() / "jobs" / handle.job_name):
            super().cancel(handle)


@breaks("malformed_handle_is_refused")
class TrustsHandle(Reference):
    def status(self, handle):
        assert handle.data["folder"]
        return super().status(handle)


@breaks("errors_say_what_to_do")
class Speechless(Reference):
    def status(self, handle):
        try:
            return super().status(handle)
        except JobNotFound as error:
            raise JobNotFound(error.message) from error


@breaks("good_job_succeeds")
class SucceedsForAReason(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        return status.model_copy(update={"reason": Reason.USER}) if code == 0 else status


@breaks("good_job_succeeds")
class ShortJobsFail(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        if code == 0 and not (folder / "checkpoints/step").exists():
            return status.model_copy(update={"state": State.FAILED, "reason": Reason.UNKNOWN})
        return status


@breaks("states_only_move_forward")
class GoesBack(Reference):
    looks = itertools.count()

    def read_status(self, folder):
        status = super().read_status(folder)
        if status.state == State.RUNNING and next(self.looks) % 2:
            return status.model_copy(update={"state": State.QUEUED})
        return status


@breaks("an_end_stays")
class Forgets(Reference):
    def ended(self, folder, code):
        status = super().ended(folder, code)
        if code != 0:
            return status
        told = folder / "told"
        if not told.exists():
            told.touch()
            return status
        return status.model_copy(update={"state": State.UNKNOWN})


@breaks("an_end_is_an_end")
class EndsTooSoon(Reference):
    def read_status(self, folder):
        status = super().read_status(folder)
        if status.state == State.STOPPING:
            return status.model_copy(update={"state": State.CANCELLED, "reason": Reason.USER})
        return status


@breaks("an_end_is_an_end")
class KeepsMachineOfTheFailed(Reference):
    held: ClassVar[dict] = {}

    def ended(self, folder, code):
        if code == 2 and folder not in self.held:
            self.held[folder] = (folder / "worker.lock").open("a")
            fcntl.flock(self.held[folder], fcntl.LOCK_EX)
        return super().ended(folder, code)

    def read_status(self, folder):
        if folder in self.held:
            return self.ended(folder, 2).model_copy(update={"billable_seconds": 1.0})
        return super().read_status(folder)


@breaks("billable_seconds_are_told")
class NoBill(Reference):
    def read_status(self, folder):
        return super().read_status(folder).model_copy(update={"billable_seconds": None})


class ReadsLog(Reference):
    """Spoils the lines that are read."""

    def read_log(self, folder, position):
        yield from self.spoil(folder, position, super().read_log(folder, position))

    def spoil(self, folder, position, lines):
        yield from lines


@breaks("log_lines_are_lines")
class KeepsLineBreaks(ReadsLog):
    def spoil(self, folder, position, lines):
        for line in lines:
            yield line.model_copy(update={"text": line.text + "\n"})


@breaks("logs_follow_without_loss")
class LosesLineWhileItRuns(ReadsLog):
    def spoil(self, folder, position, lines):
        lost = position and starts(folder) == 1 and running(folder)
        yield from itertools.islice(lines, 1 if lost else 0, None)


@breaks("logs_follow_without_loss")
class GivesHalfLines(Reference):
    def read_log(self, folder, position):
        for line in super().read_log(folder, position):
            yield line
            position = int(line.cursor)
        text = (folder / "log").read_bytes()[position:] if (folder / "log").exists() else b""
        if text and b"\n" not in text and running(folder) and starts(folder) == 1:
            yield LogLine(text=text.decode(), cursor=str(position + len(text)))


@breaks("logs_resume_anywhere")
class CompactsOldLogs(ReadsLog):
    def spoil(self, folder, position, lines):
        end = folder / "exit"
        lost = position and end.exists() and time.time() - end.stat().st_mtime > 0.4
        yield from itertools.islice(lines, 1 if lost else 0, None)


@breaks("logs_end")
class FollowsToTheEnd(Reference):
    def read_log(self, folder, position):
        while True:
            alive = running(folder)
            for line in super().read_log(folder, position):
                yield line
                position = int(line.cursor)
            if not alive:
                return
            time.sleep(0.02)


@breaks("logs_are_in_order")
class SwapsLines(Reference):
    def read_log(self, folder, position):
        lines = list(super().read_log(folder, 0))
        if len(lines) > 6:
            fifth, sixth = lines[5], lines[6]
            lines[5:7] = [
                fifth.model_copy(update={"text": sixth.text}),
                sixth.model_copy(update={"text": fifth.text}),
            ]
        elif running(folder):
            lines = lines[:5]
        yield from (line for line in lines if int(line.cursor) > position)


@breaks("progress_lines_parse")
class StampsLines(ReadsLog):
    def spoil(self, folder, position, lines):
        for line in lines:
            yield line.model_copy(update={"text": f"12:00:00 {line.text}"})


@breaks("secrets_stay_secret")
class SecretInLog(Reference):
    def submit(self, plan, secrets):
        handle = super().submit(plan, secrets)
        for value in secrets.values():
            with (folder_of(handle) / "log").open("a") as log:
                log.write(f"TOKEN={value.get_secret_value()}\n")
        return handle


@breaks("secrets_stay_secret")
class SecretInOutput(Reference):
    def submit(self, plan, secrets):
        handle = super().submit(plan, secrets)
        output = folder_of(handle) / "output"
        output.mkdir(exist_ok=True)
        values = {name: value.get_secret_value() for name, value in secrets.items()}
        (output / "environment.json").write_text(json.dumps(values))
        return handle


@breaks("secrets_stay_secret")
class SecretInStatus(Reference):
    def submit(self, plan, secrets):
        handle = super().submit(plan, secrets)
        (folder_of(handle) / "token").write_text("".join(value.get_secret_value() for value in secrets.values()))
        return handle

    def read_status(self, folder):
        status = super().read_status(folder)
        token = folder / "token"
        message = f"started with {token.read_text()}" if token.exists() else status.message
        return status if status.state == State.FAILED else status.model_copy(update={"message": message})


@breaks("unknown_job_gives_nothing")
class FetchFails(Reference):
    def fetch(self, handle, into):
        if not known(root() / "jobs" / handle.job_name):
            raise BackendError("no such output", hint="run it first")
        super().fetch(handle, into)
