"""Files on their way to the bucket and back: nothing twice, nothing by half, nothing outside of its folder."""

import hashlib
import os
import secrets
import threading
from pathlib import Path

import pytest

from backends.google_calls import Account
from backends.google_storage import Store, location, make_bucket
from backends.interface import BackendError
from tests.clouds.google.project import USER, permissions

BUCKET = "loopback-storage"


@pytest.fixture(scope="module")
def account(google):
    account = Account(google.project, google.region)
    make_bucket(account, BUCKET)
    return account


@pytest.fixture
def place():
    return f"ftlaunch/{secrets.token_hex(6)}"


def write(folder: Path, **contents: bytes) -> dict[str, Path]:
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return paths


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_vertex_bucket_is_made_once_and_private(google, account):
    assert make_bucket(account, BUCKET) is False
    assert location(account, BUCKET) == google.region.upper()
    assert location(account, "no-such-bucket") is None
    told = google.buckets.storage.get_bucket(BUCKET)["iamConfiguration"]
    assert told["uniformBucketLevelAccess"]["enabled"]
    assert told["publicAccessPrevention"] == "enforced"


def test_vertex_a_bucket_of_another_project_gets_no_data(google, account, monkeypatch):
    """Anybody may have taken the name, which can be foretold, and opened the bucket to everybody."""
    google.buckets.make("squatted-bucket", "US")
    with pytest.raises(BackendError, match="another project than loopback-project"):
        make_bucket(account, "squatted-bucket")
    monkeypatch.setitem(google.accounts.permissions, USER, permissions() - {"serviceusage.services.get"})
    with pytest.raises(BackendError, match="whose the bucket loopback-storage is cannot be told"):
        make_bucket(account, BUCKET)
    google.denied.clear()


def test_vertex_no_content_is_sent_twice(google, account, place, tmp_path):
    large = os.urandom(9 << 20)  # a resumable upload
    files = write(tmp_path, rows=b"rows" * 100, weights=large, more=b"rows" * 100)
    inputs = {name: sha256(path) for name, path in files.items()}

    def send(folder, chosen):
        before = google.buckets.received.value
        Store(account, f"gs://{BUCKET}/{place}/data/{folder}").send_files(
            f"{place}/files", {name: inputs[name] for name in chosen}, files
        )
        return google.buckets.received.value - before

    assert send("one", ["rows", "weights"]) >= len(large)
    assert send("one", ["rows", "weights"]) == 0
    assert send("two", ["rows", "weights", "more"]) == 0  # another listing of known contents: the service copies
    assert google.buckets.contents(BUCKET)[f"{place}/data/two/weights"] == large


def test_vertex_a_file_that_changed_is_not_sent(account, place, tmp_path):
    files = write(tmp_path, rows=b"old")
    inputs = {"rows": sha256(files["rows"])}
    files["rows"].write_bytes(b"new")
    store = Store(account, f"gs://{BUCKET}/{place}/data/one")
    with pytest.raises(BackendError, match="changed while"):
        store.send_files(f"{place}/files", inputs, files)
    assert store.names() == []


def test_vertex_of_many_claims_one_is_granted(account, place):
    store, barrier, got = Store(account, f"gs://{BUCKET}/{place}"), threading.Barrier(5), []

    def claim():
        barrier.wait()
        got.append(Store(Account(account.project, account.region), f"gs://{BUCKET}/{place}").create("claim"))

    threads = [threading.Thread(target=claim) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 4 + [True]
    store.remove("claim")
    store.remove("claim")
    assert store.create("claim")


@pytest.mark.parametrize("calls", [0, 1], ids=["cut-at-once", "cut-later"])
def test_vertex_a_claim_whose_answer_was_lost_is_its_makers(google, account, place, calls):
    store = Store(account, f"gs://{BUCKET}/{place}")
    with google.trouble(drop=True):
        google.troubles.calls = calls
        assert store.create("claim")
        assert not store.create("claim")


def test_vertex_a_fetch_goes_on_where_it_broke_off(google, account, place, tmp_path):
    contents = {"weights": os.urandom(1 << 20), "rows": b"rows", "empty": b""}
    folder = google.buckets.folder / BUCKET / place / "inner"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)  # as a machine writes through its mount
    store = Store(account, f"gs://{BUCKET}/{place}")
    assert store.fetch(tmp_path) == 3
    (tmp_path / "inner" / "rows").write_bytes(b"row")
    before = google.buckets.sent.value
    store.fetch(tmp_path)
    assert google.buckets.sent.value - before == len(contents["rows"])
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents


def test_vertex_a_fetch_survives_connections_that_break_off(google, account, place, tmp_path):
    content = os.urandom(1 << 20)
    (google.buckets.folder / BUCKET / place).mkdir(parents=True)
    (google.buckets.folder / BUCKET / place / "weights").write_bytes(content)
    with google.trouble(drop=True):
        Store(account, f"gs://{BUCKET}/{place}").fetch(tmp_path)
    assert (tmp_path / "weights").read_bytes() == content


def test_vertex_a_name_in_the_bucket_cannot_lead_out(google, account, place, tmp_path):
    store = Store(account, f"gs://{BUCKET}/{place}")
    store.send_text("good", "good")
    objects = google.buckets.storage.objects[BUCKET]  # the emulator itself takes no such name
    evil = f"{place}/../../evil"
    objects[evil] = objects[f"{place}/good"] | {"name": evil}
    try:
        with pytest.raises(BackendError, match="evil"):
            store.fetch(tmp_path / "into")
    finally:
        del objects[evil]
    assert list(tmp_path.iterdir()) == []
