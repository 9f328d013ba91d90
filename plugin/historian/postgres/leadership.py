"""Who leads a shard of a PostgreSQL database: one gateway at a time, by a lock and by a number that only grows.

The lock, held by a session of its own, tells that the leader lives. The server ends a session that says nothing for six
seconds, whatever the reason: its host has vanished, its process is stopped, its cable is cut; and the lock is free.

The number, the epoch, is what each transaction that writes is checked against, so that a leader that was replaced and
comes back writes nothing more (a fencing token). A leader that has lost its session can't know whether it is replaced,
or the server is away from everybody: it goes on, its writes checked or in the spill, and takes its lock again. That the
epoch has changed is what ends its term.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.postgres.connections import LOCK_TIMEOUT, PostgresServer, translated
from plugin.historian.postgres.fence import Fence, leads, shard_key

Connection = Any
"""``asyncpg.Connection``, which has no types."""

_log = logging.getLogger(__name__)

_BEAT = 2.0
"""Between two signs of life [s]."""
_ANSWER = 5.0
"""How long an answer is waited for [s]."""
_PAUSE = 1.0
"""Before a database that is away is asked again [s]."""
_START = 3.0
"""When the database is back, whoever led before has so long to take the lock again [s]."""
_TRY = 0.5
"""Between two tries for the lock [s]."""
_SETTINGS = {
    "idle_in_transaction_session_timeout": "6s",  # the session is always in a transaction, and each is two seconds old
    "statement_timeout": "5s",
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5000",
}


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads a shard, or was the last to."""

    epoch: int
    gateway: str
    """UUID of its data folder."""
    holder: str
    """Host and process."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A gateway that is to lead a shard."""

    shard: str
    gateway: str
    """UUID of its data folder."""
    sources: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    holder: str = field(default_factory=lambda: f"{socket.gethostname()} process {os.getpid()}")

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Kind and name of what no other shard may have."""
        return [*(("source", name) for name in self.sources), *(("model", name) for name in self.models)]


async def _nothing() -> None:
    pass


class Leadership:
    """Of one candidate; to be closed. One task at a time uses it."""

    def __init__(self, server: PostgresServer, candidate: Candidate) -> None:
        self.candidate = candidate
        self._server = server
        self._key = shard_key(candidate.shard)
        self._session: Connection | None = None

    async def gain(
        self,
        seen: Callable[[Leader], None] = lambda _: None,
        succeed: Callable[[], Awaitable[None]] = _nothing,
    ) -> Fence:
        """Wait until we lead, for as long as it takes.

        ``seen`` is told who leads meanwhile, twice a second. ``succeed`` is awaited before we lead where another
        gateway was the last to: what it leaves behind may be on disk by then. Raises StoreError where the database
        refuses us, or another shard that runs has a source or model of ours.
        """
        away = False
        while True:
            try:
                if away:
                    await self._let_the_last_go_first()
                return await self._gain(seen, succeed)
            except StoreUnavailable as error:
                if not away:
                    _log.warning("Who leads shard %r is not known: %s", self.candidate.shard, error)
                away = True
                self._give_up()  # who can't begin a term keeps nobody else from it
            await asyncio.sleep(_PAUSE)

    async def keep(self, fence: Fence) -> Leader:
        """Give signs of life until another gateway leads; returns which."""
        while True:
            try:
                while True:
                    await asyncio.sleep(_BEAT)
                    async with self._using() as session:
                        await session.execute("COMMIT; BEGIN")
            except StoreError as error:
                _log.warning("The lock of shard %r is lost, it is taken again: %s", fence.shard, error)
            successor = await self._regain(fence)
            if successor is not None:
                return successor
            _log.warning("The lock of shard %r is ours again", fence.shard)

    async def close(self) -> None:
        """Give the lock to whoever waits for it."""
        session, self._session = self._session, None
        if session is not None:
            try:
                with translated(self._server.place):
                    await session.close(timeout=_ANSWER)
            except StoreError:
                session.terminate()

    # --- the lock ---

    async def _gain(self, seen: Callable[[Leader], None], succeed: Callable[[], Awaitable[None]]) -> Fence:
        while True:
            async with self._using() as session:
                await self._refuse_what_others_have(session)
                locked = await self._lock(session)
                last = await self._leader(session)
            if not locked:
                if last is not None:
                    seen(last)
                await asyncio.sleep(_TRY)
                continue
            if last is not None and last.gateway != self.candidate.gateway:
                await succeed()
            async with self._using() as session:
                return await self._begin_term(session)

    async def _let_the_last_go_first(self) -> None:
        async with self._using() as session:
            last = await self._leader(session)
        if last is not None and last.gateway != self.candidate.gateway:
            await asyncio.sleep(_START)

    async def _lock(self, session: Connection) -> bool:
        locked = await session.fetchval("SELECT pg_try_advisory_lock($1)", self._key)
        await session.execute("COMMIT; BEGIN")
        return bool(locked)

    async def _leader(self, session: Connection) -> Leader | None:
        row = await session.fetchrow(
            "SELECT epoch, gateway, holder FROM leaders WHERE shard = $1", self.candidate.shard
        )
        return None if row is None else Leader(*row)

    async def _begin_term(self, session: Connection) -> Fence:
        """With the lock: raise the epoch. A writer of the leader before us that hangs in its transaction is ended."""
        mine = self.candidate
        row = None
        while row is None:
            await self._claim(session)
            try:
                row = await session.fetchrow(_RAISE, mine.shard, mine.gateway, mine.holder, time.time_ns() // 1000)
            except Exception as error:
                if getattr(error, "sqlstate", None) != LOCK_TIMEOUT:
                    raise
                await session.execute("ROLLBACK; BEGIN")
                ended = await session.fetchval(_END_WRITERS, Fence(mine.shard, 0).application)
                _log.warning("%d session(s) of the leader before hung in a transaction and were ended", ended)
        await session.execute("COMMIT; BEGIN")
        return Fence(mine.shard, int(row["epoch"]))

    async def _regain(self, fence: Fence) -> Leader | None:
        """Take the lock again; None: we have it, and lead as before. Else who does."""
        while True:
            try:
                async with self._using() as session:
                    locked = await self._lock(session)
                    last = await self._leader(session)
                if last is None or last.epoch != fence.epoch:
                    await self.close()
                    return last or Leader(0, "", "nobody")
                if locked:
                    return None
                await asyncio.sleep(_TRY)
            except StoreError:
                await asyncio.sleep(_PAUSE)

    # --- what belongs to a shard ---

    async def _refuse_what_others_have(self, session: Connection) -> None:
        """Names are a database's, not a shard's: two that share a source would mix their tags and their progress."""
        kinds, names = zip(*self.candidate.parts, strict=True) if self.candidate.parts else ((), ())
        rows = await session.fetch(_OTHERS, self.candidate.shard, list(kinds), list(names))
        for row in rows:
            if not await leads(session, row["shard"]):  # such as one that has another name now
                continue
            raise StoreError(
                f"{row['kind']} {row['name']!r} belongs to shard {row['shard']!r}, which {row['holder']} leads: "
                "give it another name in one of the two configurations, or stop the gateways of that shard"
            )

    async def _claim(self, session: Connection) -> None:
        await session.execute("ROLLBACK; BEGIN; SET LOCAL lock_timeout = '1s'")
        await self._refuse_what_others_have(session)
        parts = [(kind, name, self.candidate.shard) for kind, name in self.candidate.parts]
        await session.execute("DELETE FROM claims WHERE shard = $1", self.candidate.shard)
        await session.executemany(_CLAIM, parts)

    # --- the session ---

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Connection]:
        """The session, in a transaction; one that fails is given up, and the lock with it."""
        try:
            with translated(self._server.place):
                if self._session is None:
                    name = f"foretag shard {self.candidate.shard}"
                    self._session = await self._server.connect({**_SETTINGS, "application_name": name})
                    await self._session.execute("BEGIN", timeout=_ANSWER)
                async with asyncio.timeout(_ANSWER):
                    yield self._session
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.terminate()


_RAISE = """
INSERT INTO leaders AS known (shard, epoch, gateway, holder, since) VALUES ($1, 1, $2, $3, $4)
ON CONFLICT (shard) DO UPDATE SET epoch = known.epoch + 1, gateway = $2, holder = $3, since = $4
RETURNING epoch
"""
_END_WRITERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()
"""
_OTHERS = """
SELECT kind, name, shard, coalesce(holder, 'somebody') AS holder
FROM claims JOIN unnest($2::text[], $3::text[]) AS ours (kind, name) USING (kind, name) LEFT JOIN leaders USING (shard)
WHERE shard <> $1 ORDER BY kind, name
"""
_CLAIM = """
INSERT INTO claims (kind, name, shard) VALUES ($1, $2, $3) ON CONFLICT (kind, name) DO UPDATE SET shard = excluded.shard
"""
