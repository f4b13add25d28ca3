"""The long walk from a data set to a decision on the bundled example: screen, sweep with a kill, report, screenshots.

Usage: python -m proof.decision; exits with 1 where a promise does not hold; writes docs/proof/decision.md and
docs/report.png, docs/report-phone.png, docs/compare.png with Chromium (`tests/services.sh browser` installs it).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from launcher.demo_model import DEMO_MODEL, made_apart
from launcher.models_cache import folder_of

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "definitions"
TINY = "ftlaunch/tiny"
"""A model that a script of ours trains (tests/tiny_model/train_tiny_model.py), made ready here under this id."""
FTLAUNCH = str(Path(sys.executable).with_name("ftlaunch"))
SHORT = ("--backend", "local", "--set", "train.max_steps=30", "--set", "train.evaluations_per_epoch=3")
"""Two thirds of an epoch, with two validations: what two cores bear eight times."""
SWEEP = (
    *("sweep", str(DATA), "--trials", "8", "--at-once", "2", *SHORT),
    *("--search", "train.learning_rate=2e-4..4e-3", "--search", "train.rank=8,16,32", "--json"),
)


def main() -> int:
    """Walk; gives the exit code."""
    if shutil.which("chromium") is None:
        sys.exit("no Chromium for the screenshots: tests/services.sh browser")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FTLAUNCH_HOME": folder, "HF_HUB_OFFLINE": "1"}
        made_apart()
        shutil.copytree(ROOT / "tests" / "tiny_model" / "model", folder_of(TINY))
        began = time.monotonic()
        screened = run(folder, "screen", str(DATA), "--models", f"{DEMO_MODEL},{TINY}", "--json")
        screen_seconds = time.monotonic() - began
        before = killed_after(folder, ended=3)
        began = time.monotonic()
        swept = run(folder, *SWEEP)
        lines, broken = judge(screened, screen_seconds, swept, before, time.monotonic() - began)
        plain = run(folder, str(DATA), *SHORT, "--json")
        names = swept["job"]["job"], plain["job"]
        page, beside = Path(folder) / "report.html", Path(folder) / "compare.html"
        run(folder, "report", names[0], "--output", str(page), "--json")
        lines += compared(run(folder, "compare", *names, "--output", str(beside), "--json"))
        pictures(page, beside)
        broken += at_once(run(folder, "jobs", "--json"))
    if broken:
        lines += ["", "What does not hold:", "", *(f"- {line}" for line in broken)]
    (ROOT / "docs" / "proof" / "decision.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


def run(folder: str, *arguments: str) -> Any:
    """A command's JSON document."""
    done = subprocess.run([FTLAUNCH, *arguments], cwd=folder, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def killed_after(folder: str, ended: int) -> list[str]:
    """Start the sweep and kill the launcher when so many trials have ended; gives the jobs that there were then."""
    with subprocess.Popen([FTLAUNCH, *SWEEP], cwd=folder, stdout=subprocess.DEVNULL) as process:
        while True:
            trials = [job for job in run(folder, "jobs", "--json") if "-trial-" in job["job"]]
            if sum(job["ended"] is not None for job in trials) >= ended or process.poll() is not None:
                break
            time.sleep(1)
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL or len(trials) >= 8:
        sys.exit(f"the sweep was not killed in the middle: it ended with {process.returncode}, {len(trials)} trials")
    return [job["job"] for job in trials]


def judge(
    screened: dict[str, Any], screen_seconds: float, swept: dict[str, Any], before: list[str], sweep_seconds: float
) -> tuple[list[str], list[str]]:
    """The page's lines, and what does not hold."""
    trials, models = swept["trials"], screened["models"]
    result = json.loads(Path(swept["job"]["output"], "result.json").read_text())
    if len(models) != 2 or any(each["value"] is None or None in each["price"].values() for each in models):
        sys.exit(f"the screen did not measure and price both models: {models}")
    broken = []
    jobs = [trial["job"] for trial in trials]
    if len(trials) != 8 or len(set(jobs)) != len({json.dumps(trial["params"], sort_keys=True) for trial in trials}):
        broken.append(f"{len(trials)} trials, {len(set(jobs))} jobs")
    if not set(before) <= set(jobs):
        broken.append("a trial of before the kill was lost")
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# From the bundled example to a decision",
        "",
        f"{when}; {os.cpu_count()} cores ({platform.machine()}); made by `make proof`.",
        "",
        f"Screen of {len(models)} models in one job, {screen_seconds:.0f} s: {screened['text']}",
        "",
        "| model | by | macro-F1, validation rows | bits/character | to tune here | cheapest with a bill |",
        "|---|---|---|---|---|---|",
        *map(screened_line, models),
        "",
        f"Sweep of {len(trials)} trials of {DEMO_MODEL}, 30 steps each, two at a time on `local`; the launcher was "
        f"killed when there were {len(before)} jobs, and the same command went on ({sweep_seconds:.0f} s).",
        "",
        "The validations on the way take label scores as they are; those of the test rows are calibrated on the "
        "validation rows, for all evaluations alike, so the two are not to be compared.",
        "",
        "| trial | ended | macro-F1, validation rows | settings | seconds |",
        "|---|---|---|---|---|",
    ]
    for trial in trials:
        value = "" if trial["value"] is None else f"{trial['value']:.3f}"
        told = ", ".join(f"{key.removeprefix('train.')} {number:.3g}" for key, number in trial["params"].items())
        lines.append(f"| {trial['number']} | {trial['state'].lower()} | {value} | {told} | {trial['seconds']} |")
    lines += ["", f"Trial {swept['best']} trained again, now with the test rows: {result['verdict']['text']}"]
    return lines, broken


