"""Publishing a job by the hub's own client on a hub on loopback, and the card as the hub reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.clouds.writable_hub import Hub, running
from tests.end_to_end.conftest import Run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running("hf_of_the_test") as hub:
        for name, value in (("HF_ENDPOINT", hub.url), ("HF_TOKEN", hub.token), ("HF_HUB_DISABLE_XET", "1")):
            monkeypatch.setenv(name, value)
        yield hub


def push(ftlaunch: Run, *arguments: str | Path, code: int = 0) -> str:
    """The command, allowed to use the network; gives standard output, or standard error where it fails."""
    done = ftlaunch("push", *arguments, code=code, HF_HUB_OFFLINE="0")
    return done.stderr if code else done.stdout


def test_adapter_and_card_arrive_and_no_row_does(hub: Hub, hostile: Path, ftlaunch: Run) -> None:
    told = json.loads(push(ftlaunch, hostile, "my-team/sorts", "--private", "--json"))
    assert told["url"].endswith("/my-team/sorts")
    assert hub.private == {"my-team/sorts": True}
    files, out = hub.repositories["my-team/sorts"], hostile / "out"
    assert files["adapter_model.safetensors"] == (out / "adapter" / "adapter_model.safetensors").read_bytes()
    assert files["README.md"] == (out / "README.md").read_bytes()
    assert {"adapter_config.json", "tokenizer.json"} <= files.keys()
    assert not any("jsonl" in name for name in files)
    assert len(hub.messages) == 1
    push(ftlaunch, hostile, "my-team/sorts")  # a second time it is there already, which is no error
    assert len(hub.messages) == 2


def test_the_card_is_one_by_the_hubs_own_reader(hostile: Path) -> None:
    result = json.loads((hostile / "out" / "result.json").read_text())
    card = ModelCard.load(hostile / "out" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-classification")
    assert card.data.base_model is None  # a folder of this machine means nothing there
    (score,) = card.data.eval_results
    assert score.metric_value == result["evaluations"]["tuned"]["metrics"]["macro_f1"]
    assert result["verdict"]["text"] in card.text
    for split in ("train", "validation", "test"):
        assert f"| {split} | {result['data'][split]['rows']} |" in card.text
    digests = json.loads((hostile / "out" / "manifest.json").read_text())["environment"]["data"]
    assert len(digests) == 3
    assert all(digest in card.text for digest in digests.values())


def test_refusals_are_told_in_words(hub: Hub, hostile: Path, ftlaunch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ORGANISATION/NAME" in push(ftlaunch, hostile, "no id at all", code=2)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "HF_TOKEN" in push(ftlaunch, hostile, "my-team/sorts", code=3)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in push(ftlaunch, hostile, "my-team/sorts", code=3)
    assert os.environ["HF_TOKEN"] not in push(ftlaunch, hostile, "my-team/sorts", code=3)
