"""Promises about the output, and about what must never be in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from backends.conformance.promise import expect, promise

if TYPE_CHECKING:
    from backends.conformance.harness import Harness

TREE = (
    "README.md",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "metrics.jsonl",
    "predictions/few_shot.jsonl",
    "predictions/tuned.jsonl",
    "predictions/zero_shot.jsonl",
    "result.json",
)


@promise()
def fetched_tree_is_whole(harness: Harness) -> None:
    """The fetched tree has all its files, and the manifest's checksums hold."""
    output = harness.runs.output
    listed = _expect_manifest(output)
    missing = [name for name in TREE if name not in listed]
    expect(not missing, f"neither fetched nor in the manifest: {missing}")


@promise()
def fetch_completes_a_broken_fetch(harness: Harness) -> None:
    """A fetch into the folder of one that broke off completes it; one into a complete folder changes nothing."""
    handle = harness.runs.finished.handle
    folder = harness.runs.fetch(handle, "broken-off")
    whole = _contents(folder)
    victims = sorted(name for name in whole if whole[name])
    (folder / victims[0]).unlink()
    cut = folder / victims[-1]
    cut.write_bytes(cut.read_bytes()[:-1])
    for _ in range(2):
        harness.fresh().fetch(handle, folder)
        now = _contents(folder)
        differing = sorted(name for name in whole.keys() | now.keys() if whole.get(name) != now.get(name))
        expect(not differing, f"after fetching again, these differ: {differing}")


@promise()
def fetch_stays_inside(harness: Harness) -> None:
    """A fetch writes into the given folder only, and brings no link that leads out of it."""
    output = harness.runs.output
    beside = [path.name for path in output.parent.iterdir() if path != output]
    expect(not beside, f"the fetch wrote {beside} beside its folder")
    leading_out = [path for path in output.rglob("*") if not path.resolve().is_relative_to(output.resolve())]
    expect(not leading_out, f"these lead out of the folder: {leading_out}")


@promise(needs="partial_fetch")
def cancelled_job_can_be_fetched(harness: Harness) -> None:
    """What a cancelled job saved can be fetched, and is what its manifest says, if it came to write one."""
    run = harness.runs.cancelled.run
    folder = harness.runs.fetch(run.handle, "cancelled")
    expect(bool(_contents(folder)), "nothing came back of the cancelled job")
    if (folder / "manifest.json").exists():
        _expect_manifest(folder)


@promise(needs="partial_fetch")
def failed_job_can_be_fetched(harness: Harness) -> None:
    """A failed job can be fetched too; there may be nothing to fetch, which is no error."""
    harness.runs.fetch(harness.runs.raced.run.handle, "failed")


@promise()
def secrets_stay_secret(harness: Harness) -> None:
    """A secret's value stands in no plan, handle, status, log or output."""
    run = harness.runs.finished
    value = harness.secret.get_secret_value()
    places = {
        "the plan": run.job.plan.model_dump_json(by_alias=True),
        "the handle": run.handle.model_dump_json(),
        "a status": "".join(status.model_dump_json() for status in run.trail),
        "the log": "".join(line.model_dump_json() for line in run.lines + run.followed),
    }
    found = [place for place, text in places.items() if value in text]
    output = harness.runs.output
    found += [path for path in _contents(output) if value.encode() in (output / path).read_bytes()]
    expect(not found, f"the secret's value stands in {', '.join(found)}")


def _contents(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of all files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _expect_manifest(folder: Path) -> set[str]:
    """Expect the manifest's checksums to hold; the names it lists."""
    path = folder / "manifest.json"
    expect(path.exists(), f"no manifest.json among {sorted(_contents(folder))}")
    listed = json.loads(path.read_text(encoding="utf-8"))["files"]
    there = _contents(folder)
    wrong = sorted(name for name, told in listed.items() if there.get(name) != told["sha256"])
    expect(not wrong, f"missing, or not as the manifest says: {wrong}")
    return set(listed)
