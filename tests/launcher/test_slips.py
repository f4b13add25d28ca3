"""What a newcomer gets wrong is told with what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import yamlfile
from launcher.cli import common
from tests.launcher.conftest import Command, ftlaunch  # noqa: F401
from training_image.errors import InputError


@pytest.mark.parametrize(
    "content", [b'{"text": "a"}\n{"text": "b"}\n', b'[{"text": "a"}]', b"text,label\na,b\n", b"PAR1\xff\x00"]
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_data_file_is_no_job_file(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as told:
        yamlfile.read(path)
    assert f"ftlaunch init {path}" in told.value.hint


def test_exactly_one_form_is_exported(ftlaunch: Command) -> None:
    told = ftlaunch("export", "birds", "--adapter", "--merged", code=2).stderr
    assert "--adapter and --merged exclude each other" in told
    assert "give --adapter" in ftlaunch("export", "birds", code=2).stderr


def test_a_file_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="proc") as raised:
        Path("/proc/no/page.html").write_text("")
    assert common.explained(raised.value) == 2
    assert capsys.readouterr().err == "error: /proc/no/page.html: No such file or directory\n"


def test_a_request_shows_a_program_as_it_reads() -> None:
    program = "def run():\n    print('a: b')\n\nrun()\n"
    text = yamlfile.dump({"cell": program})
    assert "\n  def run():\n      print('a: b')\n\n  run()\n" in text
    assert yamlfile.parse(text, "x").value == {"cell": program}
