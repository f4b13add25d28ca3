"""A hub id takes the same path as a folder: model and rows from a hub on this machine, by the hub's own client."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.clouds import hub
from tests.end_to_end.conftest import Run, ftlaunch  # noqa: F401
from tests.tiny_model import MODEL, tasks


def write_job(folder: Path, model: str = "org/tiny", train: str = "hub:org/colours") -> Path:
    folder.mkdir(exist_ok=True)
    job = {
        "model": {"id": model},
        "data": {"train": train, "max_length": 96},
        "task": {"type": "classification"},
        "train": {"max_steps": 3, "rank": 4},
        "evaluate": {"enough": None, "forgetting": False, "resamples": 200},
    }
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job))
    return folder


def test_model_and_rows_of_a_hub(ftlaunch: Run, tmp_path: Path) -> None:
    tasks.write(tmp_path / "rows", "colours", train=90, validation=1, test=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "rows" / "train.jsonl").rename(tmp_path / "set" / "train.jsonl")
    with hub.running({"models/org/tiny": MODEL, "datasets/org/colours": tmp_path / "set"}) as place:
        online = {"HF_ENDPOINT": place.endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        job = write_job(tmp_path / "job")
        assert json.loads(ftlaunch("check", job, "--json", **online).stdout)["ok"]
        done = ftlaunch("run", job, "--json", "--output", tmp_path / "out", **online)
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        assert json.loads(done.stdout)["state"] == "SUCCEEDED"
        assert (result["model"]["id"], result["model"]["revision"]) == ("org/tiny", hub.COMMIT)
        assert result["data"]["train"]["rows"] + sum(result["data"][s]["rows"] for s in ("validation", "test")) == 90
        config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", hub.COMMIT)
        for what in ({"model": "org/nothing"}, {"train": "hub:org/nothing"}):
            missing = ftlaunch("check", write_job(tmp_path / "missing", **what), code=2, **online)
            assert "org/nothing" in missing.stdout
    assert json.loads(ftlaunch("check", job, "--json", **online).stdout)["ok"]  # from the cache, without the hub
    # The branch has moved on, so that no base is found by it any more: what was tuned asks for its commit.
    (tmp_path / "cache" / "hub" / "models--org--tiny" / "refs" / "main").unlink()
    name = json.loads(done.stdout)["job"]
    ftlaunch("export", name, "--merged", "--output", tmp_path / "merged", **online)
    asked = ftlaunch("try", name, "The dog is red.", "--json", **online)
    assert json.loads(asked.stdout)


def test_a_hub_out_of_reach_is_told_at_once(ftlaunch: Run, tmp_path: Path) -> None:
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    for what in ({"train": "hub:org/colours"}, {"train": "rows.jsonl"}):  # rows, then the model
        job = write_job(tmp_path / "job", **what)
        rows = [{"text": f"The {word} fell.", "label": word} for word in ("dog", "cat") for _ in range(40)]
        tasks.write_jsonl(job / "rows.jsonl", rows)
        done = ftlaunch("check", job, "--json", code=2, **away)
        codes = [finding["code"] for finding in json.loads(done.stdout)["findings"] if finding["level"] == "error"]
        assert codes[-1] == ("hub" if what["train"].startswith("hub:") else "model")
        assert "Retrying" not in done.stderr
