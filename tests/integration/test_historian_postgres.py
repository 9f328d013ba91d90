"""The store on a real PostgreSQL: away and back, refused, split by time, and never with a password in a message."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, SampleBatch, Tag
from plugin.errors import StoreError, StoreUnavailable
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.postgres.connections import Place, PostgresServer
from plugin.historian.postgres.partitions import Partition, Partitions, existing
from plugin.historian.postgres.samples import said, written
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.recent.ring import Ring
from plugin.historian.spilling.spill import Spill
from plugin.protocols import Delivery, Health, HistoryProgress, Written
from tests.certificates import AUTHORITY, make
from tests.postgres import PASSWORD, Database, Postgres

EVER = (-(2**60), 2**60)
TAGS = [Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in (1, 2, 3)]
MINUTE: Micros = 60_000_000
NOW: Micros = 1_700_000_100_000_000
WIDTH = 10 * MINUTE
ROWS = 200


def place(of: Database, /, **changes: object) -> Place:
    return replace(Place.of(of.secret_url), **changes)  # type: ignore[arg-type]


@pytest.fixture
def timescale(migrated_postgres: Database) -> None:
    """The catalog says that the extension is there, which can't be had here; its code is not."""
    migrated_postgres.psql(
        "SET allow_system_table_mods = on",
        "INSERT INTO pg_extension SELECT 99999, 'timescaledb', extowner, extnamespace, false, '2.17.2', NULL, NULL "
        "FROM pg_extension WHERE extname = 'plpgsql'",
    )


@pytest.fixture
async def store(migrated_postgres: Database) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(migrated_postgres.secret_url, busy_timeout=timedelta(seconds=1)) as store:
        await store.register_tags(TAGS)
        yield store


def delivery(first: int, count: int = ROWS, tag: int = 1) -> Delivery:
    time = np.arange(first, first + count)
    return Delivery(SampleBatch.of(np.full(count, tag), time, time * 0.5, 0, time, time))


@pytest.mark.usefixtures("timescale")
async def test_an_extension_that_is_not_used_is_told_of_at_the_start(
    migrated_postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "plugin.historian"):
        async with PostgresStore(migrated_postgres.secret_url) as store:
            await store.register_tags(TAGS)
            await store.write([delivery(0)])
            product = await store.product()
    said = "timescaledb 2.17.2 present, not used: closed samples are compressed already"
    assert [record.getMessage().partition("): ")[2] for record in caplog.records] == [said]
    assert product.startswith("PostgreSQL ")
    assert product.endswith(f"; {said}")


async def test_what_is_not_there_is_not_told_of(store: PostgresStore, caplog: pytest.LogCaptureFixture) -> None:
    assert "timescale" not in await store.product() + caplog.text


# --- who is let in, and who is away ---


async def test_an_empty_database_is_filled_with_tables_and_a_unix_socket_will_do(postgres: Database) -> None:
    where = replace(Place.of(postgres.secret_url), host=str(postgres.folder), sslmode="")
    assert where.local
    server = PostgresServer(where)
    connection = await server.connect()
    try:
        assert await connection.fetchval("SHOW statement_timeout") == "5min"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    finally:
        await connection.close()
    async with PostgresStore(postgres.secret_url) as store:
        assert (await store.counts())["runs"] == 0
    assert ["samples"] in postgres.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong " + PASSWORD}, "the password is wrong: see password_env"),
        ({"user": "nobody_here"}, "the password is wrong"),
        ({"database": "not_there"}, "make it first: CREATE DATABASE"),
        ({"sslmode": "verify-full"}, "it knows no TLS"),
    ],
)
async def test_what_a_person_has_to_mend_is_said_and_not_waited_for(
    postgres: Database, change: dict[str, str], says: str
) -> None:
    with pytest.raises(StoreError, match=says) as caught:
        await PostgresServer(place(postgres, **change)).connect()
    assert not isinstance(caught.value, StoreUnavailable)
    assert f"on 127.0.0.1:{postgres.port}" in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_a_server_that_is_not_there_may_come(postgres: Database) -> None:
    with pytest.raises(StoreUnavailable, match=r"database .* on 127\.0\.0\.1:1 "):
        await PostgresServer(place(postgres, port=1)).connect()
    with pytest.raises(StoreUnavailable, match=r"no-such-host\.invalid"):
        await PostgresServer(place(postgres, host="no-such-host.invalid", sslmode="disable")).connect()


