"""Numbers of messages: order, holes, keep-alives, the wrap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.acquire.sequence import Sequence, following
from plugin.acquire.wire import Message

LAST = 0xFFFF_FFFF


def message(number: int) -> Message:
    return Message(1, number, 0, 0, ((811, b""),))


def drain(sequence: Sequence) -> list[int]:
    found = []
    while (due := sequence.due()) is not None:
        found.append(due.sequence)
        sequence.done(due.sequence)
    return found


def test_in_order() -> None:
    sequence = Sequence()
    for number in (1, 2, 3):
        assert sequence.offer(message(number))
        assert drain(sequence) == [number]
    assert sequence.missing() == []


def test_a_hole_is_missing_until_it_comes_or_is_given_up() -> None:
    sequence = Sequence(6)
    sequence.offer(message(9))
    assert drain(sequence) == []
    assert sequence.missing() == [7, 8]
    sequence.offer(message(8))
    assert sequence.missing() == [7]
    sequence.done(7)
    assert drain(sequence) == [8, 9]
    assert sequence.missing() == []


def test_a_due_message_stays_until_it_is_done() -> None:
    sequence = Sequence()
    sequence.offer(message(1))
    assert sequence.due() is sequence.due() is not None
    assert sequence.expected == 1


def test_a_repeated_number_is_not_taken_twice() -> None:
    sequence = Sequence(5)
    assert not sequence.offer(message(5))
    assert not sequence.broken(5)
    assert drain(sequence) == []


def test_a_keep_alive_tells_of_what_did_not_come_and_is_no_message_itself() -> None:
    sequence = Sequence(4)
    sequence.keep_alive(5)
    assert sequence.missing() == []
    sequence.keep_alive(7)
    assert sequence.missing() == [5, 6]
    assert sequence.expected == 5


def test_the_first_message_may_be_missing_too() -> None:
    sequence = Sequence()
    sequence.keep_alive(1)
    assert sequence.missing() == []
    sequence.keep_alive(2)
    assert sequence.missing() == [1]


def test_a_keep_alive_that_names_the_last_number_does_no_harm() -> None:
    sequence = Sequence(4)
    sequence.keep_alive(4)
    sequence.keep_alive(0)
    assert sequence.missing() == []


def test_the_wrap_is_no_gap() -> None:
    sequence = Sequence(LAST - 1)
    for number in (LAST, 1, 2):
        sequence.offer(message(number))
        assert drain(sequence) == [number]
    assert sequence.missing() == []


def test_a_hole_over_the_wrap() -> None:
    sequence = Sequence(LAST - 1)
    sequence.keep_alive(1)
    assert sequence.missing() == [LAST]
    sequence.offer(message(2))
    assert sequence.missing() == [LAST, 1]


@pytest.mark.parametrize(("last", "number"), [(5000, 1), (3, 50_000), (LAST - 5, 40_000)])
def test_a_server_that_counts_anew_is_noticed(last: int, number: int) -> None:
    assert Sequence(last).broken(number)


@given(st.integers(1, LAST), st.permutations(range(12)))
def test_any_order_of_arrival_gives_the_order_of_numbers(begin: int, order: list[int]) -> None:
    numbers = [begin]
    for _ in range(11):
        numbers.append(following(numbers[-1]))
    sequence = Sequence(LAST if begin == 1 else begin - 1)
    given_out: list[int] = []
    for place in order:
        sequence.offer(message(numbers[place]))
        given_out += drain(sequence)
    assert given_out == numbers
    assert sequence.missing() == []
