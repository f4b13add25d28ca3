"""The reference place's training: a small process that counts steps, with the standard library alone.

It does what the container does, as far as a backend can see it: prints progress lines, saves checkpoints by step and at
SIGTERM, goes on from them, ends with the documented exit codes and leaves the documented output tree.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

FILES = ("README.md", "adapter/adapter_config.json", "predictions/zero_shot.jsonl", "predictions/few_shot.jsonl",
         "predictions/tuned.jsonl")  # fmt: skip


def main(folder: Path) -> int:
    request = json.loads((folder / "request.json").read_text())
    if request.get("dies_with_launcher"):
        threading.Thread(target=watch_parent, args=(request["launcher"],), daemon=True).start()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    if request["max_seconds"] is not None and not request.get("unlimited"):
        signal.signal(signal.SIGALRM, lambda number, frame: stopped.append(number))
        signal.alarm(max(1, int(request["max_seconds"])))
    train = request["spec"]["train"]
    print("[start] platform=reference", flush=True)
    for number, row in enumerate((folder / "data/train.jsonl").read_text().splitlines(), start=1):
        try:
            json.loads(row)
        except ValueError:
            (folder / "message").write_text(f"train.jsonl, line {number}: this is no JSON")
            return 2
    checkpoint = folder / "checkpoints/step"
    first = int(checkpoint.read_text()) if checkpoint.exists() else None
    step = first or 0
    output = folder / "output"
    output.mkdir(exist_ok=True)
    while step < train["max_steps"] and not stopped:
        if first is None:  # a first run gives the time to break it off, even on a busy machine
            time.sleep(request["step_seconds"])
        step += 1
        halves = f"[train] step={step} train/", f"loss={1 / step:.4f}\n"
        for half in halves:  # a reader between the two must not take the first for a line
            sys.stdout.write(half)
            sys.stdout.flush()
            if first is None:
                time.sleep(0.005)
        if train["checkpoint_steps"] and step % train["checkpoint_steps"] == 0:
            save(checkpoint, step)
            (output / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
    if stopped:
        time.sleep(0.3)
        save(checkpoint, step)
        print(f"[save] step={step}", flush=True)
        return 124 if signal.SIGALRM in stopped else 143
    if request.get("dies_with_launcher"):
        time.sleep(2)  # one that was killed right after the submit is not outrun, even on a busy machine
    write_output(output, request, first)
    print("[done] outcome=improved", flush=True)
    return 0


def watch_parent(launcher: int) -> None:
    while Path(f"/proc/{launcher}").exists():
        time.sleep(0.02)
    os._exit(9)


def save(checkpoint: Path, step: int) -> None:
    new = checkpoint.with_suffix(".new")
    new.write_text(str(step))
    new.replace(checkpoint)


def write_output(output: Path, request: dict, first: int | None) -> None:
    for name in FILES:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text(f"{name}\n")
    (output / "adapter/adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (output / "metrics.jsonl").write_text(json.dumps({"step": request["spec"]["train"]["max_steps"]}) + "\n")
    result = {"schema": 1, "job": request["spec"]["job"], "training": {"resumed_from": first}}
    (output / "result.json").write_text(json.dumps(result))
    listed = {
        str(path.relative_to(output)): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in output.rglob("*")
        if path.is_file()
    }
    (output / "manifest.json").write_text(json.dumps({"files": listed, "environment": {}}))


if __name__ == "__main__":
    here = Path(sys.argv[1])
    (here / "began").write_text(str(time.time()))
    (here / "pid").write_text(str(os.getpid()))
    code = main(here)
    (here / "exit").write_text(json.dumps({"code": code, "seconds": time.time() - float((here / "began").read_text())}))
