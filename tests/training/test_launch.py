"""Several processes and several machines: one adapter, and the trajectory of one process."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.training.conftest import Entry

CLOSE = {"rel": 1e-3, "abs": 1e-5}


def test_two_processes_have_the_trajectory_of_one(straight: Entry, entry: Entry) -> None:
    entry.write()
    entry.run(launcher=("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"))
    one, two = straight.losses(), entry.losses()
    assert one == pytest.approx(two, **CLOSE)
    assert len(list((entry.folder / "output").rglob("adapter_model.safetensors"))) == 1


class Machines:
    """Two machines of one job, as SageMaker tells each of them; both are this one."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.processes = [self.start(name) for name in ("127.0.0.1", "127.0.0.2")]

    def start(self, name: str) -> subprocess.Popen[str]:
        config = self.entry.folder / f"{name}.json"
        config.write_text(json.dumps({"hosts": ["127.0.0.1", "127.0.0.2"], "current_host": name}))
        more = {"FTLAUNCH_RESOURCE_CONFIG": str(config)}
        output = self.entry.folder / ("output" if name == "127.0.0.1" else "other")
        return self.entry.start(output=output, environment=more)


def test_two_machines_make_one_adapter(straight: Entry, entry: Entry) -> None:
    entry.write()
    machines = Machines(entry)
    texts = [process.communicate(timeout=400)[0] for process in machines.processes]
    assert [process.returncode for process in machines.processes] == [0, 0], texts
    assert "machine=127.0.0.2" in texts[1]
    assert straight.losses() == pytest.approx(entry.losses(), **CLOSE)


def test_a_machine_that_dies_ends_the_job_on_the_other(entry: Entry) -> None:
    entry.write(epochs=200.0)
    first, second = Machines(entry).processes
    entry.until_step(2)
    subprocess.run(["pkill", "-9", "-P", str(second.pid)], check=True)
    second.kill()
    text, _ = first.communicate(timeout=120)
    assert first.returncode == 1, text


def test_a_stop_is_heard_by_every_process_and_saved(entry: Entry) -> None:
    entry.write(epochs=200.0)
    machines = Machines(entry).processes
    entry.until_step(2)
    for process in machines:
        process.send_signal(signal.SIGTERM)
    for process in machines:
        process.communicate(timeout=120)
    assert {process.returncode for process in machines} == {143}
    assert list((entry.folder / "checkpoints").glob("step-*.pt"))


def test_bad_input_keeps_its_exit_code(entry: Entry) -> None:
    entry.write()
    (entry.folder / "data" / "train.jsonl").write_text("not json\n")
    machines = Machines(entry).processes
    for process in machines:
        process.communicate(timeout=120)
    assert machines[0].returncode == 2
