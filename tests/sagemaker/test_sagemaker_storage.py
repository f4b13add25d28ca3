"""Files on their way to the bucket and back: nothing twice, nothing by half, nothing outside of its folder."""

import gzip
import hashlib
import io
import os
import secrets
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.aws_calls import Account, call
from backends.aws_storage import ARCHIVE, Store, fetch_archive
from backends.interface import BackendError

BUCKET = "sagemaker-storage"


@pytest.fixture(scope="module")
def s3(aws):
    make_bucket(aws)
    return Account(aws.region).client("s3")


def make_bucket(aws):
    aws.s3.create_bucket(Bucket=BUCKET)


@pytest.fixture
def place():
    return f"ftlaunch/{secrets.token_hex(6)}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder: Path, **contents: bytes) -> dict[str, Path]:
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return paths


def test_sagemaker_no_content_is_sent_twice(aws, s3, place, tmp_path):
    large = os.urandom(9 << 20)  # several parts of a multipart upload
    files = write(tmp_path, rows=b"rows" * 100, weights=large, more=b"rows" * 100)
    inputs = {name: sha256(path) for name, path in files.items()}
    pool = f"{place}/files"

    def send(folder, chosen):
        before = aws.received.value
        store = Store(s3, f"s3://{BUCKET}/{place}/data/{folder}")
        store.send_files(pool, {name: inputs[name] for name in chosen}, files)
        return aws.received.value - before

    assert send("one", ["rows", "weights"]) >= len(large)
    assert send("one", ["rows", "weights"]) == 0
    assert send("two", ["rows", "weights", "more"]) == 0  # another listing of known contents: S3 copies
    got = aws.s3.get_object(Bucket=BUCKET, Key=f"{place}/data/two/weights")["Body"].read()
    assert got == large


def test_sagemaker_a_file_that_changed_is_not_sent(s3, place, tmp_path):
    files = write(tmp_path, rows=b"old")
    inputs = {"rows": sha256(files["rows"])}
    files["rows"].write_bytes(b"new")
    store = Store(s3, f"s3://{BUCKET}/{place}/data/one")
    with pytest.raises(BackendError, match="changed while"):
        store.send_files(f"{place}/files", inputs, files)
    assert store.keys() == {}


def break_an_upload(aws, s3, place, folder):
    """Send a file of several parts none of which is taken."""
    files = write(folder, weights=os.urandom(9 << 20))
    store = Store(s3, f"s3://{BUCKET}/{place}/data/one")
    with aws.trouble(refused="UploadPart"), pytest.raises(BackendError, match="refused by the test"):
        store.send_files(f"{place}/files", {"weights": sha256(files["weights"])}, files)


def test_sagemaker_a_broken_upload_leaves_no_parts_on_the_bill(aws, s3, place, tmp_path, monkeypatch):
    """Nor is there a wait for the other parts, which the first refusal interrupts."""
    waits = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=waits.append))
    break_an_upload(aws, s3, place, tmp_path)
    assert waits == []
    assert aws.calls[-1].operation == "AbortMultipartUpload"
    assert "Uploads" not in aws.s3.list_multipart_uploads(Bucket=BUCKET)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def plain(name: str, content: bytes = b"content") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, target: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


@pytest.mark.parametrize(
    "evil",
    [
        plain("../outside"),
        plain("folder/../../outside"),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "inside"),
        special("link", tarfile.LNKTYPE, "../outside"),
        special("device", tarfile.CHRTYPE, ""),
        special("pipe", tarfile.FIFOTYPE, ""),
    ],
    ids=["up", "up-again", "symlink-out", "symlink-in", "hard-link", "device", "pipe"],
)
def test_sagemaker_an_evil_archive_stays_outside(s3, aws, place, tmp_path, evil):
    aws.s3.put_object(Bucket=BUCKET, Key=place, Body=archive(plain("inside"), evil))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BackendError, match="cannot be unpacked") as refused:
        fetch_archive(s3, f"s3://{BUCKET}/{place}", into)
    assert refused.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["into"]
    assert {path.name for path in into.iterdir()} <= {"inside"}


def test_sagemaker_an_absolute_name_lands_inside(s3, aws, place, tmp_path):
    aws.s3.put_object(Bucket=BUCKET, Key=place, Body=archive(plain("/tmp/ftlaunch-outside")))
    fetch_archive(s3, f"s3://{BUCKET}/{place}", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [
        "tmp/ftlaunch-outside"
    ]


@pytest.mark.parametrize("rest", [b"", b"\xff" * 300], ids=["cut", "damaged"])
def test_sagemaker_a_broken_archive_is_named(s3, aws, place, tmp_path, rest):
    body = archive(plain("inside", " ".join(map(str, range(50_000))).encode()))
    aws.s3.put_object(Bucket=BUCKET, Key=place, Body=body[: len(body) // 2] + rest)
    with pytest.raises(BackendError, match="cannot be unpacked"):
        fetch_archive(s3, f"s3://{BUCKET}/{place}", tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_sagemaker_a_fetch_goes_on_where_it_broke_off(s3, aws, place, tmp_path):
    content = os.urandom(3 << 20)
    whole = archive(plain("weights", content))
    told = aws.s3.put_object(Bucket=BUCKET, Key=place, Body=whole)
    (tmp_path / ARCHIVE.format(told["ETag"].strip('"'))).write_bytes(whole[: len(whole) // 2])
    (tmp_path / ARCHIVE.format("of-another-run")).write_bytes(os.urandom(1000))
    before = aws.sent.value
    fetch_archive(s3, f"s3://{BUCKET}/{place}", tmp_path)
    assert (tmp_path / "weights").read_bytes() == content
    assert aws.sent.value - before < len(whole) * 0.6
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_sagemaker_a_fetch_survives_connections_that_break_off(s3, aws, place, tmp_path):
    content = gzip.compress(os.urandom(4 << 20))
    aws.s3.put_object(Bucket=BUCKET, Key=place, Body=archive(plain("weights", content)))
    with aws.trouble(drop=True):
        fetch_archive(s3, f"s3://{BUCKET}/{place}", tmp_path)
    assert (tmp_path / "weights").read_bytes() == content


def test_sagemaker_a_second_fetch_brings_only_what_is_not_there(s3, aws, place, tmp_path):
    for name in ("kept", "stale", "new"):
        aws.s3.put_object(Bucket=BUCKET, Key=f"{place}/{name}", Body=name.encode() * 100)
    store = Store(s3, f"s3://{BUCKET}/{place}")
    assert store.fetch(tmp_path) == 3
    (tmp_path / "stale").write_bytes(b"STALE" * 100)  # of the same size
    (tmp_path / "new").unlink()
    before = aws.sent.value
    assert store.fetch(tmp_path) == 3
    assert aws.sent.value - before == len("stale" * 100) + len("new" * 100)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: name * 100 for name in ("kept", "stale", "new")
    }


def test_sagemaker_a_name_in_the_bucket_cannot_lead_out(s3, aws, place, tmp_path):
    aws.s3.put_object(Bucket=BUCKET, Key=f"{place}/../../evil", Body=b"evil")
    with pytest.raises(BackendError, match="evil"):
        Store(s3, f"s3://{BUCKET}/{place}").fetch(tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


def test_sagemaker_answers_cut_off_are_asked_for_again(aws):
    """botocore reads half a JSON document as an empty one."""
    client = Account(aws.region).client("ecr")
    with aws.trouble(drop=True):
        for _ in range(3):
            assert call(client.get_authorization_token)["authorizationData"]
