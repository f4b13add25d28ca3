"""The record of jobs, used by several launchers at once."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from backends.interface import Handle, Reason, State, Status
from launcher.store import Record, Store
from training_image.errors import InputError


def record(job: str = "a-1", content: str = "c", attempt: int = 0) -> Record:
    return Record(
        job=job,
        content=content,
        attempt=attempt,
        backend="local",
        job_file="/x",
        as_submitted="",
        plan=None,
        target="/runs",
    )


def test_what_is_added_comes_back(tmp_path):
    store = Store(tmp_path)
    first = store.add(record())
    assert store.get("a-1") == first
    handle = Handle(backend="local", job_name="a-1", data={"x": 1})
    changed = store.update("a-1", handle=handle, metrics={"train/loss": 1.5}, state=State.FAILED, reason=Reason.QUOTA)
    store.close()
    again = Store(tmp_path).get("a-1")
    assert (
        again == changed == replace(first, handle=handle, metrics={"train/loss": 1.5}, state="FAILED", reason="QUOTA")
    )


def test_the_end_is_when_it_was_first_seen(tmp_path):
    store = Store(tmp_path)
    store.add(record())
    ended = store.observe("a-1", Status(state=State.FAILED, reason=Reason.QUOTA, billable_seconds=5)).ended
    assert ended is not None
    assert store.observe("a-1", Status(state=State.FAILED, reason=Reason.QUOTA)).ended == ended
    assert store.get("a-1").billable_seconds == 5
    assert store.observe("a-1", Status(state=State.RUNNING)).ended is None


def test_what_a_place_says_of_an_end_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hunter2-0123456789")
    store = Store(tmp_path)
    store.add(replace(record(), secrets=["MY_TOKEN"]))
    told = store.observe("a-1", Status(state=State.FAILED, message="Illegal header value 'Bearer hunter2-0123456789'"))
    assert told.message == store.get("a-1").message == "Illegal header value 'Bearer ***'"


def _add(folder: Path, number: int) -> str:
    store = Store(folder)
    with store.lock("a"):
        return store.add(record(job=f"a-{number}")).job


def test_many_launchers_agree_on_one_job(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        told = pool.starmap(_add, [(tmp_path, number) for number in range(8)])
    assert len(set(told)) == 1
    assert len(Store(tmp_path).jobs()) == 1


def _die_with_the_lock(folder: Path) -> None:
    import os

    with Store(folder).lock("a"):
        os.kill(os.getpid(), 9)


def test_a_dead_launcher_holds_no_lock(tmp_path):
    Store(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=_die_with_the_lock, args=(tmp_path,))
    process.start()
    process.join()
    with Store(tmp_path).lock("a", waiting=lambda: pytest.fail("the lock is held")):
        pass


def test_a_newer_record_is_not_touched(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "jobs.db") as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer ftlaunch"):
        Store(tmp_path)


def test_what_is_no_database_is_told(tmp_path):
    (tmp_path / "jobs.db").write_text("this is no database, and it is long enough to be looked at " * 20)
    with pytest.raises(InputError, match="cannot use the record"):
        Store(tmp_path)


def test_wal_and_a_busy_timeout(tmp_path):
    store = Store(tmp_path)
    assert store.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store.connection.execute("PRAGMA busy_timeout").fetchone()[0] >= 10_000


def test_digests_are_remembered_by_time_and_size(tmp_path):
    store = Store(tmp_path)
    store.remember_digest("/x", 1, 2, "abc")
    assert store.remembered_digest("/x", 1, 2) == "abc"
    assert store.remembered_digest("/x", 1, 3) is None
    assert store.remembered_digest("/x", 2, 2) is None


def test_an_unknown_column_is_a_fault(tmp_path):
    store = Store(tmp_path)
    store.add(record())
    with pytest.raises(KeyError):
        store.update("a-1", nope=1)


def test_the_record_is_the_users_alone(tmp_path):
    Store(tmp_path)
    assert stat.S_IMODE((tmp_path / "jobs.db").stat().st_mode) == 0o600
