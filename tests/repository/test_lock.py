"""The training image's lock: everything pinned with a hash, torch with both of its builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[2] / "training_image" / "requirements.lock"
CUDA_LOCK = LOCK.with_name("requirements.cuda.lock")


@pytest.mark.parametrize(("lock", "at_least"), [(LOCK, 50), (CUDA_LOCK, 15)], ids=["main", "cuda"])
def test_every_pin_has_a_hash(lock: Path, at_least: int) -> None:
    entries = re.split(r"\n(?=\w)", lock.read_text())[1:]
    assert len(entries) >= at_least
    for entry in entries:
        assert re.match(r"[\w.-]+==[^\s+]+ \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry


def test_torch_has_the_hashes_of_both_builds() -> None:
    entry = re.search(r"^torch==2\.13\.0 \\\n((    --hash=sha256:\w{64}( \\)?\n)+)", LOCK.read_text(), re.M)
    assert entry is not None
    assert entry[1].count("--hash") == 2


def test_the_cuda_lock_adds_what_the_cpu_has_not() -> None:
    names = [set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.M)) for lock in (LOCK, CUDA_LOCK)]
    assert not names[0] & names[1]
    assert "triton" in names[1]
    assert any(name.startswith("nvidia-cublas") for name in names[1])
