"""Where the launcher and its local places keep their files on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

VARIABLE = "FTLAUNCH_HOME"
"""Environment variable that moves the store, the config and the local jobs into one folder."""


def data_home() -> Path:
    """The folder of ``jobs.db`` and of local jobs: ``FTLAUNCH_HOME``, else the user's data folder."""
    moved = os.environ.get(VARIABLE)
    return Path(moved).expanduser().absolute() if moved else platformdirs.user_data_path("ftlaunch")


def config_home() -> Path:
    """The folder of ``config.yaml``: ``FTLAUNCH_HOME``, else the user's config folder."""
    moved = os.environ.get(VARIABLE)
    return Path(moved).expanduser().absolute() if moved else platformdirs.user_config_path("ftlaunch")
