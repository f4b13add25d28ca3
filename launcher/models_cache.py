"""Models made ready on this machine: a hub id that lies here is staged like a local folder, without the hub."""

from __future__ import annotations

from pathlib import Path

from backends.home import data_home


def folder_of(model_id: str) -> Path:
    """Where the model of a hub id (``org/name``) lies if it was made ready: ``models/ORG--NAME`` in the data folder."""
    return data_home() / "models" / model_id.replace("/", "--")


def local_model(model_id: str) -> Path | None:
    """The folder of a hub id that was made ready here; None where it was not."""
    folder = folder_of(model_id)
    return folder if (folder / "config.json").is_file() else None
