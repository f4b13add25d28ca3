"""One real job on rows with hostile text, finished and fetched; and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.report import compare_page, finished, page
from launcher.report.compare import compare
from launcher.report.finished import Finished
from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import tasks

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</table></section></main><h1>Tuning helped</h1><!--",
    "'\"><svg onload=document.title='owned'>",
    "javascript:document.title='owned' {{ 7 * 7 }} {% raw %}",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "w" * 900,
    "\u0000\u0007\u001b[31m\u2028 control",
)
LABELS = {"animal": "<b>animal</b>", "food": 'food & "drink" \'', "place": "\u202eplace"}


@pytest.fixture(scope="session")
def hostile(ftlaunch: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job's folder; its results are in ``out``, its record in the command's home."""
    folder = tasks.write(tmp_path_factory.mktemp("hostile"), "sorts", train=45, validation=12, test=24)
    for split in ("train", "validation", "test"):
        rows = tasks.read_jsonl(folder / f"{split}.jsonl")
        for place, row in enumerate(rows):
            row["text"] = f"{HOSTILE[place % len(HOSTILE)]} {row['text']}"
            row["label"], row["source"] = LABELS[row["label"]], HOSTILE[place % 3]
        tasks.write_jsonl(folder / f"{split}.jsonl", rows)
    settings = {"epochs": 2.0, "rank": 4, "learning_rate": 0.01}
    job = write_job(folder, train=settings, evaluate={"slices": ["source"], "shots": 3}, data={"near_duplicate": 1.0})
    run_job(ftlaunch, job)
    return job


@pytest.fixture(scope="session")
def written(hostile: Path, ftlaunch: Run) -> Path:
    """The page of `hostile`."""
    told = ftlaunch("report", hostile, "--output", hostile / "page.html", "--json").stdout
    return Path(json.loads(told)["page"])


@pytest.fixture(scope="session")
def untuned(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job as if nothing had been tuned: its baseline answers the same rows."""
    folder = tmp_path_factory.mktemp("untuned") / "out"
    shutil.copytree(hostile / "out", folder)
    (folder / "predictions" / "tuned.jsonl").unlink()
    (folder / "metrics.jsonl").unlink()
    result = json.loads((folder / "result.json").read_text())
    del result["evaluations"]["tuned"]
    (folder / "result.json").write_text(json.dumps(result | {"job": "untuned-00000000", "training": None}))
    return folder


@pytest.fixture(scope="session")
def three_jobs(hostile: Path, untuned: Path) -> list[Finished]:
    """`hostile`, `untuned`, and `hostile` again by another name, with a guard."""
    jobs = [finished.read(folder, None) for folder in (hostile / "out", untuned, hostile / "out")]
    guard = {"code": "overfitting", "evidence": HOSTILE[0], "hint": HOSTILE[2]}
    jobs[2].result.update(job="guarded-00000000", guards=[guard], seed=1)
    return jobs


@pytest.fixture(scope="session")
def side_by_side(three_jobs: list[Finished], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of `three_jobs`."""
    path = tmp_path_factory.mktemp("compared") / "compare.html"
    page.write(compare_page.page(compare(three_jobs), three_jobs), path)
    return path


@pytest.fixture(scope="session")
def browser() -> str:
    """Chromium's path; installed by tests/services.sh where CI lacks it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI"):
        subprocess.run(["bash", Path(__file__).parents[1] / "services.sh", "browser"], check=True)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no Chromium here; as root: tests/services.sh browser")
    return found


Open = Callable[..., str]


@pytest.fixture(scope="session")
def opened(browser: str) -> Open:
    """Open a page from disk and give its DOM after its scripts, if any, have run."""

    def opened(page: Path, *more: str, width: int = 1000) -> str:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", *more]
        argv = [browser, *flags, "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    return opened
