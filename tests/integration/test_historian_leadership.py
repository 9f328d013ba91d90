"""Who leads a shard, on a real server: one at a time, replaced when it falls silent, and unable to write after that."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from plugin.domain import Run, RunKind, SampleBatch, Tag
from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.config import HistorianConfig
from plugin.historian.postgres.connections import Place, PostgresServer, translated
from plugin.historian.postgres.fence import STILL_LEADS, Fence, Replaced
from plugin.historian.postgres.leadership import Candidate, Leader, Leadership
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.recent.ring import Ring
from plugin.protocols import Delivery, Written
from tests.acceptance.proxy import Fault, Proxy
from tests.postgres import Database, Postgres

pytestmark = pytest.mark.timeout(60)

NORTH, SOUTH = (Candidate("line 1", f"gateway {name}", ("plant",), ("rul",), f"{name} process 1") for name in "ns")


@pytest.fixture
def database(migrated_postgres: Database) -> Database:
    return migrated_postgres


def place(database: Database, port: int = 0) -> Place:
    return Place("127.0.0.1", port or database.port, database.name, database.user, database.password)


@asynccontextmanager
async def leadership(
    database: Database, candidate: Candidate, port: int = 0, fence: Fence | None = None
) -> AsyncIterator[Leadership]:
    found = Leadership(PostgresServer(place(database, port)), candidate)
    try:
        yield found
    finally:
        await found.close()


async def within(seconds: float, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_one_leads_and_the_other_sees_who(database: Database) -> None:
    seen: list[Leader] = []
    async with leadership(database, NORTH) as north, leadership(database, SOUTH) as south:
        assert await north.gain() == Fence("line 1", 1)
        waiting = asyncio.create_task(south.gain(seen.append))
        await within(10, lambda: bool(seen))
        assert seen[0] == Leader(1, "gateway n", "n process 1")
        assert not waiting.done()
        await north.close()
        async with asyncio.timeout(10):
            assert await waiting == Fence("line 1", 2)


async def test_another_shard_has_a_leader_of_its_own(database: Database) -> None:
    other = Candidate("line 2", "gateway s", ("boiler",), ("wear",))
    async with leadership(database, NORTH) as north, leadership(database, other) as south:
        assert await north.gain() == Fence("line 1", 1)
        assert await south.gain() == Fence("line 2", 1)


@pytest.mark.parametrize(("theirs", "what"), [("sources", "source 'plant'"), ("models", "model 'rul'")])
async def test_what_a_running_shard_has_no_other_gets(database: Database, theirs: str, what: str) -> None:
    other = Candidate("line 2", "gateway s", **{theirs: getattr(NORTH, theirs)})
    async with leadership(database, NORTH) as north, leadership(database, other) as south:
        await north.gain()
        with pytest.raises(StoreError, match=f"{what} belongs to shard 'line 1', which n process 1 leads"):
            await south.gain()
        await north.close()  # a shard that was renamed, or given up, holds up nobody
        assert await south.gain() == Fence("line 2", 1)


async def test_what_the_leader_before_left_is_looked_after_before_the_term_begins(database: Database) -> None:
    epochs: list[str] = []

    async def succeed() -> None:
        epochs.append(database.psql("SELECT epoch FROM leaders")[0][0])

    for candidate in (NORTH, NORTH, SOUTH):  # one that succeeds itself has nothing to look after
        async with leadership(database, candidate) as found:
            await found.gain(succeed=succeed)
    assert epochs == ["2"]


async def test_an_epoch_waits_for_a_transaction_of_the_one_before_and_no_other_begins(database: Database) -> None:
    async with leadership(database, NORTH) as north, leadership(database, SOUTH) as south:
        old = await north.gain()
        await north.close()
        writer = await PostgresServer(place(database)).connect()
        try:
            async with writer.transaction():
                assert await writer.fetchval(STILL_LEADS, old.shard, old.epoch)
                gaining = asyncio.create_task(south.gain())
                await asyncio.sleep(0.3)
                assert not gaining.done()
            assert await gaining == Fence("line 1", 2)
            async with writer.transaction():
                assert await writer.fetchval(STILL_LEADS, old.shard, old.epoch) is None
        finally:
            await writer.close()


async def test_a_writer_that_hangs_in_its_transaction_is_ended(database: Database) -> None:
    async with leadership(database, NORTH) as north, leadership(database, SOUTH) as south:
        old = await north.gain()
        await north.close()
        hung = await PostgresServer(place(database)).connect({"application_name": old.application})
        await hung.execute("BEGIN")
        assert await hung.fetchval(STILL_LEADS, old.shard, old.epoch)
        async with asyncio.timeout(10):
            assert await south.gain() == Fence("line 1", 2)
        with pytest.raises(StoreUnavailable), translated(place(database)):
            await hung.execute("COMMIT")


async def test_a_leader_whose_wire_is_cut_goes_on_where_nobody_took_its_place(database: Database) -> None:
    async with Proxy(database.port) as proxy, leadership(database, NORTH, proxy.port) as north:
        fence = await north.gain()
        keeping = asyncio.create_task(north.keep(fence))
        before = sessions(database)
        await proxy.outage(Fault.RESET, 1)
        await within(20, lambda: bool(sessions(database)) and sessions(database) != before)
        assert not keeping.done()
        assert database.psql("SELECT epoch FROM leaders") == [["1"]]
        keeping.cancel()


async def test_a_leader_that_vanishes_without_a_word_is_replaced(database: Database) -> None:
    async with Proxy(database.port) as proxy, leadership(database, NORTH, proxy.port) as north:
        fence = await north.gain()
        keeping = asyncio.create_task(north.keep(fence))
        await proxy.strike(Fault.HOLE)
        async with leadership(database, SOUTH) as south:
            async with asyncio.timeout(10):
                assert await south.gain() == Fence("line 1", 2)
            assert not keeping.done()  # it can't know
            await proxy.mend()
            async with asyncio.timeout(20):
                assert (await keeping).gateway == "gateway s"


async def test_the_server_restarts_and_the_leader_is_the_same(database: Database, postgres_server: Postgres) -> None:
    async with leadership(database, NORTH) as north:
        fence = await north.gain()
        keeping = asyncio.create_task(north.keep(fence))
        postgres_server.restart()  # not in a thread: the server dies with the thread that started it
        await within(20, lambda: bool(sessions(database)))
        assert not keeping.done()
        assert database.psql("SELECT epoch FROM leaders") == [["1"]]
        keeping.cancel()


def sessions(database: Database) -> list[list[str]]:
    """Who holds a lock of a shard."""
    return database.psql("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")


async def test_a_database_that_is_away_is_waited_for(database: Database) -> None:
    async with Proxy(database.port) as proxy, leadership(database, NORTH, proxy.port) as north:
        await proxy.strike(Fault.REFUSED)
        gaining = asyncio.create_task(north.gain())
        await asyncio.sleep(0.2)
        assert not gaining.done()
        await proxy.mend()
        async with asyncio.timeout(20):
            assert await gaining == Fence("line 1", 1)


async def test_a_password_that_is_wrong_is_not_tried_for_ever(database: Database) -> None:
    async with leadership(replace(database, password="guessed"), NORTH) as north:
        with pytest.raises(StoreError, match="password") as caught:
            await north.gain()
        assert not isinstance(caught.value, StoreUnavailable)


async def test_who_was_replaced_writes_nothing_more(database: Database) -> None:
    tag = Tag("T", "plant", "nsu=urn:plant;s=T")
    run = Run(0, "rul", RunKind.SCORE, datetime(2026, 3, 1, tzinfo=UTC))
    async with AsyncExitStack() as stack:
        north, south = [await stack.enter_async_context(leadership(database, each)) for each in (NORTH, SOUTH)]
        store = await stack.enter_async_context(PostgresStore(database.secret_url, fence=await north.gain()))
        (tag,) = await store.register_tags([tag])
        assert await store.write([delivery(tag, 1)]) == Written(1, 0)
        await store.write_run(run)
        await north.close()
        await south.gain()
        for write in (
            lambda: store.write([delivery(tag, 2)]),
            lambda: store.write([delivery(tag, 1)]),
            lambda: store.write_run(run),
            lambda: store.register_tags([replace(tag, unit="bar")]),
        ):
            with pytest.raises(Replaced, match="another gateway leads shard 'line 1' now"):
                await write()
        assert (await store.latest([tag.id])).value.tolist() == [1.0]
        assert len(await store.runs("rul")) == 1


async def test_a_tag_of_another_shard_that_is_led_is_refused(database: Database) -> None:
    tag = Tag("T", "plant", "nsu=urn:plant;s=T")
    theirs = Candidate("line 2", "gateway s", ("other",))
    async with AsyncExitStack() as stack:
        north, south = [await stack.enter_async_context(leadership(database, each)) for each in (NORTH, theirs)]
        first = await stack.enter_async_context(PostgresStore(database.secret_url, fence=await north.gain()))
        second = await stack.enter_async_context(PostgresStore(database.secret_url, fence=await south.gain()))
        await first.register_tags([tag])
        await first.register_tags([replace(tag, unit="bar")])
        with pytest.raises(StoreError, match="tag 'T' belongs to shard 'line 1', whose source 'plant' has it"):
            await second.register_tags([replace(tag, source="other")])
        assert database.psql("SELECT source, unit FROM tags") == [["plant", "bar"]]
        await north.close()
        await second.register_tags([replace(tag, source="other")])


async def test_what_keeps_a_database_in_order_is_done_by_one_gateway_at_a_time(database: Database) -> None:
    north, south = (PostgresServer(place(database)) for _ in range(2))
    async with north.alone("tidying") as first, south.alone("tidying") as second, south.alone("counting") as other:
        assert (first, second, other) == (True, False, True)
    async with south.alone("tidying") as free:
        assert free


async def test_the_ring_of_a_leader_gets_what_others_bring(database: Database) -> None:
    async with AsyncExitStack() as stack:
        north = await stack.enter_async_context(leadership(database, NORTH))
        store = PostgresStore(database.secret_url, ring=Ring(), fence=await north.gain())
        await stack.enter_async_context(store)
        other = await stack.enter_async_context(PostgresStore(database.secret_url))
        (tag,) = await store.register_tags([Tag("T", "plant", "nsu=urn:plant;s=T")])
        await store.keep_recent([tag.id])
        (look,) = [chore for chore in store.chores(HistorianConfig()) if "elsewhere" in chore.name]
        await other.register_tags([tag])
        for number in (3, 1, 2):
            await (store if number == 3 else other).write([delivery(tag, number)])
        assert (await store.read_samples([tag.id], 0, 9)).value.tolist() == [3.0]
        await look.do()  # it may go on: not yet
        assert (await store.read_samples([tag.id], 0, 9)).value.tolist() == [3.0]
        await look.do()
        assert (await store.read_samples([tag.id], 0, 9)).value.tolist() == [1.0, 2.0, 3.0]
        await store.write([delivery(tag, 4)])
        await look.do()
        assert (await store.read_samples([tag.id], 0, 9)).value.tolist() == [1.0, 2.0, 3.0, 4.0]
        mended = SampleBatch.of([tag.id], [3], [7.0], 0, [3], [3])
        assert (await other.correct(mended, user="me", reason="a test")).replaced == 1
        await look.do()
        await look.do()
        assert (await store.read_samples([tag.id], 0, 9)).value.tolist() == [1.0, 2.0, 7.0, 4.0]


def delivery(tag: Tag, number: int) -> Delivery:
    return Delivery(SampleBatch.of([tag.id], [number], [float(number)], 0, [number], [number]))
