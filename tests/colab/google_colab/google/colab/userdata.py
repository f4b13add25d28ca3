"""Secrets under the key sign."""

import json
from pathlib import Path


def get(name):
    return json.loads(Path("/secrets.json").read_text())[name]
