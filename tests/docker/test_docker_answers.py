"""What an engine says in the middle of a pull, a push or a stop, by an engine that answers as told: no real one can be
made to lose its registry, or its disk, at that moment."""

import hashlib
import http.server
import json
import threading

import pytest

from backends import image_push
from backends.docker import Docker
from backends.docker_request import LIMIT_LABEL, SECRETS_LABEL
from backends.interface import BackendError, Handle, Reason, Resources
from tests.docker.test_docker_troubles import planned

URI = "registry.example/team/ftlaunch:cpu-0"


class Told(http.server.ThreadingHTTPServer):
    """An engine's API of a few answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[tuple[str, str], tuple[int, list[dict]]] = {
            ("GET", "/version"): (200, [{"ApiVersion": "1.41"}])
        }
        """Status and lines by method and end of the path."""
        self.calls: list[tuple[str, str]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = self.headers.get("Content-Length")
        if length is not None:
            self.rfile.read(int(length))
        elif self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        path = self.path.partition("?")[0]
        self.server.calls.append((self.command, path))
        found = (
            told for (method, end), told in self.server.answers.items() if path.endswith(end) and method == self.command
        )
        status, lines = next(found, (404, [{"message": "not found"}]))
        self.send_response(status)
        if status == 204:
            self.end_headers()
            return
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            self._piece(json.dumps(line).encode() + b"\r\n")
        self._piece(b"")

    def _piece(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def engine(monkeypatch):
    with Told() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("said", "reason", "hint"),
    [
        ("write /var/lib/docker/tmp/x: no space left on device", Reason.UNKNOWN, "docker system df"),
        ("unexpected EOF", Reason.UNKNOWN, "try again"),
        ("manifest for registry.example/x:1 not found", Reason.BAD_IMAGE, "backends.docker.image"),
    ],
)
def test_docker_an_error_in_the_middle_of_a_pull_is_told_as_what_it_is(engine, tmp_path, said, reason, hint):
    pulling = {"status": "Pulling from x", "id": "1"}
    engine.answers["POST", "/images/create"] = (200, [pulling, {"error": said, "errorDetail": {"message": said}}])
    plan, files = planned(tmp_path, "pull", prebuilt="registry.example/x:1")
    with pytest.raises(BackendError, match=f"cannot be pulled: .*{said}") as told:
        Docker.create().stage(plan, files)
    assert told.value.reason is reason
    assert hint in told.value.hint


def test_docker_a_job_is_stopped_where_the_full_disk_takes_no_word_of_it(engine):
    labels = {LIMIT_LABEL: "", SECRETS_LABEL: "", "ftlaunch.job": "birds"}
    state = {"Status": "running", "StartedAt": "2026-11-24T10:00:00.1Z", "ExitCode": 0}
    running = {"Id": "1", "State": state, "Config": {"Labels": labels, "StopTimeout": 5}}
    engine.answers["GET", "/containers/ftlaunch-birds/json"] = (200, [running])
    engine.answers["PUT", "/archive"] = (500, [{"message": "write /stop: no space left on device"}])
    engine.answers["POST", "/stop"] = engine.answers["POST", "/kill"] = (204, [])
    Docker.create().cancel(Handle(backend="docker", job_name="birds"))
    assert [path.rpartition("/")[2] for _, path in engine.calls][-3:] == ["archive", "stop", "kill"]


@pytest.mark.parametrize("there", ["sha256:0", None])
def test_docker_a_push_that_another_launcher_was_ahead_of_finds_its_image(engine, there):
    """The registry refuses the tag a second time, and the local name is gone by then."""
    engine.answers["GET", "/images/ftlaunch:cpu-0/json"] = (200, [{"Id": "1"}])
    engine.answers["POST", "/tag"] = (201, [])
    engine.answers["POST", "/push"] = (200, [{"status": "Preparing"}, {"error": "tag cpu-0 is immutable"}])
    looks = iter([None, there])
    if there is None:
        with pytest.raises(BackendError, match="failed: tag cpu-0 is immutable"):
            image_push.send("ftlaunch:cpu-0", URI, lambda: next(looks), dict)
    else:
        assert image_push.send("ftlaunch:cpu-0", URI, lambda: next(looks), dict) == there
    assert ("DELETE", f"/v1.41/images/{URI}") in engine.calls


def test_docker_a_push_goes_to_the_engine_of_the_current_context(engine, monkeypatch, tmp_path):
    """As the docker backend and the docker command do, where no DOCKER_HOST is set."""
    url = f"tcp://127.0.0.1:{engine.server_port}"
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far"}))
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    told = {"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": url, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(told))
    with pytest.raises(BackendError, match="has no image"):
        image_push.send("ftlaunch:cpu-0", URI, lambda: None, dict)
    assert ("GET", "/v1.41/images/ftlaunch:cpu-0/json") in engine.calls


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
def test_docker_the_cuda_image_without_a_gpu_is_told(engine, tmp_path, torch):
    """It was chosen before the engine could say that it has no NVIDIA runtime."""
    engine.answers["GET", "/info"] = (200, [{"Runtimes": {"runc": {}}}])
    plan, _ = planned(tmp_path, "gpu", image=f"ftlaunch:{torch}-0", resources=Resources(gpu="T4"))
    (told,) = [each for each in Docker.create().preflight(Docker.create().resolve(plan)) if each.code == "gpu"]
    assert ("CUDA image" in told.message, "without resources.gpu" in told.hint) == (torch == "cuda",) * 2
