"""Cloud Logging by cursor: any page size, any cut, any mixture of machines, plain lines and JSON."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import google_logs
from backends.google_calls import Account
from backends.interface import BackendError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
LINES = st.lists(st.tuples(st.sampled_from(["workerpool0-0", "workerpool1-0", "service"]), TEXT), max_size=25)


@pytest.fixture(scope="module")
def account(google):
    return Account(google.project, google.region)


def query(job: str) -> str:
    return f'resource.type="ml_job" AND resource.labels.job_id=("{job}" OR "1")'


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, page=st.integers(1, 7), data=st.data())
def test_vertex_logs_go_on_after_any_line(google, account, monkeypatch, lines, page, data):
    monkeypatch.setattr(google_logs, "PAGE", page)
    job = str(len(google.logs.entries) + 1000)  # no number that another test writes to
    for task, text in lines:
        google.logs.write(job, task, f"x{text}")
    whole = list(google_logs.lines(account, query(job), "task_name", None))
    assert [(line.source, line.text) for line in whole] == [(task, f"x{text}") for task, text in lines]
    assert len({line.cursor for line in whole}) == len(whole)
    if whole:
        cut = data.draw(st.integers(0, len(whole) - 1))
        assert list(google_logs.lines(account, query(job), "task_name", whole[cut].cursor)) == whole[cut + 1 :]


def test_vertex_a_machine_that_spoke_once_does_not_have_the_others_read_again(google, account):
    google.logs.write("6", "service", "the job is queued")
    for number in range(50):
        google.logs.write("6", "workerpool0-0", f"line {number}")
    *_, last = google_logs.lines(account, query("6"), "task_name", None)
    google.logs.write("6", "workerpool1-0", "a machine that nobody had heard of")
    google.logs.write("6", "workerpool0-0", "one more")
    before = google.logs.given
    new = [line.text for line in google_logs.lines(account, query("6"), "task_name", last.cursor)]
    assert new == ["a machine that nobody had heard of", "one more"]
    assert google.logs.given - before == 4  # the last line of each machine comes along


def test_vertex_logs_of_one_moment_are_told_apart(google, account):
    for number in range(4):
        google.logs.write("7", "workerpool0-0", f"line {number}")
    stamps = ("2026-11-24T20:00:00Z", "2026-11-24T20:00:00Z", "2026-11-24T20:00:00.5Z", "2026-11-24T20:00:00.50000001Z")
    for number, (entry, stamp) in enumerate(zip(google.logs.entries[-4:], stamps, strict=True)):
        entry |= {"timestamp": stamp, "insertId": f"id{number}"}
    whole = list(google_logs.lines(account, query("7"), "task_name", None))
    assert [line.text for line in whole] == [f"line {number}" for number in range(4)]
    for cut, line in enumerate(whole):
        assert list(google_logs.lines(account, query("7"), "task_name", line.cursor)) == whole[cut + 1 :]


def test_vertex_logs_show_json_lines(google, account):
    for line in (json.dumps({"message": "hello\nthere", "n": 1}), json.dumps({"loss": 0.5}), "[1, 2]"):
        google.logs.write("8", "workerpool0-0", line)
    told = [line.text for line in google_logs.lines(account, query("8"), "task_name", None)]
    assert told == ["hello there", '{"loss": 0.5}', "[1, 2]"]


@pytest.mark.parametrize("cursor", ["x", "[]", '{"a": 1}', '{"a": ["yesterday", "b"]}'])
def test_vertex_a_cursor_of_another_place_is_refused(account, cursor):
    with pytest.raises(BackendError, match="no cursor"):
        list(google_logs.lines(account, query("9"), "task_name", cursor))
