"""Files on their way to the datastore and back: nothing twice, nothing by half, nothing outside of its folder."""

import hashlib
import os
import secrets
from pathlib import Path

import pytest
from pydantic import SecretStr

from backends import azure_logs, azureml_secrets
from backends.azure_calls import Account, Workspace
from backends.azure_storage import Store
from backends.interface import BackendError


@pytest.fixture(scope="module")
def account(azure):
    return Account(Workspace(azure.subscription, azure.group, azure.workspace))


@pytest.fixture(scope="module")
def container(account, azure):
    return account.blobs(azure.storage.account).get_container_client(azure.storage.container)


@pytest.fixture
def place():
    return f"storage/{secrets.token_hex(6)}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder: Path, **contents: bytes) -> dict[str, Path]:
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    return paths


def test_azureml_no_content_is_sent_twice(azure, container, place, tmp_path):
    large = os.urandom(70 << 20)  # more than one request takes
    files = write(tmp_path, rows=b"rows" * 100, weights=large, more=b"rows" * 100)
    inputs = {name: sha256(path) for name, path in files.items()}

    def send(folder, chosen):
        before = azure.storage.received.value
        store = Store(container, f"{place}/data/{folder}")
        store.send_files(f"{place}/files", {name: inputs[name] for name in chosen}, files)
        return azure.storage.received.value - before

    assert send("one", ["rows", "weights"]) >= len(large)
    assert send("one", ["rows", "weights"]) == 0
    assert send("two", ["rows", "weights", "more"]) == 0  # another listing of known contents: the account copies
    assert azure.storage.blobs.download_blob(f"{place}/data/two/weights").readall() == large


def test_azureml_a_file_that_changed_is_not_sent(azure, container, place, tmp_path):
    files = write(tmp_path, rows=b"old")
    inputs = {"rows": sha256(files["rows"])}
    files["rows"].write_bytes(b"new")
    with pytest.raises(BackendError, match="changed while"):
        Store(container, f"{place}/data/one").send_files(f"{place}/files", inputs, files)
    assert list(azure.storage.blobs.list_blob_names(name_starts_with=place)) == []


def test_azureml_a_text_is_sent_when_it_is_another(azure, container, place):
    store = Store(container, place)

    def send(text):
        before = azure.storage.received.value
        store.send_text("spec.json", text)
        return azure.storage.received.value - before

    assert [send("one") > 0, send("one"), send("other") > 0] == [True, 0, True]


def test_azureml_a_fetch_goes_on_where_it_broke_off(azure, container, place, tmp_path):
    content = os.urandom(3 << 20)
    blob = azure.storage.blobs.upload_blob(f"{place}/folder/weights", content)
    etag = blob.get_blob_properties().etag.strip('"')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"weights.{etag}.part").write_bytes(content[: 2 << 20])
    before = azure.storage.sent.value
    assert Store(container, place).fetch(tmp_path) == 1
    assert (tmp_path / "folder" / "weights").read_bytes() == content
    assert azure.storage.sent.value - before <= 1 << 20
    assert Store(container, place).fetch(tmp_path) == 1  # what is there stays
    assert azure.storage.sent.value - before <= 1 << 20
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["weights"]


def test_azureml_a_fetch_survives_connections_that_break_off(azure, container, place, tmp_path):
    content = os.urandom(4 << 20)
    azure.storage.blobs.upload_blob(f"{place}/weights", content)
    with azure.trouble(drop=True):
        Store(container, place).fetch(tmp_path)
    assert (tmp_path / "weights").read_bytes() == content


def test_azureml_a_name_in_the_container_cannot_lead_out(azure, container, place, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    azure.storage.blobs.upload_blob(f"{place}//tmp/evil", b"evil")  # of ".." no client and no server would make a name
    with pytest.raises(BackendError, match="evil"):
        Store(container, place).fetch(into)
    assert [path.name for path in tmp_path.iterdir()] == ["into"]


def test_azureml_lines_are_given_whole_and_the_last_one_at_the_end(azure, place):
    log = azure.storage.logs.get_blob_client(f"{place}/std_log.txt")
    log.create_append_blob()
    files = {"job": {"user_logs/std_log.txt": azure.storage.signed(log.container_name, log.blob_name)}}

    def read(after, ended=False):
        return list(azure_logs.lines(files, ended, after))

    assert read(None) == []
    log.append_block("one\ntw\u00e9".encode()[:-1])  # a piece ends inside of a letter
    first = read(None)
    assert [line.text for line in first] == ["one"]
    log.append_block("\u00e9\r\nthree".encode()[1:])
    assert [line.text for line in read(first[-1].cursor)] == ["tw\u00e9"]
    assert [line.text for line in read(first[-1].cursor, ended=True)] == ["tw\u00e9", "three"]
    assert read(read(None, ended=True)[-1].cursor, ended=True) == []


def test_azureml_a_cursor_of_something_else_is_refused():
    with pytest.raises(BackendError, match="no cursor"):
        list(azure_logs.lines({}, False, "[1, 2]"))


def test_azureml_a_secret_that_was_deleted_is_put_again(azure, account):
    """A vault keeps what was deleted, and refuses the name for that long."""
    where = f"keyvault:https://{azure.vault.host}/secrets/ftlaunch-again"
    properties = {"environmentVariables": {"FTLAUNCH_SECRET_TOKEN": where, "FTLAUNCH_MAX_SECONDS": "1"}}
    azureml_secrets.put(account, "job", properties, {"TOKEN": SecretStr("one")})
    azureml_secrets.delete(account, properties)
    azureml_secrets.delete(account, properties)
    azureml_secrets.put(account, "job", properties, {"TOKEN": SecretStr("two")})
    assert azure.vault.values["ftlaunch-again"]["value"] == "two"
    azureml_secrets.delete(account, properties)
