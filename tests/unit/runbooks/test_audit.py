"""Reading the journal back: which runs, which lines, and what is passed over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.errors import UsageError
from redisforge.fleet.journal import Journal, rotated
from redisforge.model.layout import ClusterLayout
from redisforge.runbooks.audit import Selection, audit, has_worked, parse_time

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LONG_AGO = b'{"at":"2020-01-01T00:00:00+00:00","user":"old","verb":"up","event":"end","result":"ok"}\n'


def written(folder: Path, *verbs: str) -> ClusterLayout:
    layout = ClusterLayout(str(folder))
    for verb in verbs:
        journal = Journal(Path(layout.journal), verb=verb, user="ann", arguments=(verb,))
        journal.write("begin", what="main")
        journal.write("step", what="a step", result="ok", seconds=0.1)
        journal.write_end(what="main", seconds=0.2)
    return layout


def test_all_runs_in_order_with_all_their_lines(tmp_path: Path) -> None:
    report = audit(written(tmp_path, "up", "restart", "down"), Selection())
    assert [line.verb for line in report.lines if line.event == "begin"] == ["up", "restart", "down"]
    assert [line.event for line in report.lines] == ["begin", "step", "end"] * 3
    assert report.cluster == tmp_path.name
    assert report.notices == ()


def test_the_last_runs_of_a_verb(tmp_path: Path) -> None:
    layout = written(tmp_path, "up", "restart", "up", "restart", "restart")
    assert len({line.run for line in audit(layout, Selection(last=2)).lines}) == 2
    restarts = audit(layout, Selection(last=2, verb="restart")).lines
    assert {line.verb for line in restarts} == {"restart"}
    assert len(restarts) == 6
    assert audit(layout, Selection(verb="scale")).lines == ()


def test_where_no_run_matches_the_verbs_on_record_are_named(tmp_path: Path) -> None:
    layout = written(tmp_path, "up", "restart", "restart")
    assert audit(layout, Selection(verb="nope")).notices == ("no run of 'nope'; on record are runs of: restart, up",)
    later = Selection(verb="up", since=datetime(2999, 1, 1, tzinfo=UTC))
    assert audit(layout, later).notices == (
        "no run of 'up' since 2999-01-01T00:00:00+00:00; on record are runs of: restart, up",
    )
    assert audit(layout, Selection(verb="up")).notices == ()
    assert audit(ClusterLayout(str(tmp_path / "new")), Selection(verb="up")).notices == ()


def test_a_verb_may_go_on_with_what_it_was_asked_to_do(tmp_path: Path) -> None:
    layout = ClusterLayout(str(tmp_path))
    for verb, what in (("host", "drain h3"), ("host", "drain h33"), ("host", "remove h3"), ("lock release", "drain")):
        journal = Journal(Path(layout.journal), verb=verb, user="ann", arguments=())
        journal.write("begin", what=what)
        journal.write("step", what="drain h3 of all", result="ok")
        journal.write_end(what=what, seconds=0.2)

    def begun(words: str) -> list[str]:
        return [line.what for line in audit(layout, Selection(verb=words)).lines if line.event == "begin"]

    assert begun("host drain") == ["drain h3", "drain h33"]
    assert begun("host  drain h3") == ["drain h3"]
    assert begun("host") == ["drain h3", "drain h33", "remove h3"]
    assert begun("lock release") == ["drain"]
    assert len(audit(layout, Selection(verb="host drain")).lines) == 6
    (notice,) = audit(layout, Selection(verb="remove")).notices
    assert notice == "no run of 'remove'; on record are runs of: host, host remove, lock release"


def test_runs_since_a_time(tmp_path: Path) -> None:
    layout = ClusterLayout(str(tmp_path))
    Path(layout.journal).write_bytes(LONG_AGO)
    written(tmp_path, "restart")
    since = audit(layout, Selection(since=datetime.now(UTC) - timedelta(hours=1))).lines
    assert {line.verb for line in since} == {"restart"}
    assert audit(layout, Selection()).lines[0].user == "old"


def line(run: str, minute: int, event: str) -> str:
    return f'{{"at":"2026-05-01T10:{minute:02}:00+00:00","run":"{run}","verb":"scale","event":"{event}"}}\n'


def shown(folder: Path, *lines: str, since: int = 0, last: int = 0) -> list[tuple[str, str]]:
    """(run, event) of what is shown of a journal with `lines` since a minute (0: all)."""
    layout = ClusterLayout(str(folder))
    Path(layout.journal).write_text("".join(lines))
    time = datetime(2026, 5, 1, 10, since, tzinfo=UTC) if since else None
    return [(entry.run, entry.event) for entry in audit(layout, Selection(last=last, since=time)).lines]


LONG_RUN = [("long", "begin"), ("long", "step"), ("long", "end")]


def test_a_run_that_began_before_the_period_and_went_on_is_shown_whole(tmp_path: Path) -> None:
    journal = (
        line("early", 1, "begin"), line("long", 2, "begin"), line("killed", 3, "begin"), line("early", 4, "end"),
        line("late", 12, "begin"), line("long", 13, "step"), line("late", 14, "end"), line("long", 15, "end"),
    )  # fmt: skip
    late = [("late", "begin"), ("late", "end")]
    assert shown(tmp_path, *journal, since=10) == [*LONG_RUN, *late]
    assert shown(tmp_path, *journal, since=15) == LONG_RUN
    assert shown(tmp_path, *journal, since=10, last=1) == late


def test_a_run_that_is_left_out_of_the_last_ones_stays_out_when_it_goes_on(tmp_path: Path) -> None:
    """And the others are shown whole."""
    journal = (
        line("long", 1, "begin"), line("one", 2, "begin"), line("two", 3, "begin"), line("long", 4, "step"),
        line("one", 5, "end"), line("two", 6, "end"), line("long", 7, "end"),
    )  # fmt: skip
    both = [(run, event) for run in ("one", "two") for event in ("begin", "end")]
    assert shown(tmp_path, *journal, last=2) == both
    assert shown(tmp_path, *journal, last=3) == [*LONG_RUN, *both]


def test_both_files_are_read(tmp_path: Path) -> None:
    layout = written(tmp_path, "up")
    Path(layout.journal).rename(rotated(Path(layout.journal)))
    written(tmp_path, "down")
    assert [line.verb for line in audit(layout, Selection()).lines if line.event == "end"] == ["up", "down"]


def test_without_a_journal_there_is_nothing(tmp_path: Path) -> None:
    assert audit(ClusterLayout(str(tmp_path)), Selection()).lines == ()


@pytest.mark.parametrize(
    ("what", "steps", "worked"),
    [
        ("remove redis-7", [("redis-1: CLUSTER FORGET", "ok")], True),
        ("remove redis-7", [("redis-1: CLUSTER FORGET", "NodeError: it does not answer")], False),
        ("remove redis-7", [], False),
        ("remove redis-77", [("redis-1: CLUSTER FORGET", "ok")], False),
        ("--shards 3", [("stop and delete redis-7", "ok")], False),
    ],
)
def test_whether_the_same_words_have_worked_before(
    tmp_path: Path, what: str, steps: list[tuple[str, str]], worked: bool
) -> None:
    layout = ClusterLayout(str(tmp_path))
    journal = Journal(Path(layout.journal), verb="scale", user="somebody", arguments=())
    journal.write("begin", what=what)
    for step, result in steps:
        journal.write("step", what=step, result=result)
    assert has_worked(layout, "scale", "remove redis-7") is worked
    assert not has_worked(layout, "restart", "remove redis-7")


@pytest.mark.parametrize(
    "garbage",
    [b'{"at": "2026-01-', b"\xff\xfe\x00", b"[]", b"{}", b'{"at": "yesterday"}', b'{"at": "2026-01-01", "pid": "x"}'],
)
def test_lines_that_are_none_are_passed_over_and_counted(tmp_path: Path, garbage: bytes) -> None:
    layout = written(tmp_path, "up")
    with Path(layout.journal).open("ab") as stream:
        stream.write(garbage)
    written(tmp_path, "down")
    report = audit(layout, Selection())
    assert [line.verb for line in report.lines if line.event == "end"] == ["up", "down"]
    assert report.notices == ("1 lines of the journal cannot be read and are passed over",)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_content_breaks_it(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "journal.jsonl").write_bytes(b"\n".join(chunks))
    layout = written(folder, "up")
    assert "up" in {line.verb for line in audit(layout, Selection(last=1)).lines}


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("12H", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-04-30T10:00:00+02:00", datetime(2026, 4, 30, 8, 0, tzinfo=UTC)),
        ("2026-04-30T10:00Z", datetime(2026, 4, 30, 10, 0, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    assert parse_time(text, NOW) == time


@pytest.mark.parametrize("text", ["", "soon", "7y", "-3h", "2026-13-01", "99999999999d"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, NOW)
