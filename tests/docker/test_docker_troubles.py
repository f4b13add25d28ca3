"""Each trouble of an engine is told as what it is, on real engines."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import time

import pytest
from pydantic import SecretStr

from backends.docker import Docker
from backends.docker_request import DATA, DEVICES, JOB, container_name
from backends.interface import BackendError, Handle, JobNotFound, Reason, Resources, State, Submission
from tests.docker.conftest import write_job
from tests.docker.second_engine import IMAGE, SecondEngine
from training_image.spec import Data, Model, Spec, Task

TOKEN = "hunter2-hunter2"


@pytest.fixture(scope="module")
def second(tmp_path_factory, docker_client):
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        assert not os.environ.get("CI"), "CI is root, and has dockerd"
        pytest.skip("an engine of the tests' own needs root and dockerd: tests/services.sh, as root")
    engine = SecondEngine(tmp_path_factory.mktemp("engine"), megabytes=96)
    try:
        engine.add_image()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def there(second, monkeypatch):
    """The second engine is the one that the backend talks to."""
    monkeypatch.setenv("DOCKER_HOST", second.url)
    return second


def planned(tmp_path, name, *, image=None, prebuilt=IMAGE, resources=None, size=100, secrets=(), **options):
    """A plan with its files; it runs the prebuilt image, or the job's own if that is named."""
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"x" * size)
    inputs = {"train.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}
    spec = Spec(job=name, model=Model(id="model"), data=Data(train="train.jsonl"), task=Task(type="classification"))
    submission = Submission(
        job_name=name,
        spec=spec,
        files=inputs | {"model/config.json": inputs["train.jsonl"]},
        image=image or "ftlaunch:never-built",
        resources=resources or Resources(),
        secrets=secrets,
        options={**({} if image else {"image": prebuilt}), **options},
    )
    return Docker.create().plan(submission), {"train.jsonl": path, "model/config.json": path}


def started(tmp_path, name, **more):
    plan, files = planned(tmp_path, name, **more)
    backend = Docker.create()
    backend.stage(plan, files)
    secrets = dict.fromkeys(more.get("secrets", ()), SecretStr(TOKEN))
    return backend, backend.submit(plan, secrets)


def of(name):
    return Handle(backend="docker", job_name=name)


def wait_for(backend, handle, wanted, seconds=20.0):
    end = time.monotonic() + seconds
    while True:
        status = backend.status(handle)
        if wanted(status) or time.monotonic() > end:
            return status
        time.sleep(0.05)


def test_docker_without_an_engine_says_how_to_start_one(ftlaunch):
    job = write_job(ftlaunch.folder / "birds")
    done = ftlaunch("run", job, code=3, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert "no Docker engine answers" in done.stderr
    assert "--backend local" in done.stderr


def test_docker_a_killed_engine_is_out_of_reach_and_its_job_found_again(there, tmp_path):
    backend, handle = started(tmp_path, "killed-engine")
    assert backend.status(handle).state is State.RUNNING
    there.kill()
    with pytest.raises(BackendError, match="no Docker engine answers") as told:
        backend.status(handle)
    assert "dockerd" in told.value.hint
    there.start()
    assert Docker.create().find("killed-engine") == handle
    ended = wait_for(backend, handle, lambda status: status.state.ended)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.UNKNOWN)
    assert "--resume" in ended.message
    assert backend.resume(handle) == handle
    assert wait_for(backend, handle, lambda status: status.state is State.RUNNING).state is State.RUNNING
    backend.cancel(handle)
    assert wait_for(backend, handle, lambda status: status.state.ended).state is State.CANCELLED
    backend.remove(handle)


def test_docker_a_full_disk_is_named(there, tmp_path):
    plan, files = planned(tmp_path, "full-disk", size=120 << 20)
    with pytest.raises(BackendError, match="disk is full") as told:
        Docker.create().stage(plan, files)
    assert "docker system df" in told.value.hint
    smaller, files = planned(tmp_path, "full-disk", size=1000)
    Docker.create().stage(smaller, files)  # the same job goes on where there is room
    Docker.create().remove(of("full-disk"))
    assert not there.client.volumes.list()


def test_docker_cancel_is_prompt_and_keeps_its_end(there, tmp_path):
    backend, handle = started(tmp_path, "prompt")
    wait_for(backend, handle, lambda status: any("started" in line.text for line in backend.logs(handle, None)))
    began = time.monotonic()
    backend.cancel(handle)
    ended = wait_for(backend, handle, lambda status: status.state.ended)
    assert time.monotonic() - began <= 2
    assert (ended.state, ended.reason) == (State.CANCELLED, Reason.USER)
    assert [line.text for line in backend.logs(handle, None)] == ["started", "saved"]
    backend.remove(handle)
    with pytest.raises(JobNotFound):
        backend.status(handle)
    assert not there.client.volumes.list()


def test_docker_describes_no_secret(there, tmp_path):
    backend, handle = started(tmp_path, "secret", secrets=("HF_TOKEN",))
    container = there.client.containers.get(container_name("secret"))
    assert TOKEN not in json.dumps(container.attrs)
    assert container.attrs["HostConfig"]["NetworkMode"] == "none"
    assert {each["Destination"]: each["RW"] for each in container.attrs["Mounts"]} == {DATA: False, JOB: True}
    assert "FTLAUNCH_SECRET_HF_TOKEN=file:/ftlaunch/secrets/HF_TOKEN" in container.attrs["Config"]["Env"]
    archive, _ = container.get_archive("/ftlaunch/secrets/HF_TOKEN")
    assert TOKEN.encode() in b"".join(archive)
    backend.cancel(handle)
    wait_for(backend, handle, lambda status: status.state.ended)
    backend.remove(handle)


def test_docker_results_belong_to_whoever_fetches(there, tmp_path):
    backend, handle = started(tmp_path, "owner")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        info = tarfile.TarInfo("deep/result.json")
        info.uid, info.mode, info.size = 4321, 0o600, 2
        archive.addfile(info, io.BytesIO(b"{}"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    there.client.containers.get(container_name("owner")).put_archive("/ftlaunch/job/output", content.getvalue())
    backend.cancel(handle)
    wait_for(backend, handle, lambda status: status.state.ended)
    into = tmp_path / "fetched"
    into.mkdir()
    backend.fetch(handle, into)
    assert [str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()] == ["deep/result.json"]
    assert (into / "deep" / "result.json").stat().st_uid == os.getuid()
    backend.remove(handle)


def test_docker_a_missing_image_is_named(there, tmp_path):
    plan, files = planned(tmp_path, "no-image", image="ftlaunch:cpu-000000000000")
    assert Docker.create().lacks_image(plan)
    with pytest.raises(BackendError, match="has no image ftlaunch:cpu-000000000000") as told:
        Docker.create().stage(plan, files)
    assert (told.value.reason, told.value.hint) == (Reason.BAD_IMAGE, "ftlaunch image build")
    plan, files = planned(tmp_path, "no-image", prebuilt="127.0.0.1:5000/nothing:1")
    assert not Docker.create().lacks_image(plan)
    with pytest.raises(BackendError, match="cannot be pulled") as told:
        Docker.create().stage(plan, files)
    assert told.value.reason is Reason.BAD_IMAGE


def test_docker_a_wrong_network_or_image_name_is_named(there, tmp_path):
    plan, files = planned(tmp_path, "lost", network="nowhere")
    backend = Docker.create()
    backend.stage(plan, files)
    with pytest.raises(BackendError, match="no such network") as told:
        backend.submit(plan, {})
    assert "backends.docker.network" in told.value.hint
    assert not there.client.containers.list(all=True)
    plan, _ = planned(tmp_path, "lost", prebuilt="UPPER:case")
    (error,) = [finding for finding in backend.preflight(plan) if finding.level == "error"]
    assert "backends.docker.image" in error.message


def test_docker_a_taken_name_is_named(there, tmp_path):
    plan, files = planned(tmp_path, "taken")
    other = there.client.containers.create(IMAGE, name=container_name("taken"))
    backend = Docker.create()
    errors = [finding for finding in backend.preflight(plan) if finding.level == "error"]
    assert [finding.code for finding in errors] == ["name"]
    for call in (lambda: backend.stage(plan, files), lambda: backend.submit(plan, {})):
        with pytest.raises(BackendError, match="is taken") as told:
            call()
        assert "docker rename" in told.value.hint
    assert backend.find("taken") is None
    other.remove()


def test_docker_asks_for_gpus_and_tells_the_engines_answer(there, tmp_path):
    gpu = Resources(gpu="T4")
    plan, files = planned(tmp_path, "gpu", resources=gpu, gpu="required")
    backend = Docker.create()
    backend.stage(plan, files)
    created = there.client.containers.get(container_name("gpu")).attrs["HostConfig"]["DeviceRequests"]
    assert [{key: each[key] for key in DEVICES[0]} for each in created] == DEVICES
    with pytest.raises(BackendError, match="could not select device driver") as told:
        backend.submit(plan, {})
    assert told.value.reason is Reason.NO_CAPACITY
    assert not there.client.containers.list(all=True)
    assert not there.client.volumes.list()


def test_docker_asks_for_gpus_where_the_engine_has_nvidias_runtime(there, tmp_path):
    plan, _ = planned(tmp_path, "gpu", resources=Resources(gpu="T4"))
    with there.nvidia_runtime():
        settled = Docker.create().resolve(plan)
        findings = Docker.create().preflight(settled)
    assert settled.request["config"]["HostConfig"]["DeviceRequests"] == DEVICES
    assert "gpu" not in [finding.code for finding in findings]


def test_docker_takes_the_cpu_where_there_is_no_gpu_and_says_so(there, tmp_path):
    plan, _ = planned(tmp_path, "gpu", resources=Resources(gpu="T4"))
    assert [each.path for each in plan.unresolved] == ["backends.docker.gpu"]
    settled = Docker.create().resolve(plan)
    assert not settled.unresolved
    assert settled.request["config"]["HostConfig"]["DeviceRequests"] == []
    warnings = [finding for finding in Docker.create().preflight(settled) if finding.level == "warning"]
    assert [finding.code for finding in warnings] == ["gpu"]
    assert "CPU" in warnings[0].message


def test_docker_a_launcher_killed_in_a_resume_after_the_fetch_loses_nothing(there, ftlaunch):
    ftlaunch.environment["DOCKER_HOST"] = there.url
    job = write_job(ftlaunch.folder / "birds", backends={"docker": {"image": IMAGE}})
    name = ftlaunch.json("run", job, "--detach")["job"]

    def stopped():
        ftlaunch("cancel", name)
        wait_for(Docker.create(), of(name), lambda status: status.state.ended)
        ftlaunch("fetch", name, code=1)  # it never writes results
        assert not there.client.containers.list(all=True)
        assert not there.client.volumes.list()

    checkpoint = io.BytesIO()
    with tarfile.open(fileobj=checkpoint, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("step-3.pt"))
    there.client.containers.get(container_name(name)).put_archive(f"{JOB}/checkpoints", checkpoint.getvalue())
    stopped()
    with ftlaunch.start("run", job, "--resume", "--detach") as dying:
        assert any("starting it there again" in line for line in dying.stderr)
        dying.kill()
        dying.communicate()
    assert ftlaunch.json("run", job, "--resume", "--detach")["job"] == name
    there.client.containers.get(container_name(name)).get_archive(f"{JOB}/checkpoints/step-3.pt")
    stopped()


def test_docker_out_of_memory_is_told(ftlaunch, image):
    job = write_job(ftlaunch.folder / "birds")
    told = ftlaunch.json("run", job, "--set", "backends.docker.memory_gb=0.12", code=1)
    try:
        assert (told["state"], told["reason"]) == ("FAILED", "OUT_OF_MEMORY")
        assert "memory_gb" in told["message"]
    finally:
        Docker.create().remove(of(told["job"]))
