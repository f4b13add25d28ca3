"""What Tab completes, asked as the shell's script asks."""

from __future__ import annotations

import pytest

from backends.interface import State
from launcher.store import Record, Store
from tests.launcher.conftest import Command, ftlaunch  # noqa: F401


def completed(ftlaunch: Command, line: str) -> list[str]:
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_FTLAUNCH_COMPLETE": "bash_complete"}
    return ftlaunch(**asked).stdout.split()


@pytest.fixture
def birds(ftlaunch: Command) -> Command:
    store = Store(ftlaunch.home)
    for name in ("birds-0123abcd", "birds-4567abcd", "trees-0123abcd"):
        store.add(Record(name, name, 0, "local", "", "", None, "", state=State.SUCCEEDED))
    store.close()
    return ftlaunch


@pytest.mark.parametrize("command", ["status", "logs -f", "fetch", "try", "export --merged", "compare trees-0123abcd"])
def test_jobs_by_their_names(birds: Command, command: str) -> None:
    assert set(completed(birds, f"ftlaunch {command} bi")) == {"plain,birds-0123abcd", "plain,birds-4567abcd"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ftlaunch report runs/x", ["file,runs/x"]),
        ("ftlaunch check ft", ["file,ft"]),
        ("ftlaunch examples/d", ["file,examples/d"]),
        ("ftlaunch init re", ["file,re"]),
        ("ftlaunch run --backend sa", ["plain,sagemaker"]),
        ("ftlaunch --backend dock", ["plain,docker"]),
        ("ftlaunch rehearse --backend v", ["plain,vertex"]),
        ("ftlaunch models --domain med", ["plain,medical"]),
        ("ftlaunch canc", ["plain,cancel"]),
    ],
)
def test_files_places_and_domains(birds: Command, line: str, expected: list[str]) -> None:
    assert completed(birds, line) == expected


def test_tab_makes_no_record(ftlaunch: Command) -> None:
    assert completed(ftlaunch, "ftlaunch status x") == ["file,x"]
    assert not ftlaunch.home.exists()
