"""Chores that are done again and again, whatever becomes of one of them."""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

import pytest

from plugin.diagnostics import Diagnostics
from plugin.errors import StoreUnavailable
from plugin.historian.keeping.upkeep import Chore, Upkeep


class Pauses:
    """Time that passes as fast as it is asked for, until so many pauses were made."""

    def __init__(self, most: int) -> None:
        self.made: list[float] = []
        self.over = asyncio.Event()
        self._most = most

    async def __call__(self, seconds: float) -> None:
        self.made.append(seconds)
        if len(self.made) >= self._most:
            self.over.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def keep(pauses: Pauses, diagnostics: Diagnostics, *chores: Chore) -> None:
    task = asyncio.create_task(Upkeep(chores, diagnostics, pauses).run())
    await pauses.over.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_chore_is_done_at_once_and_after_each_interval() -> None:
    done: list[str] = []

    async def sweep() -> None:
        done.append("swept")

    pauses, diagnostics = Pauses(3), Diagnostics()
    await keep(pauses, diagnostics, Chore("sweeping", timedelta(minutes=1), sweep))
    assert done == ["swept"] * 3
    assert pauses.made == [60.0] * 3
    assert diagnostics.value("chore_done_timestamp_seconds", chore="sweeping") > 0


async def test_a_chore_that_fails_is_told_once_counted_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = [StoreUnavailable("locked"), ValueError("bug"), None, StoreUnavailable("locked"), None]
    left = iter(outcomes)

    async def sweep() -> None:
        if (error := next(left)) is not None:
            raise error

    pauses, diagnostics = Pauses(len(outcomes)), Diagnostics()
    with caplog.at_level(logging.INFO):
        await keep(pauses, diagnostics, Chore("sweeping", timedelta(seconds=5), sweep))
    assert diagnostics.value("chores_failed_total", chore="sweeping") == 3
    said = [record.message for record in caplog.records]
    assert said == ["sweeping failed, to be tried again: locked", "sweeping: done again"] * 2


async def test_a_chore_that_takes_long_holds_up_no_other() -> None:
    done: list[str] = []

    async def endless() -> None:
        await asyncio.Event().wait()

    async def sweep() -> None:
        done.append("swept")

    pauses = Pauses(2)
    long, short = (Chore(name, timedelta(seconds=1), do) for name, do in (("long", endless), ("short", sweep)))
    await keep(pauses, Diagnostics(), long, short)
    assert done == ["swept"] * 2
