"""The training image's lock: everything pinned with a hash, torch with both of its builds."""

from __future__ import annotations

import re
from pathlib import Path

LOCK = Path(__file__).parents[2] / "training_image" / "requirements.lock"


def test_every_pin_has_a_hash() -> None:
    entries = re.split(r"\n(?=\w)", LOCK.read_text())[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[\w.-]+==[^\s+]+ \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry


def test_torch_has_the_hashes_of_both_builds() -> None:
    entry = re.search(r"^torch==2\.13\.0 \\\n((    --hash=sha256:\w{64}( \\)?\n)+)", LOCK.read_text(), re.M)
    assert entry is not None
    assert entry[1].count("--hash") == 2