async def test_a_user_without_rights_is_told_so(migrated_postgres: Database, postgres_server: Postgres) -> None:
    guest = postgres_server.role(migrated_postgres, "guest", "GRANT SELECT ON alembic_version TO {}")
    with pytest.raises(StoreError, match=r"permission denied .*; the user lacks a right") as caught:
        async with PostgresStore(guest.secret_url):
            pass
    assert not isinstance(caught.value, StoreUnavailable)


async def test_the_certificate_of_a_server_on_another_machine_is_checked(
    postgres: Database, postgres_server: Postgres, tmp_path: Path
) -> None:
    ours, theirs = (make(name, ca=True, usage=AUTHORITY) for name in ("ours", "theirs"))
    for authority in (ours, theirs):
        (tmp_path / f"{authority is ours}.pem").write_bytes(authority.pem)
    server = make("db", ours, hosts=("127.0.0.1",))
    postgres_server.encrypt(server.pem, server.key_pem)
    try:
        good = place(postgres, sslmode="verify-full", ca_file=tmp_path / "True.pem")
        connection = await PostgresServer(good).connect()
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        await connection.close()
        for wrong in (replace(good, ca_file=tmp_path / "False.pem"), replace(good, host="localhost")):
            with pytest.raises(StoreError, match="ca_file") as caught:
                await PostgresServer(wrong).connect()
            assert not isinstance(caught.value, StoreUnavailable)
        for weaker in (replace(good, host="localhost", sslmode="verify-ca"), replace(good, sslmode="require")):
            connection = await PostgresServer(weaker).connect()
            await connection.close()
    finally:
        postgres_server.encrypt(None, None)


# --- samples ---


@pytest.mark.parametrize("text", ["", "a\0b", "\x10", "\x100", "\0\x10\x10\0", "plain"])
def test_a_text_that_postgresql_can_not_hold_comes_back(text: str) -> None:
    assert said(written(text)) == text
    assert "\0" not in written(text)


