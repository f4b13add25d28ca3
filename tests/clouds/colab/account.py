"""A user who is signed in to the loopback Colab by gcloud's credentials, with Google's own tool at hand."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.clouds.colab import Colab, loopback_colab
from tests.clouds.loopback import own_folder

STATE = Path(os.environ.get("FTLAUNCH_SERVICES_DIR", "/var/lib/ftlaunch-services"))
"""Where tests/services.sh keeps what it installs."""
TOOL = STATE / "colab-cli" / "bin" / "colab"
"""Installed where there is a Python 3.12 or newer."""
COMMAND = "~/colab"
"""What to call, in the home of the loopback."""
USER = "tuner@example.com"


@contextlib.contextmanager
def logged_in(home: Path, image: str) -> Iterator[Colab]:
    """While this lasts, this process and its children reach the loopback Colab and no host outside of it; fails if one
    was asked for. ``home``: the launcher's own folder."""
    with own_folder("colab") as folder, loopback_colab(folder, image) as cloud:
        login = folder / "login.json"
        login.write_text(json.dumps(cloud.tokens.user_file(USER)))
        settings = folder / "home" / ".config" / "colab-cli" / "settings.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"enable_update_check": False}))
        told = {"GOOGLE_APPLICATION_CREDENTIALS": str(login), "HOME": str(folder / "home")}
        with cloud.reached_from_here(home, told, ("GOOGLE_", "GCLOUD_", "GCE_", "COLAB_")):
            yield cloud


@contextlib.contextmanager
def warm() -> Iterator[None]:
    """While this lasts, `COMMAND` is the tool, loaded once (`warm_tool`), with this process's environment, which is to
    lead to the loopback already. Raises AssertionError where it cannot be loaded."""
    python, home, beside = TOOL.with_name("python"), Path(os.environ["HOME"]), Path(__file__)
    call = Path(os.path.expanduser(COMMAND))
    call.write_text(f"#!{python} -IS\n{beside.with_name('warm_call.py').read_text()}")
    call.chmod(0o755)
    # Read once, when the tool's command line is loaded; `backends.colab_tool` gives them with each call.
    environment = {**os.environ, "_TYPER_STANDARD_TRACEBACK": "1", "NO_COLOR": "1"}
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    command = [str(python), str(beside.with_name("warm_tool.py")), str(TOOL), str(home / "colab.sock")]
    # In a session of its own: what ends a launcher's group must not end it. It ends with its standard input.
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.read(5) == b"ready", "Google's tool could not be loaded"
        yield
        assert server.poll() is None, "the tests' warm tool ended before the tests"
