"""PostgreSQL as the historian uses it: where it is, connections that give up in time, and errors in our words."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.database import Room
from plugin.historian.postgres.fence import STILL_LEADS, Fence, Replaced, lock_key

try:
    import asyncpg
except ImportError:  # an extra; whoever names a PostgreSQL database is told so
    asyncpg = None

DRIVER = "postgresql+asyncpg"
UNIQUE_VIOLATION, UNDEFINED_TABLE = "23505", "42P01"
LOCK_TIMEOUT = "55P03"
MODES = ("verify-full", "verify-ca", "require", "disable")
"""Of TLS, as libpq names them, the strictest first. ``prefer`` is none: who stands in between would choose."""

_OLDEST = 13
_CONNECT = 10.0
"""To connect and log in [s]."""
_STATEMENT = timedelta(minutes=5)
"""A statement, by the server's clock; ours waits a little longer, for a server that is gone."""
_MARGIN = 10.0
_STALLED = timedelta(seconds=30)
"""A gateway that stops in the middle of a transaction holds up others that share the database for so long."""
_CONNECTIONS = 5
"""Of one store: one that writes, and readers."""
_CHECKOUT = 30.0
"""Until one of them is free [s]."""
_LONGEST_SILENCE = 30
"""Of the network while something is on its way; then the connection is lost [s]."""

_SOON_MISSED = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4"}
"""Of a session that holds a lock: who vanishes with it holds up the others for half a minute."""

_PASSING = {"08", "53", "57"}
"""Classes of SQLSTATE that may pass: connection, resources, an administrator."""
_PASSING_CODES = {"25006", "25P03", "40001", "40P01", "55006", "55P03", "58030"}
"""A server that follows another and takes over later; a session that waited; serialization, deadlock; locks; disk."""
_REMEDIES = {
    "28P01": "the password is wrong: see password_env, password_file or password_credential",
    "28000": "the server does not let this user in from here: see its pg_hba.conf",
    "3D000": "make it first: CREATE DATABASE",
    "42501": "the user lacks a right: it has to own the tables of foretag, or be granted them",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A database, who uses it, and how it is reached."""

    host: str
    """Name, address, or folder of the server's Unix socket."""
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    sslmode: str = ""
    """One of :data:`MODES`; empty: ``verify-full``, but for a server on this machine ``disable``."""
    ca_file: Path | None = None
    """Certificates of who may vouch for the server; None: those of the system."""

    @classmethod
    def of(cls, url: str) -> Self:
        """From a URL that holds all of it, the password included; StoreError where something is missing."""
        if asyncpg is None:
            raise StoreError("PostgreSQL needs a driver that is not installed: pip install 'foretag[postgres]'")
        parsed = make_url(url)
        host = parsed.host or _said(parsed, "host")
        port = parsed.port or int(_said(parsed, "port") or 5432)
        if not (host and parsed.database and parsed.username):
            raise StoreError(f"The database URL needs host, database and user; write {DRIVER}://user@host/database")
        given = _said(parsed, "sslrootcert")
        return cls(
            host=host,
            port=port,
            database=parsed.database,
            user=parsed.username,
            password=parsed.password or "",
            sslmode=_said(parsed, "sslmode"),
            ca_file=Path(given) if given else None,
        )

    def __str__(self) -> str:
        return f"database {self.database} on {self.host}:{self.port} (user {self.user})"

    @property
    def local(self) -> bool:
        """On this machine: nobody is in between."""
        if self.host.startswith("/") or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def encryption(self) -> ssl.SSLContext | bool:
        """For asyncpg; False: none."""
        mode = self.sslmode or ("disable" if self.local else MODES[0])
        if mode == "disable":
            return False
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise StoreError(f"{self}: ca_file {self.ca_file} can't be used: {error.strerror or error}") from error
        context.check_hostname = mode == "verify-full"
        if mode == "require":
            context.verify_mode = ssl.CERT_NONE
        return context


def _said(url: URL, name: str) -> str:
    said = url.query.get(name, "")
    return said if isinstance(said, str) else said[0]


class PostgresServer:
    """The connections to a database; made when they are needed, and again after they were lost."""

    def __init__(
        self,
        place: Place,
        *,
        synchronous: str = "full",
        busy_timeout: timedelta = timedelta(seconds=5),
        patient: bool = False,
        fence: Fence | None = None,
    ) -> None:
        """``patient``: a statement may take as long as it takes: those of a migration. ``fence``: every transaction
        that writes is refused when it no longer holds."""
        self.place = place
        self._fence = fence
        self._settings = {
            "application_name": "foretag" if fence is None else fence.application,
            "synchronous_commit": "on" if synchronous == "full" else "off",
            "statement_timeout": _millis(_STATEMENT),
            "lock_timeout": _millis(busy_timeout),
            "idle_in_transaction_session_timeout": _millis(_STATEMENT if fence is None else _STALLED),
            "timezone": "UTC",
        }
        self._timeout = None if patient else _STATEMENT.total_seconds() + _MARGIN
        self._engine: AsyncEngine | None = None
        self.turn = asyncio.Lock()
        """Held by whoever writes: so the order of commits is that of their clock."""

    def open(self) -> None:
        """No connection yet."""
        engine = create_async_engine(
            f"{DRIVER}://",
            async_creator=self.connect,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CHECKOUT,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        self._engine = engine

    async def close(self) -> None:
        """End the connections."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def connect(self, settings: Mapping[str, str] | None = None) -> Any:
        """A connection of its own, with other settings of its session. Whoever made it closes it."""
        place = self.place
        with translated(place):
            connection = await asyncpg.connect(
                host=place.host,
                port=place.port,
                user=place.user,
                database=place.database,
                password=place.password or None,
                passfile=None,
                ssl=place.encryption(),
                timeout=_CONNECT,
                command_timeout=self._timeout,
                server_settings={**self._settings, **(settings or {})},
            )
            version = connection.get_server_version()
            if version.major < _OLDEST:
                await connection.close(timeout=_CONNECT)
                raise StoreError(f"{place}: PostgreSQL {version.major} is too old, {_OLDEST} or newer is needed")
            _watch(connection)
        return connection

    @asynccontextmanager
    async def _connected(self, isolation: str) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise StoreError(f"{self.place} is not open")
        with translated(self.place):
            async with self._engine.connect() as connection:
                yield await connection.execution_options(isolation_level=isolation)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment."""
        async with self._connected("REPEATABLE READ") as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed where the context ends well; those of this process come one after another."""
        async with self.turn, self._connected("READ COMMITTED") as connection, connection.begin():
            if self._fence is not None:
                terms = self._fence.shard, self._fence.epoch
                if (await connection.exec_driver_sql(STILL_LEADS, terms)).first() is None:
                    raise Replaced(self._fence)
            yield connection

    async def check(self, connection: Any) -> None:
        """To be asked of the driver's connection in a transaction that writes, first; Replaced where it must not."""
        if self._fence is None:
            return
        if await connection.fetchval(STILL_LEADS, self._fence.shard, self._fence.epoch) is None:
            raise Replaced(self._fence)

    @asynccontextmanager
    async def copying(self) -> AsyncIterator[Any]:
        """The driver's own connection (``asyncpg.Connection``), outside a transaction: SQLAlchemy knows no COPY."""
        async with self._connected("READ COMMITTED") as connection:
            own = (await connection.get_raw_connection()).driver_connection
            try:
                yield own
            except BaseException:
                if own is None or own.is_closed():
                    await connection.invalidate()
                raise

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[bool]:
        """Whether nobody else is at it: one gateway at a time, of all that share the database."""
        connection = await self.connect(_SOON_MISSED)
        try:
            with translated(self.place):
                free = await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock_key(f"foretag does {what}"))
            yield bool(free)
        finally:
            with suppress(StoreError), translated(self.place):
                await connection.close(timeout=_CONNECT)

    async def product(self) -> str:
        """What it is, with its version, for a person; and the extension that is known to come to mind."""
        async with self.copying() as connection:
            version = await connection.fetchval("SHOW server_version")
        extension = await self.timescale()
        return f"PostgreSQL {version}" + (f"; {extension}" if extension else "")

    async def timescale(self) -> str:
        """That the extension TimescaleDB is in this database and why it is not used; empty: it is not there."""
        query = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
        async with self.copying() as connection:
            version = await connection.fetchval(query)
        return f"timescaledb {version} present, not used: closed samples are compressed already" if version else ""

    async def size(self) -> int:
        """On disk [byte]."""
        async with self.reading() as connection:
            size: int = (await connection.exec_driver_sql("SELECT pg_database_size(current_database())")).scalar_one()
            return size

    async def room(self) -> Room:
        """Its size, with what is free in its tables; the disk is another machine's."""
        return Room(await self.size(), None)


def _watch(connection: Any) -> None:
    """Have the kernel notice a network that has gone silent, which no timeout of the server's can.

    Uses ``asyncpg.Connection._transport``, for which there is no public name.
    """
    wire: socket.socket | None = connection._transport.get_extra_info("socket")
    if wire is None or wire.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _LONGEST_SILENCE * 1000)


