"""Writes what the container writes, in a fraction of a second. ``--do`` says how it goes."""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("spec", "data", "output", "checkpoints", "do"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--steps", type=int)
given = parser.parse_args()
output = Path(given.output)
spec = json.loads(Path(given.spec).read_text())
job = spec["job"]


def write(name: str, text: str) -> None:
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text(text)


def score() -> float:
    """What a trial reaches: best at rank 32, and worth a look from the first validation on."""
    return 1 - abs(spec["train"]["rank"] - 32) / 100


def finish() -> None:
    entry = {"n": 20, "metrics": {"macro_f1": 0.5, "accuracy": 0.5}, "ci95": {"macro_f1": [0.4, 0.6]}, "seconds": 0.1}
    result = {
        "schema": 1,
        "job": job,
        "task": {"type": "classification", "metric": "macro_f1"},
        "model": {"id": "tiny"},
        "evaluations": {"zero_shot": entry, "few_shot": {**entry, "k": 2}, "tuned": entry},
        "verdict": {"outcome": "inconclusive", "text": "No clear difference."},
        "guards": [],
    }
    if spec["goal"] == "trial":
        result |= {"evaluations": {}, "verdict": None, "training": {"best_value": score()}}
    write("result.json", json.dumps(result))
    write("adapter/adapter_model.safetensors", "weights")
    if given.do == "pickle":
        write("adapter/adapter_model.bin", "weights")
    files = {
        str(path.relative_to(output)): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    if given.do == "mismatch":
        files["result.json"]["sha256"] = "0" * 64
    if given.do == "outside":
        files["../../evil"] = {"sha256": "0" * 64, "bytes": 0}
    write("manifest.json", json.dumps({"files": files, "environment": {}}))


def stopped(*_: object) -> None:
    print("stopped and saved", flush=True)
    finish()
    sys.exit(143)


signal.signal(signal.SIGTERM, stopped)
print(f"[start] job={job} platform=local", flush=True)
print(f"[tracking] mlflow=http://127.0.0.1:5000/#/runs/{job}", flush=True)
print("the token is", os.environ.get("MY_TOKEN", "-"), flush=True)
if given.do == "bad":
    print("error: data/train.jsonl:3: broken row\n  Mend it.", flush=True)
    sys.exit(2)
if given.do == "memory":
    sys.exit(3)
if given.do == "nothing":
    sys.exit(1)
if given.do == "link":
    output.mkdir(parents=True, exist_ok=True)
    (output / "passwd").symlink_to("/etc/hostname")
checkpoint = Path(given.checkpoints) / "step"
first = int(checkpoint.read_text()) if checkpoint.exists() else 0
for step in range(first + 1, given.steps + 1):
    time.sleep(0.05)
    checkpoint.write_text(str(step))
    write("metrics.jsonl", json.dumps({"step": step, "train/loss": 1 / step}) + "\n")
    print(f"[train] step={step} steps={given.steps} train/loss={1 / step} seconds_left=1", flush=True)
    if spec["goal"] == "trial":
        print(f"[train] step={step} validation/macro_f1={score() * step / given.steps}", flush=True)
    if given.do == "killed" and step == 2 and first == 0:
        os.kill(os.getpid(), signal.SIGKILL)
finish()
print("[verdict] outcome=inconclusive", flush=True)