def at_once(jobs: list[dict[str, Any]]) -> list[str]:
    """What does not hold of the trials' times: two at a time at most, and two at some time."""
    trials = [(job["created"], job["ended"]) for job in jobs if "-trial-" in job["job"]]
    most = max(sum(began <= moment < ended for began, ended in trials) for moment, _ in trials)
    return [] if most == 2 else [f"{most} trials at once"]


def screened_line(model: dict[str, Any]) -> str:
    """A model's line of the table."""
    here, cheapest = model["price"]["here"], model["price"]["cheapest"]
    told = f"no bill, {60 * here['hours']['expected']:.0f} minutes"
    bill = f"${cheapest['usd']['expected']:.2f}, {cheapest['backend']} {cheapest['machine']}"
    measured = f"{model['best_by']} | {model['value']:.3f} | {model['bits_per_character']:.2f}"
    return f"| {model['name']} | {measured} | {told} | {bill} |"


def compared(made: dict[str, Any]) -> list[str]:
    """The page's lines on the best settings beside the defaults, over the same test rows."""
    best, plain = made["jobs"]
    (pair,) = made["pairs"]
    low, high = pair["ci95"]
    return [
        "",
        f"Against the default settings over the same {best['n']} test rows: {best['value']:.3f} beside "
        f"{plain['value']:.3f}, a difference of {pair['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}: "
        + ("no clear difference." if pair["better"] is None else f"{pair['better']} is better."),
    ]


def pictures(page: Path, beside: Path) -> None:
    """Screenshots of the report, in a wide window and in a phone's in the dark, and of the comparison."""
    flags = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    wide = ["--window-size=1000,1700", f"--screenshot={ROOT / 'docs' / 'report.png'}"]
    phone = ["--window-size=390,1700", "--blink-settings=preferredColorScheme=0"]
    compare = ["--window-size=1000,1700", f"--screenshot={ROOT / 'docs' / 'compare.png'}"]
    for more, shown in (
        (wide, page),
        ([*phone, f"--screenshot={ROOT / 'docs' / 'report-phone.png'}"], page),
        (compare, beside),
    ):
        subprocess.run([*flags, *more, shown.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
