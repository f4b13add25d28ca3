"""The example of docs/contributing-backend.md runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.tiny_model import MODEL, tasks

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_docs_runs(tmp_path):
    text = (ROOT / "docs/contributing-backend.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "test_example.py").write_text(blocks[0])
    rows = tasks.write_jsonl(tmp_path / "rows.jsonl", tasks.colours(30, seed=1))
    environment = {"ROWS": str(rows), "MODEL": str(MODEL), "FTLAUNCH_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(
        [*command, "-k", "plan or offers or options or capabilities or imports"],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 15
    assert "skipped" not in done.stdout


def test_the_levers_and_settings_of_the_docs_are_those_of_the_harness():
    from backends.conformance import Harness

    text = (ROOT / "docs/contributing-backend.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`(\w+)[`(]", line.split("|")[1])}
    own = {name for name in {**vars(Harness), **Harness.__annotations__} if not name.startswith("_")}
    assert own - {"fresh", "child_environment", "close"} == named