async def test_after_samples_that_were_there_the_quick_way_is_taken_again(store: PostgresStore) -> None:
    assert await store.write([delivery(0)]) == Written(ROWS, 0)
    assert await store.write([delivery(ROWS // 2)]) == Written(ROWS // 2, ROWS // 2)
    ways = [store._overlapping]
    assert await store.write([delivery(5 * ROWS)]) == Written(ROWS, 0)
    ways.append(store._overlapping)
    assert ways == [True, False]
    assert len(await store.read_samples([1], *EVER)) == 5 * ROWS // 2


async def test_a_write_that_fails_leaves_nothing_and_can_be_done_again(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    migrated_postgres.psql("ALTER TABLE checkpoints RENAME TO elsewhere")
    both = replace(delivery(0), checkpoint={"a": "1"})
    with pytest.raises(StoreError, match="checkpoints"):
        await store.write([both])
    assert not len(await store.read_samples([1], *EVER))
    migrated_postgres.psql("ALTER TABLE elsewhere RENAME TO checkpoints")
    assert await store.write([both]) == Written(ROWS, 0)


async def test_a_table_that_is_locked_counts_as_away(store: PostgresStore, migrated_postgres: Database) -> None:
    other = await PostgresServer(place(migrated_postgres)).connect()
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE samples")
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                await store.write([delivery(0)])
    finally:
        await other.close()
    assert await store.write([delivery(0)]) == Written(ROWS, 0)


async def test_a_write_that_nobody_waits_for_any_more_is_whole(store: PostgresStore) -> None:
    for turn in range(5):
        task = asyncio.create_task(store.write([delivery(turn * ROWS)]))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(await store.read_samples([1], *EVER)) in {ROWS * count for count in range(6)}
    assert await store.write([delivery(9 * ROWS)]) == Written(ROWS, 0)


async def test_the_ring_and_sql_agree_after_every_way_of_writing(migrated_postgres: Database) -> None:
    async with PostgresStore(migrated_postgres.secret_url, ring=Ring()) as store:
        await store.register_tags(TAGS)
        for each in (delivery(0), delivery(100), delivery(50, tag=2), delivery(0, 3, tag=2)):
            await store.write([each])
        kept = await store.read_samples([1, 2, 3], *EVER)
    async with PostgresStore(migrated_postgres.secret_url) as store:
        read = await store.read_samples([1, 2, 3], *EVER)
        for mine, theirs in zip(kept.columns(), read.columns(), strict=True):
            assert np.array_equal(mine, theirs)


# --- a server that goes and comes back ---


class Plant:
    """A source that delivers numbered samples as fast as it may, and counts what was confirmed."""

    name = "plant"

    def __init__(self, count: int) -> None:
        self.count = count
        self.given = 0
        self.confirmed: set[int] = set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while self.given < self.count:
            number = self.given
            self.given += 1
            yield replace(delivery(number * ROWS), confirm=partial(self.confirmed.add, number))
            await asyncio.sleep(0.002)

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


@asynccontextmanager
async def spilling(folder: Path) -> AsyncIterator[Spill]:
    spill = Spill(folder, SpillConfig(after=timedelta(milliseconds=50), reserve=ByteCount(0)))
    await spill.open(0)
    spill.know([replace(tag, id=key) for key, tag in enumerate(TAGS, start=1)])
    yield spill
    spill.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_under_load_loses_nothing(
    store: PostgresStore, postgres_server: Postgres, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plant, diagnostics = Plant(150), Diagnostics()
    async with spilling(tmp_path / "spill") as spill:
        ingest = Ingest([plant], store, diagnostics, spill=spill)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(ingest.run())
            while len(plant.confirmed) < 20:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(postgres_server.restart, mode)
    assert plant.confirmed == set(range(150))
    got = await store.read_samples([1], *EVER)
    assert np.array_equal(got.source_time, np.arange(150 * ROWS))
    assert PASSWORD not in caplog.text


async def test_who_reads_does_not_notice_that_the_server_was_restarted(
    store: PostgresStore, postgres_server: Postgres
) -> None:
    await store.write([delivery(0)])
    await asyncio.gather(*(store.read_samples([1], *EVER) for _ in range(4)))
    await asyncio.to_thread(postgres_server.restart)
    reads = await asyncio.gather(*(store.read_samples([1], *EVER) for _ in range(4)))
    assert [len(read) for read in reads] == [ROWS] * 4
    assert await store.runs("rul") == ()


# --- partitions ---


def partitions(store: PostgresStore, now: Micros = NOW, *, closing: bool = True) -> Partitions:
    return Partitions(store._server.copying, lambda: now, closing=closing)


async def listed(store: PostgresStore) -> list[Partition]:
    async with store._server.copying() as connection:
        return await existing(connection)


async def test_partitions_are_made_ahead_without_a_hole_and_once(store: PostgresStore) -> None:
    assert await listed(store) == []
    await partitions(store).tend()
    made = await listed(store)
    assert made[0].start <= NOW < made[0].end
    assert [each.end for each in made[:-1]] == [each.start for each in made[1:]]
    assert {each.end - each.start for each in made} == {WIDTH}
    assert made[-1].end >= NOW + 6 * WIDTH
    await partitions(store).tend()
    assert await listed(store) == made
    await partitions(store, NOW + WIDTH).tend()
    assert len(await listed(store)) == len(made) + 1


async def test_partitions_of_another_width_follow_those_that_are_there(store: PostgresStore) -> None:
    await partitions(store).tend()
    await partitions(store, closing=False).tend()
    made = await listed(store)
    assert [each.end for each in made[:-1]] == [each.start for each in made[1:]]
    assert made[-1].end % (1440 * MINUTE) == 0
    await partitions(store, NOW + WIDTH).tend()
    assert await listed(store) == made


async def test_samples_go_where_their_time_belongs_and_strange_ones_to_the_rest(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await partitions(store).tend()
    times = [NOW, NOW + WIDTH, -11_644_473_600_000_000, 253_402_300_799_999_999]
    batch = SampleBatch.of([1] * 4, times, 1.0, 0, 0, 0)
    assert await store.write([Delivery(batch)]) == Written(4, 0)
    assert await store.write([Delivery(batch)]) == Written(0, 4)
    found = migrated_postgres.psql("SELECT count(*) FROM samples GROUP BY tableoid ORDER BY 1")
    assert found == [["1"], ["1"], ["2"]]
    assert (await store.read_samples([1], *EVER)).source_time.tolist() == sorted(times)


async def test_samples_that_came_before_their_partition_move_into_it(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    early = SampleBatch.of([1, 2], [NOW + MINUTE, NOW + 3 * WIDTH], [1.0, np.nan], 0, 1, 2)
    await store.write([Delivery(early)])
    await partitions(store).tend()
    assert migrated_postgres.psql("SELECT count(*) FROM samples_default") == [["0"]]
    assert await store.write([Delivery(early)]) == Written(0, 2)
    assert len(await store.read_samples([1, 2], *EVER)) == 2


async def test_the_newest_of_many_tags_are_no_others_however_they_are_asked_for(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write([delivery(0, 5, tag) for tag in (1, 2, 3)])
    await store.keep_newest()
    await store.write([Delivery(SampleBatch.of([3], 9, np.nan, 2**31, 10, 11))])
    few = await store.latest([3, 1])
    monkeypatch.setattr("plugin.historian.postgres.selecting._MANY", 2)
    many = await store.latest([3, 1])
    for found in (few, many):
        assert [column.tolist() for column in found.columns()[:2]] == [[1, 3], [4, 9]]
        assert np.array_equal(found.value, [2.0, np.nan], equal_nan=True)
        assert [column.tolist() for column in found.columns()[3:]] == [[0, 2**31], [4, 10], [4, 11]]


async def test_many_samples_of_one_partition_go_straight_there_and_twice_they_change_nothing(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await partitions(store).tend()
    first, second, *_ = await listed(store)
    inside, across = delivery(first.start, 5_000), delivery(second.start - 2_500, 5_000, tag=2)
    for each in (inside, across):
        assert await store.write([each]) == Written(5_000, 0)
        assert await store.write([each]) == Written(0, 5_000)
    found = migrated_postgres.psql("SELECT tableoid::regclass, count(*) FROM samples GROUP BY 1 ORDER BY 1")
    assert found == [[first.name, "7500"], [second.name, "2500"]]


async def test_a_partition_that_goes_while_samples_are_on_their_way_to_it_costs_none(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await partitions(store).tend()
    first, *_ = await listed(store)
    other = await PostgresServer(place(migrated_postgres)).connect()
    try:
        async with other.transaction(), asyncio.TaskGroup() as tasks:
            await other.execute(f"LOCK TABLE {first.name} IN ACCESS EXCLUSIVE MODE")
            writing = tasks.create_task(store.write([delivery(first.start, 5_000)]))
            while not await other.fetch("SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
            await other.execute(f"ALTER TABLE samples DETACH PARTITION {first.name}")
            await other.execute(f"DROP TABLE {first.name}")
            await other.execute("COMMIT")
            await other.execute("BEGIN")
    finally:
        await other.close()
    assert writing.result() == Written(5_000, 0)
    assert migrated_postgres.psql("SELECT count(*) FROM samples_default") == [["5000"]]


async def test_partitions_that_are_past_and_empty_go_and_late_samples_find_another_place(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await partitions(store).tend()
    first, second, *_ = await listed(store)
    await store.write([Delivery(SampleBatch.of([1], second.start, 1.0, 0, 0, 0))])
    later = partitions(store, NOW + 5 * WIDTH)
    await later.tend()
    names = [each.name for each in await listed(store)]
    assert first.name not in names
    assert second.name in names
    await store.write([Delivery(SampleBatch.of([1], first.start, 2.0, 0, 0, 0))])
    assert (await store.read_samples([1], *EVER)).source_time.tolist() == [first.start, second.start]
    migrated_postgres.psql(f"TRUNCATE {second.name}")
    await later.tend()
    assert second.name not in [each.name for each in await listed(store)]


async def test_a_partition_that_is_read_is_not_waited_for_long_and_two_do_not_get_in_each_others_way(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    other = await PostgresServer(place(migrated_postgres)).connect()
    try:
        async with other.transaction():
            await store.write([delivery(NOW, 5)])
            await other.fetch("SELECT FROM samples")
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                await partitions(store).tend()
        await asyncio.gather(partitions(store).tend(), partitions(store).tend())
        assert len(await listed(store)) == 7
    finally:
        await other.close()


async def test_a_clock_that_stands_still_for_hours_stops_nobody(store: PostgresStore) -> None:
    """Its values all carry one stamp, and each is another: more than 16 bits can number."""
    many = 33_000
    async with store._server.copying() as connection:
        await connection.execute(
            "INSERT INTO samples SELECT $1, 1, n, n, 0, 0, 0 FROM generate_series(0, $2::integer - 1) AS n", NOW, many
        )
    for value in (0.5, 1.5):
        one = SampleBatch.of([1, 2], NOW, value, 0, NOW, NOW)
        assert await store.write([Delivery(one)]) == Written(2, 0)
    stored = (await store.read_samples([1], *EVER)).value.tolist()
    assert stored == [*map(float, range(many)), 0.5, 1.5]
    await store.close_before(NOW + MINUTE)
    assert (await store.read_samples([1], *EVER)).value.tolist() == stored
    assert await store.write([Delivery(SampleBatch.of([1], NOW, 2.5, 0, NOW, NOW))]) == Written(1, 0)
    assert (await store.latest([1])).value.tolist() == [2.5]


async def test_keys_of_tags_have_no_holes_however_often_tags_change(store: PostgresStore) -> None:
    """What is kept by key, in memory and out of it, is as long as the highest."""
    for unit in ("bar", "kPa", "Pa"):
        changed = await store.register_tags([replace(tag, unit=unit) for tag in TAGS])
        assert [tag.id for tag in changed] == [1, 2, 3]
    added = await store.register_tags([Tag("T4", "plant", "nsu=urn:plant;s=T4"), *TAGS])
    assert [tag.id for tag in added] == [4, 1, 2, 3]


async def test_stamps_of_the_far_future_make_nothing_late(store: PostgresStore) -> None:
    """What is late is put into the table of the newest with its commit, and not every few seconds."""
    far, tags = 253_402_300_799 * 1_000_000, [*range(1, 8)]
    await store.register_tags([Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in tags])
    times = np.array([far, far, *range(NOW, NOW + 5)])
    await store.write([Delivery(SampleBatch.of(tags, times, 1.0, 0, NOW, NOW))])
    for _ in range(5):  # nothing comes meanwhile
        await store.keep_newest()
    async with store._server.copying() as connection:
        found = await connection.fetch("SELECT value FROM bookkeeping WHERE name IN ('late_before', 'latest_since')")
    assert [NOW <= row["value"] < NOW + 5 for row in found] == [True, True]
    await store.write([Delivery(SampleBatch.of(tags, [far, *[NOW + 9] * 5, 0], 2.0, 0, NOW, NOW))])
    await store.keep_newest()
    assert (await store.latest(tags)).value.tolist() == [2.0, 1.0, *[2.0] * 4, 1.0]
