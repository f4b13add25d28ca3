"""What each of our backends has to be able to do, and that the docs say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends import registry
from backends.interface import Capabilities

CLOUD = {"spot", "several_machines", "secrets", "log_cursor", "resume", "partial_fetch", "billable_seconds"}
PROMISED = {
    "local": {"log_cursor", "resume", "partial_fetch"},
    "docker": {"log_cursor", "resume", "partial_fetch"},
    "sagemaker": CLOUD,
    "vertex": CLOUD,
    "azureml": CLOUD,
    "colab": {"log_cursor", "resume", "partial_fetch"},
    "colab-enterprise": {"secrets", "log_cursor", "partial_fetch"},
}
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


def ours() -> dict[str, Capabilities]:
    found = {name: each for name, each in registry.every().items() if name in PROMISED}
    assert not [name for name, each in found.items() if isinstance(each, registry.Broken)]
    return {name: each.capabilities for name, each in found.items()}


@pytest.mark.parametrize("name", ours())
def test_a_backend_is_able_to_do_what_was_promised(name: str) -> None:
    able = {each for each, can in ours()[name].model_dump().items() if can}
    assert able - {"image"} == PROMISED[name]  # whether it starts the image is how it works, and no promise


def test_the_docs_show_what_the_backends_can() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    names = [cell.strip("`") for cell in rows[0][1:]]
    shown = {row[0].replace(" ", "_"): row[1:] for row in rows[2:]}
    for place, capabilities in ours().items():
        column = names.index(place)
        said = {promise for promise, cells in shown.items() if cells[column] == "yes"}
        assert said == {promise for promise, can in capabilities.model_dump().items() if can}, place
    assert set(names) == set(ours())
