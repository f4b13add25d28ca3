"""A training that diverged comes to no verdict; its page says why, how far it came, and what to try next."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.conftest import Run, ftlaunch, write_job  # noqa: F401
from tests.report.reading import section
from tests.tiny_model import tasks


def test_the_page_of_a_diverged_training_names_the_reason(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "diverged", "colours", train=60, validation=12, test=24)
    # Without a warm-up the first steps leave all reason behind.
    job = write_job(folder, train={"epochs": 5.0, "learning_rate": 1.0, "warmup": 0.0, "patience": 0})
    name = json.loads(ftlaunch("run", job, "--json", "--output", tmp_path / "out", code=1).stdout)["job"]
    assert "ftlaunch fetch" in ftlaunch("report", name, code=2).stderr
    ftlaunch("fetch", name, "--output", tmp_path / "out")
    text = Path(json.loads(ftlaunch("report", name, "--json").stdout)["page"]).read_text()
    head = text.partition("<header")[2].partition("</header>")[0]
    assert "The job failed" in head
    assert "at step" in head or "by step" in head
    assert "Lower train.learning_rate to a third" in head
    assert "<svg" in section(text, "curves")
