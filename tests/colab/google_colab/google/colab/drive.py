"""The user's Drive lies in /drive."""

from pathlib import Path


def mount(point):
    Path(point).symlink_to("/drive")
