"""The log hears of a fault that begins, not of each time; of one that comes and goes now and then, with a count."""

from datetime import UTC, datetime

from plugin.complaints import Complaints


def test_a_fault_is_told_when_it_begins_and_when_it_changes() -> None:
    complaints = Complaints(lambda: 0.0)
    assert complaints.about("nox", "timed out") == "timed out"
    assert complaints.about("nox", "timed out") == ""
    assert complaints.about("rul", "timed out") == "timed out"
    assert complaints.about("nox", "no samples") == "no samples"
    assert complaints.about("nox", "timed out") == "timed out"


def test_a_fault_that_comes_and_goes_is_told_every_ten_minutes_with_how_often() -> None:
    now = [0.0]
    complaints = Complaints(lambda: now[0])
    told = []
    for second in range(0, 1800, 10):
        now[0] = float(second)
        told.append(complaints.about("nox", "timed out"))
        complaints.over("nox")
    more = "timed out (59 more times since this was told last)"
    assert [text for text in told if text] == ["timed out", more, more]


def test_of_a_fault_that_lasts_the_log_is_reminded_each_hour_with_since_when() -> None:
    now = [0.0]
    complaints = Complaints(lambda: now[0], lambda: datetime(2026, 3, 1, 12, 5, tzinfo=UTC))
    told = []
    for minute in range(0, 150, 10):
        now[0] = 60.0 * minute
        told.append(complaints.about("nox", "timed out"))
    again = "timed out (since 2026-03-01 12:05 UTC)"
    assert [text for text in told if text] == ["timed out", again, again]
    assert [told[0], told[6], told[12]] == ["timed out", again, again]


def test_of_ever_new_faults_the_log_hears_so_many_and_no_more() -> None:
    complaints = Complaints(lambda: 0.0, most=2)
    assert [complaints.about(text, text) for text in ("a", "b", "c", "a")] == ["a", "b", "", ""]
