"""The private names of the drivers that the historian uses, so that an upgrade that changes them is noticed here."""

import inspect
import socket
import sqlite3
import threading

import aiosqlite

from plugin.historian.postgres.connections import Place, PostgresServer
from tests.postgres import Database


async def test_a_function_runs_in_the_thread_of_its_connection() -> None:
    async with aiosqlite.connect(":memory:") as connection:
        assert isinstance(connection._conn, sqlite3.Connection)
        assert [*inspect.signature(connection._execute).parameters] == ["fn", "args", "kwargs"]

        def work(database: sqlite3.Connection, number: int, *, more: int) -> tuple[int, int]:
            return database.execute("SELECT ?", (number + more,)).fetchone()[0], threading.get_ident()

        found, thread = await connection._execute(work, connection._conn, 1, more=2)
        assert found == 3
        assert thread != threading.get_ident()


async def test_a_network_that_has_gone_silent_is_noticed_by_the_kernel(postgres: Database) -> None:
    connection = await PostgresServer(Place.of(postgres.secret_url)).connect()
    try:
        wire = connection._transport.get_extra_info("socket")
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 10
        assert 0 < wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
    finally:
        await connection.close()