def _millis(time: timedelta) -> str:
    return str(max(1, round(time.total_seconds() * 1000)))  # 0 would mean: for ever


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Errors of the driver and SQLAlchemy as StoreUnavailable (may pass) or StoreError, without the rows they carry."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"{place}: every connection is in use") from error
    except DBAPIError as error:
        raise _translation(place, _cause(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, SQLAlchemyError) as error:
        raise _translation(place, error) from error
    except (OSError, TimeoutError, UnicodeEncodeError, OverflowError) as error:
        raise _translation(place, error) from error


def _cause(error: DBAPIError) -> BaseException:
    """What the driver raised, inside of two wrappings."""
    orig = error.orig or error
    return orig.__cause__ or orig


def _translation(place: Place, error: BaseException) -> StoreError:
    said = str(error).partition("\n")[0] or type(error).__name__
    remedy = _remedy(error, said)
    if remedy:
        return StoreError(f"{place}: {said}; {remedy}")
    return (StoreUnavailable if _passes(error) else StoreError)(f"{place}: {said}")


def _remedy(error: BaseException, said: str) -> str | None:
    """What a person has to do; None: that is not known, or it may pass by itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "name the authority in ca_file, or the host as its certificate does"
    if isinstance(error, ConnectionError) and "rejected SSL" in said:
        return "it knows no TLS: mend that, or write ?sslmode=disable behind the URL"
    return _REMEDIES.get(getattr(error, "sqlstate", None) or "")


def _passes(error: BaseException) -> bool:
    code = getattr(error, "sqlstate", None) or ""
    if code[:2] in _PASSING or code in _PASSING_CODES:
        return True
    if isinstance(error, asyncpg.DataError):
        return False
    # InternalClientError: what the driver says of a session that the server ended while nothing was asked of it.
    lost = OSError | asyncpg.InterfaceError | asyncpg.InternalClientError | asyncpg.PostgresConnectionError
    return isinstance(error, lost)
