"""The decision on a score."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Flag
from plugin.infer.flags import Decision, Rule

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RULES = st.builds(
    Rule,
    persistence=st.integers(1, 4),
    every=st.just(SECOND),
    on_delay=st.none() | st.integers(0, 6).map(lambda n: n * SECOND),
    off_delay=st.none() | st.integers(0, 6).map(lambda n: n * SECOND),
    dead_band=st.sampled_from((0.0, 0.3)),
)
SCORES = st.lists(st.sampled_from((None, 0.5, 0.8, 2.0)), min_size=1, max_size=40)


def rule(persistence=1, on_delay=None, off_delay=None, dead_band=0.0):
    return Rule(persistence, SECOND, on_delay, off_delay, dead_band)


def at(second):
    return START + second * SECOND


def flag(score, raised, second=0):
    return Flag("m", "a", 1, at(second), raised, score, 1.0, 0, 1)


def decided(decision, scores, seconds=None):
    return [
        decision.decide(score, at(second)) for second, score in zip(seconds or range(len(scores)), scores, strict=False)
    ]


def test_a_flag_needs_persistence_to_be_raised_and_to_be_withdrawn():
    assert decided(Decision(1.0, rule(3)), (2, 2, 0, 2, 2, 2, 0, 0, 2, 0, 0, 0)) == [
        False, False, False, False, False, True, True, True, True, True, True, False,
    ]  # fmt: skip


def test_a_score_at_the_threshold_is_normal():
    assert not Decision(1.0, rule()).decide(1.0, START)


def test_a_run_without_a_number_changes_nothing():
    assert decided(Decision(1.0, rule(2)), (2.0, None, 2.0)) == [False, False, True]


def test_the_delays_take_the_place_of_persistence():
    decision = Decision(1.0, rule(9, on_delay=2 * SECOND, off_delay=3 * SECOND))
    assert decided(decision, (2, 2, 2, 0, 0, 0, 0)) == [False, False, True, True, True, True, False]


def test_a_delay_of_nothing_raises_at_once():
    assert decided(Decision(1.0, rule(9, on_delay=0 * SECOND)), (0, 2)) == [False, True]


def test_time_in_which_nothing_is_known_does_not_count():
    decision = Decision(1.0, rule(on_delay=3 * SECOND))
    assert decided(decision, (2, 2, 2, 2), (0, 1, 100, 101)) == [False, False, False, True]


def test_a_flag_stays_until_the_score_is_below_the_dead_band():
    decision = Decision(1.0, rule(dead_band=0.2))
    assert decided(decision, (0.9, 1.1, 0.9, 0.8, 0.9)) == [False, True, True, False, False]


def test_the_state_is_restored_from_stored_flags():
    decision = Decision(1.0, rule(3), [flag(2.0, raised=True), flag(0.5, raised=True, second=1)])
    assert decision.raised
    assert decided(decision, (0.5, 0.5), (2, 3)) == [True, False]


def test_what_was_stored_holds_whatever_the_rule_would_say_now():
    """Another persistence, or the threshold of another version."""
    decision = Decision(9.0, rule(3), [flag(2.0, raised=True)])
    assert decision.raised
    assert not Decision(1.0, rule(), [flag(2.0, raised=False)]).raised


@settings(max_examples=60, deadline=None)
@given(RULES, SCORES, st.lists(st.integers(1, 5), min_size=40, max_size=40), st.integers(0, 40))
def test_a_restart_at_any_moment_changes_no_decision(rule, scores, steps, cut):
    """Runs that came after one another, some late; the second half by one who knows the stored flags alone."""
    seconds = [sum(steps[:n]) for n in range(len(scores))]
    whole = decided(Decision(1.0, rule), scores, seconds)
    stored = [
        flag(s, r, n) for s, r, n in zip(scores, whole, seconds, strict=True) if s is not None and n < sum(steps[:cut])
    ]
    later = [n for n in range(len(scores)) if seconds[n] >= sum(steps[:cut])]
    after = Decision(1.0, rule, stored[-rule.memory :])
    assert decided(after, [scores[n] for n in later], [seconds[n] for n in later]) == [whole[n] for n in later]


@settings(max_examples=60, deadline=None)
@given(RULES, SCORES)
def test_a_flag_is_never_raised_before_its_delay_nor_by_what_is_not_known(rule, scores):
    raised = decided(Decision(1.0, rule), scores)
    known = [(score, up) for score, up in zip(scores, raised, strict=True) if score is not None]
    for n, (_, up) in enumerate(known):
        if up and not (n and known[n - 1][1]):
            over = [score > 1.0 for score, _ in known[: n + 1]][::-1]
            lasting = over.index(False) if False in over else len(over)
            runs = rule.persistence if rule.on_delay is None else rule.on_delay // SECOND + 1
            assert lasting >= min(runs, n + 1)
            assert rule.on_delay is None or lasting > 0
    bridged = decided(Decision(1.0, rule), [score for score, _ in known])
    assert rule.on_delay is not None or rule.off_delay is not None or bridged == [up for _, up in known]
