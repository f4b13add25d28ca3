"""A user who is signed in to the loopback Colab by gcloud's credentials, with Google's own tool at hand."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.clouds.colab import Colab, loopback_colab
from tests.clouds.loopback import own_folder

STATE = Path(os.environ.get("FTLAUNCH_SERVICES_DIR", "/var/lib/ftlaunch-services"))
"""Where tests/services.sh keeps what it installs."""
TOOL = STATE / "colab-cli" / "bin" / "colab"
"""Installed where there is a Python 3.12 or newer."""
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
