"""The decision on a score."""

from datetime import UTC, datetime

from plugin.domain import Flag
from plugin.infer.flags import Decision


def flag(score: float, raised: bool) -> Flag:
    return Flag("m", "a", 1, datetime(2026, 1, 1, tzinfo=UTC), raised, score, 1.0, 0, 1)


def test_a_flag_needs_persistence_to_be_raised_and_to_be_withdrawn():
    decision = Decision(1.0, 3)
    assert [decision.decide(score) for score in (2, 2, 0, 2, 2, 2, 0, 0, 2, 0, 0, 0)] == [
        False, False, False, False, False, True, True, True, True, True, True, False,
    ]  # fmt: skip


def test_a_score_at_the_threshold_is_normal():
    assert not Decision(1.0, 1).decide(1.0)


def test_a_run_without_a_number_changes_nothing():
    decision = Decision(1.0, 2)
    decision.decide(2.0)
    assert not decision.decide(None)
    assert decision.decide(2.0)


def test_the_state_is_restored_from_stored_flags():
    decision = Decision(1.0, 3, [flag(2.0, raised=True), flag(0.5, raised=True)])
    assert decision.raised
    assert decision.decide(0.5)
    assert not decision.decide(0.5)
