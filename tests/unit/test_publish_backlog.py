"""What waits for subscriptions: kept once for all, it comes to each as if each kept its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Status
from plugin.publish import backlog as kept
from plugin.publish.audience import NOWHERE, Wish
from plugin.publish.backlog import Backlog, Changes
from plugin.publish.cells import Cell
from plugin.publish.items import Item, Scale

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
T = ua.VariantType
CHOOSES = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, ua.UInt32(ua.DeadbandType.Absolute), 1e-9)
"""Keeps what waits by itself, though it wants what all want."""
STAMPS = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)


def item(backlog: Backlog, cell: Cell, handle: int, queue: int = 10, **asked: Any) -> Item:
    made = Item(handle, ua.MonitoredItemCreateRequest(MonitoringMode=ua.MonitoringMode.Reporting), backlog)
    made.ask(ua.MonitoringParameters(ua.UInt32(handle), QueueSize=ua.UInt32(queue), **asked), queue, Scale())
    made.watch(cell)
    return made


def heard(backlog: Backlog, most: int = 10_000) -> list[tuple[int, Any, int]]:
    """Handle, value and status of what the next message says."""
    count, parts = backlog.take(most)
    body, found = Buffer(b"".join(parts)), []
    while len(body):
        said = struct_from_binary(ua.MonitoredItemNotification, body)
        found.append((said.ClientHandle, said.Value.Value.Value, said.Value.StatusCode.value))
    assert count == len(found)
    return found


def write(cell: Cell, value: Any, status: int = Status.GOOD, source: datetime = NOW) -> None:
    cell.write(value, status, source, NOW)


def cells(count: int, kind: ua.VariantType = T.Double) -> list[Cell]:
    return [Cell(kind, NOW) for _ in range(count)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2), st.sampled_from([1.0, 2.0, 3.0, None])),
        st.tuples(st.just("take"), st.just(0), st.none()),
        st.tuples(st.just("again"), st.integers(0, 2), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(STEPS, st.integers(1, 3), st.booleans())
def test_each_item_hears_what_its_own_queue_would_have_held(steps: Any, queue: int, oldest: bool) -> None:
    changes = Changes()
    shared, alone, three = changes.open(), changes.open(), cells(3)
    plain = [item(shared, cell, n, queue, DiscardOldest=oldest) for n, cell in enumerate(three)]
    for number, cell in enumerate(three):
        item(alone, cell, number, queue, DiscardOldest=oldest, Filter=CHOOSES)
    assert {each.wish for each in plain} == {Wish.CHANGE}
    found: list[list[Any]] = [[], []]
    for what, number, value in (*steps, ("take", 0, None)):
        if what == "write":
            write(three[number], value, Status.GOOD if value else Status.BAD_NO_DATA)
        elif what == "again":
            plain[number].close()
            plain[number].watch(three[number])
        else:
            for backlog, said in zip((shared, alone), found, strict=True):
                said.extend(heard(backlog))
                assert not backlog
    for number in range(3):
        first, second = ([said for said in each if said[0] == number] for each in found)
        assert first == second


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0, None]), st.integers(0, 2), st.booleans()), max_size=30))
def test_who_wants_each_source_time_is_told_as_if_asked_alone_and_disturbs_nobody_else(steps: Any) -> None:
    """A second item of one wish at one node keeps what waits by itself."""
    changes, (cell,) = Changes(), cells(1)
    backlogs = changes.open(), changes.open()
    for backlog, demand in zip(backlogs, (STAMPS, None), strict=True):
        shared, _ = (item(backlog, cell, handle, 100, Filter=demand) for handle in (1, 2))
        assert shared.place >= 0
    wanted: list[list[Any]] = [[], []]
    before: Any = (None, Status.BAD_WAITING_FOR_INITIAL_DATA, NOW)
    for value, second, leaves in steps:
        told = value, Status.GOOD if value else Status.BAD_NO_DATA, NOW + timedelta(seconds=second)
        write(cell, *told)
        wanted[0] += [told[:2]] * (told != before)
        wanted[1] += [told[:2]] * (told[:2] != before[:2])
        before = told
        if leaves:
            shared.close()
            shared.watch(cell)
    for backlog, expected in zip(backlogs, wanted, strict=True):
        said = heard(backlog)
        for handle in (1, 2):
            assert [rest for which, *rest in said if which == handle] == [list(each) for each in expected]


def test_what_historians_ask_for_is_kept_once_for_all_of_them():
    changes, three = Changes(), cells(3)
    backlogs = [changes.open() for _ in range(4)]
    for backlog in backlogs:
        for number, cell in enumerate(three):
            item(backlog, cell, number, Filter=STAMPS)
    for cell in three:
        write(cell, 1.0)
        write(cell, 1.0, source=NOW + timedelta(seconds=1))
    assert len(changes) == 6
    assert all(len(heard(backlog)) == 6 for backlog in backlogs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 20))
def test_messages_carry_no_more_than_asked_for_and_lose_nothing(sizes: list[int], values: int) -> None:
    backlog, (one, two, three) = Changes().open(), cells(3)
    for handle, cell in enumerate((one, two)):
        item(backlog, cell, handle, 100)
    item(backlog, three, 2, 100, Filter=CHOOSES)
    for number in range(values):
        write((one, two, three)[number % 3], float(number))
    found: list[tuple[int, Any, int]] = []
    messages: list[list[tuple[int, Any, int]]] = []
    while backlog:
        messages.append(heard(backlog, sizes[len(messages) % len(sizes)]))
        found += messages[-1]
    assert all(0 < len(said) <= sizes[n % len(sizes)] for n, said in enumerate(messages))
    assert sorted(value for _, value, _ in found) == [float(number) for number in range(values)]
    for handle in range(3):
        mine = [value for which, value, _ in found if which == handle]
        assert mine == sorted(mine)


def test_large_values_wait_for_messages_of_their_own(monkeypatch):
    monkeypatch.setattr(kept, "_MESSAGE_BYTES", 150)
    backlog, (small, large) = Changes().open(), cells(2, T.String)
    item(backlog, small, 1)
    item(backlog, large, 2)
    for cell, text in ((small, "a"), (small, "b"), (large, "c" * 1000), (small, "d")):
        write(cell, text)
    assert [len(each) for each in (heard(backlog), heard(backlog), heard(backlog), heard(backlog))] == [2, 1, 1, 0]


def test_each_subscription_hears_under_its_own_handles_what_was_packed_once():
    changes = Changes()
    first, second, others = changes.open(), changes.open(), changes.open()
    both, ours = cells(2)
    for backlog, cell, handle in ((first, both, 7), (first, ours, 8), (second, both, 4_000_000_000)):
        item(backlog, cell, handle)
    write(both, 1.5)
    write(ours, 2.5)
    assert len(changes) == 2
    assert heard(first) == [(7, 1.5, 0), (8, 2.5, 0)]
    assert heard(second) == [(4_000_000_000, 1.5, 0)]
    assert not others


def test_values_of_any_size_stand_in_one_message_in_order():
    backlog, kinds = Changes().open(), (T.Double, T.Boolean, T.String, T.DateTime, T.UInt32)
    facts = 1.5, True, "a text", NOW + timedelta(seconds=1), 7
    for number, (kind, fact) in enumerate(zip(kinds, facts, strict=True)):
        (cell,) = cells(1, kind)
        item(backlog, cell, number)
        write(cell, fact)
        write(cell, None, Status.BAD_NO_DATA)
    wanted: list[Any] = []
    for number, fact in enumerate(facts):
        wanted += [(number, fact, 0), (number, None, Status.BAD_NO_DATA)]
    assert heard(backlog) == wanted


def test_two_items_of_one_node_hear_it_both():
    backlog, (cell,) = Changes().open(), cells(1)
    first = item(backlog, cell, 1)
    item(backlog, cell, 2)
    write(cell, 1.0)
    assert sorted(heard(backlog)) == [(1, 1.0, 0), (2, 1.0, 0)]
    first.close()
    write(cell, 2.0)
    assert heard(backlog) == [(2, 2.0, 0)]


def test_a_newcomer_hears_nothing_of_what_was_said_to_others_before():
    changes, (cell, other) = Changes(), cells(2)
    item(changes.open(), cell, 1)
    newcomer = changes.open()
    item(newcomer, other, 1)
    write(cell, 1.0)
    item(newcomer, cell, 2)
    assert not newcomer


def test_what_waits_for_those_who_do_not_publish_is_bounded_by_their_queues(monkeypatch):
    monkeypatch.setattr(kept, "_KEPT", 50)
    changes, (cell, rare) = Changes(), cells(2)
    slow, gone = changes.open(), changes.open()
    for backlog in (slow, gone):
        item(backlog, rare, 1, 3)
        item(backlog, cell, 2, 3)
    write(rare, 0.5)
    del gone
    for number in range(1000):
        write(cell, float(number))
    assert len(changes) < 50
    assert heard(slow) == [(1, 0.5, 0), (2, 997.0, 0x480), (2, 998.0, 0), (2, 999.0, 0)]


def test_who_parts_with_items_hears_of_the_others_and_of_those_that_stay():
    backlog, three = Changes().open(), cells(3)
    first, second, third = (item(backlog, cell, number) for number, cell in enumerate(three, 1))
    for value in range(2):
        for cell in three:
            write(cell, float(value))
    with backlog.parting([first.place, second.place]):
        first.close()
    assert [each.place == NOWHERE for each in (first, second, third)] == [True, False, False]
    for cell in three:
        write(cell, 9.0)
    assert sorted(heard(backlog)) == [(1, 0.0, 0), (1, 1.0, 0), *((n, v, 0) for n in (2, 3) for v in (0.0, 1.0, 9.0))]


def test_an_item_that_is_named_twice_keeps_its_values():
    backlog, (cell,) = Changes().open(), cells(1)
    only = item(backlog, cell, 1)
    write(cell, 1.0)
    with backlog.parting([only.place]):
        for handle in (2, 3):
            only.ask(ua.MonitoringParameters(ua.UInt32(handle)), 10, Scale())
    assert heard(backlog) == [(3, 1.0, 0)]


@pytest.mark.parametrize("more", [{}, {"Filter": CHOOSES}], ids=["shares", "chooses"])
@pytest.mark.parametrize("oldest", [True, False])
def test_values_that_a_full_queue_drops_are_counted_but_not_those_of_a_queue_of_one(more, oldest):
    lost = list[int]()
    backlog, (cell, other) = Changes(lost.append).open(), cells(2)
    item(backlog, cell, 7, queue=3, DiscardOldest=oldest, **more)
    item(backlog, other, 8, queue=1, DiscardOldest=oldest, **more)
    for number in range(10):
        write(cell, float(number))
        write(other, float(number))
    assert len(heard(backlog)) == 4
    assert sum(lost) == 7
