"""The private names of aiosqlite that the historian uses, so that an upgrade that changes them is noticed here."""

import inspect
import sqlite3
import threading

import aiosqlite


async def test_a_function_runs_in_the_thread_of_its_connection() -> None:
    async with aiosqlite.connect(":memory:") as connection:
        assert isinstance(connection._conn, sqlite3.Connection)
        assert [*inspect.signature(connection._execute).parameters] == ["fn", "args", "kwargs"]

        def work(database: sqlite3.Connection, number: int, *, more: int) -> tuple[int, int]:
            return database.execute("SELECT ?", (number + more,)).fetchone()[0], threading.get_ident()

        found, thread = await connection._execute(work, connection._conn, 1, more=2)
        assert found == 3
        assert thread != threading.get_ident()
