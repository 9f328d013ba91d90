"""The log hears of a fault that begins, not of each time; of one that comes and goes now and then, with a count."""

from plugin.infer.complaints import Complaints


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


def test_a_fault_that_lasts_is_told_once_however_long() -> None:
    now = [0.0]
    complaints = Complaints(lambda: now[0])
    assert complaints.about("nox", "timed out")
    now[0] = 1e6
    assert complaints.about("nox", "timed out") == ""
