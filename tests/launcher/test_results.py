"""What a fetched folder is checked for."""

from __future__ import annotations

import hashlib
import json

import pytest

from backends.interface import BackendError
from launcher import results


def write(folder, **files):
    for name, text in files.items():
        (folder / name).write_text(text)
    told = {
        name: {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)} for name, text in files.items()
    }
    (folder / "manifest.json").write_text(json.dumps({"files": told}))


def test_a_whole_tree_has_nothing_wrong(tmp_path):
    write(tmp_path, a="1", b="22")
    assert results.verify(tmp_path) == []


@pytest.mark.parametrize("text", ["2", "11", None])
def test_changed_longer_and_missing_files_are_found(tmp_path, text):
    write(tmp_path, a="1", b="22")
    (tmp_path / "a").unlink() if text is None else (tmp_path / "a").write_text(text)
    assert results.verify(tmp_path) == ["a"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}'])
def test_a_broken_manifest_is_found(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    assert results.verify(tmp_path) == ["manifest.json"]


def test_no_manifest_is_found(tmp_path):
    assert results.verify(tmp_path) == ["manifest.json"]


@pytest.mark.parametrize("name", ["../evil", "/etc/hostname"])
def test_names_that_lead_out_are_found(tmp_path, name):
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": "", "bytes": 0}}}))
    assert results.verify(tmp_path) == [name]


def test_links_that_lead_out_are_refused(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(BackendError, match="leads out"):
        results.refuse_unsafe(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "state.pt", "x.pkl"])
def test_weights_that_run_code_are_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(BackendError, match="not safetensors"):
        results.refuse_unsafe(tmp_path)
    assert not (tmp_path / name).exists()
