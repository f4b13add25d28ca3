"""A trial of a sweep: trained and judged on the validation rows; a test row has no way into it."""

from __future__ import annotations

import json

from tests.training.conftest import Entry


def make_trial(entry: Entry, *, with_test: bool) -> None:
    entry.write(max_steps=6)
    path = entry.folder / "spec.json"
    spec = json.loads(path.read_text()) | {"goal": "trial"}
    if not with_test:
        spec["data"]["test"], spec["data"]["split"] = None, {"validation": 0.0, "test": 0.0}
        (entry.folder / "data" / "test.jsonl").unlink()
    path.write_text(json.dumps(spec))


def test_a_trial_is_judged_on_the_validation_rows_alone(entry: Entry) -> None:
    make_trial(entry, with_test=False)
    entry.run()
    result = entry.result
    told = [json.loads(line) for line in (entry.folder / "output" / "metrics.jsonl").read_text().splitlines()]
    values = [line["validation/macro_f1"] for line in told if "validation/macro_f1" in line]
    assert result["training"]["best_value"] == max(values)
    assert (result["evaluations"], result["verdict"], result["data"]["test"]["used"]) == ({}, None, 0)
    assert not (entry.folder / "output" / "adapter").exists()
    assert not (entry.folder / "output" / "predictions").exists()
    assert (entry.folder / "output" / "manifest.json").exists()


def test_a_trial_that_is_given_test_rows_refuses(entry: Entry) -> None:
    make_trial(entry, with_test=True)
    assert "a trial must not be given test rows" in entry.run(code=2)
