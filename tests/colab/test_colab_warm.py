"""The tool that the tests keep loaded does what Google's own script does."""

import fcntl
import os
import socket
import subprocess
import time

import pytest

from tests.clouds.colab.account import COMMAND

WARM = ["warm", "cold"]


@pytest.fixture
def call(tool, tmp_path):
    """Starts the one or the other, with a file of sessions of its own."""

    def start(which, *arguments, **how):
        command = os.path.expanduser(COMMAND) if which == "warm" else tool
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        line = [command, "--auth=adc", "--config", str(tmp_path / "sessions.json"), *arguments]
        return subprocess.Popen(line, text=True, **(pipes | how))

    return start


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["usage"], 0), (["sessions"], 0), (["download", "-s", "none", "a", "b"], 1), (["no-such-verb"], 2)],
)
def test_colab_warm_tool_tells_the_same(colab, call, tmp_path, arguments, code):
    told = []
    for which in WARM:
        with call(which, *arguments, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}) as process:
            told.append((*process.communicate(timeout=60), process.returncode))
    assert told[0] == told[1]
    assert told[0][2] == code


def test_colab_warm_tool_reads_its_input(colab, call):
    """Code comes so, and the session is looked for first."""
    with call("warm", "exec", "-s", "none") as process:
        output, _ = process.communicate("print(1)", timeout=60)
    assert (process.returncode, "Session 'none' not found" in output) == (1, True)


@pytest.mark.parametrize("which", WARM)
def test_colab_tool_holds_a_lock_until_its_caller_is_killed(colab, call, tmp_path, which):
    """As in `new`, whose descriptor is all that tells another launcher that one is at it."""
    path = tmp_path / "lock"
    with socket.create_server(("127.0.0.1", 0)) as silent, path.open("w") as locked:
        silent.settimeout(30)
        environment = {**os.environ, "HTTPS_PROXY": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        environment["https_proxy"] = environment["HTTPS_PROXY"]
        fcntl.flock(locked, fcntl.LOCK_EX)
        with call(which, "usage", env=environment, pass_fds=[locked.fileno()], start_new_session=True) as process:
            locked.close()
            peer, _ = silent.accept()
            with peer:
                assert not free(path)
                process.kill()
                process.communicate(timeout=30)  # its streams end with it
                deadline = time.monotonic() + 30
                while not free(path):
                    assert time.monotonic() < deadline
                    time.sleep(0.02)


def free(path):
    with path.open("w") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
