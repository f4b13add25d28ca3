"""The invariance classes in fp32 on the tiny model; two processes are in test_sharding.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.invariance import CLASSES, DRIFT, LARGEST, REFERENCE, Case, Trajectory, differences
from tests.training.test_model import make_samples, make_spec
from training_image import model as models


@pytest.fixture(scope="module")
def case() -> Case:
    spec = make_spec(batch_size=8, epochs=4.0)
    setting = models.choose(spec, Path())
    return Case(spec, setting, models.load_base(setting), make_samples(16), pad=2, rate=3e-3, chunk=10)


@pytest.fixture(scope="module")
def reference(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """All eight rows of a step in one padded forward pass."""
    return case.trajectory(tmp_path_factory.mktemp("reference"), **REFERENCE)


@pytest.mark.parametrize("name", CLASSES)
def test_the_trajectory_does_not_depend_on(name: str, case: Case, reference: Trajectory, tmp_path: Path) -> None:
    found = case.trajectory(tmp_path, **CLASSES[name])
    largest, drift = differences(found, reference)
    assert len(reference) == 8
    assert largest <= LARGEST
    assert drift <= DRIFT
    assert reference[-1][0] < reference[0][0]  # something was learned
