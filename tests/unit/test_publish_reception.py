"""Strangers have their turn, and no more: a share of the time, whatever many of them send."""

import asyncio
import contextlib
from collections.abc import Awaitable

import pytest

from plugin.publish import reception
from plugin.publish.reception import Reception

_WORK = 0.1
"""Seconds that each turn takes."""


class _House:
    """A reception whose time is made of work and waits alone."""

    def __init__(self) -> None:
        self.now, self.waited, self.delayed = 0.0, 0.0, 0
        self.heard: list[str] = []
        self.reception = Reception(self._delay, lambda: self.now, self._sleep)

    def _delay(self) -> None:
        self.delayed += 1

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds
        await asyncio.sleep(0)

    async def hear(self, address: str) -> None:
        async with self.reception.turn(address):
            self.heard.append(address)
            self.now += _WORK


async def _together(*waiting: Awaitable[None]) -> None:
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)


async def test_strangers_have_a_share_of_the_time():
    house = _House()
    await _together(*(house.hear("flood") for _ in range(100)))
    assert len(house.heard) == 100
    assert 100 * _WORK / house.now == pytest.approx(0.2, rel=0.1)
    assert house.delayed == 96  # what was saved up was enough for the first four


async def test_who_comes_alone_does_not_wait():
    house = _House()
    for _ in range(10):
        await house.hear("friend")
        house.now += 10.0
    assert (house.waited, house.delayed) == (0.0, 0)


async def test_a_crowd_from_one_address_holds_up_no_other():
    house = _House()
    crowd = [asyncio.ensure_future(house.hear("crowd")) for _ in range(50)]
    while not house.heard:
        await asyncio.sleep(0)
    await house.hear("friend")
    assert house.heard.index("friend") <= 3
    await _together(*crowd)


async def test_who_goes_away_while_it_waits_leaves_its_turn_to_the_next():
    house = _House()
    gone = [asyncio.ensure_future(house.hear("gone")) for _ in range(20)]
    while len(house.heard) < 5:
        await asyncio.sleep(0)
    for each in gone:
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each
    await _together(house.hear("gone"), house.hear("friend"))
    assert house.heard[-2:] == ["gone", "friend"]


async def test_work_that_fails_counts_and_ends_its_turn():
    house = _House()

    async def fail() -> None:
        async with house.reception.turn("flood"):
            house.now += _WORK
            raise ValueError("no such key")

    for _ in range(5):
        with pytest.raises(ValueError, match="no such key"):
            await fail()
    assert house.delayed == 1


def _coming(house: _House, address: str, count: int) -> int:
    return sum(house.reception.lets_in(address) for _ in range(count))


def test_an_address_has_so_many_connections_at_once_and_so_many_a_second(caplog):
    house = _House()
    assert _coming(house, "flood", 1000) == 200
    assert _coming(house, "friend", 50) == 50
    house.now += 1.0
    assert _coming(house, "flood", 1000) == 20
    house.now += 3600.0
    assert _coming(house, "flood", 1000) == 200
    assert [record.message for record in caplog.records] == [
        "OPC UA server: refused 1 connection(s) of flood, for it makes too many",
        "OPC UA server: refused 1780 connection(s) of flood, for it makes too many",
    ]


def test_many_addresses_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reception, "_REMEMBERED", 10)
    house = _House()
    assert all(house.reception.lets_in(f"10.0.0.{number}") for number in range(100))
    assert len(house.reception._connections) == 10
