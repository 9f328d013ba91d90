"""``[historian]``: where samples and results are kept."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from plugin import passwords
from plugin.errors import SecretError, StoreError
from plugin.fields import ByteCount, CredentialName, Duration, Section, Size, VariableName
from plugin.historian.keeping.retention import KeepConfig, RetentionConfig
from plugin.historian.postgres.connections import DRIVER as POSTGRES
from plugin.historian.postgres.connections import MODES

_DRIVER = "sqlite+aiosqlite"


_ONE_OF = f"write {_DRIVER}:///historian.db or {POSTGRES}://user@host/database"


def _supported(url: str) -> str:
    """The URL itself; ValueError says what to write instead. The URL is never quoted: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError(f"is no database URL; {_ONE_OF}") from error
    if parsed.get_backend_name() == "postgresql":
        return _postgres(url, parsed)
    if parsed.drivername not in {"sqlite", _DRIVER}:
        raise ValueError(f"names a database that foretag does not know; {_ONE_OF}")
    if not parsed.database or parsed.database.startswith(("file:", ":memory:")):
        raise ValueError(f"names no file; write {_DRIVER}:///historian.db")
    return url


def _postgres(url: str, parsed: URL) -> str:
    example = f"write {POSTGRES}://user@host/database"
    if parsed.drivername not in {"postgresql", POSTGRES}:
        raise ValueError(f"names a driver that foretag does not use; {example}")
    if parsed.password is not None:
        raise ValueError(f"holds a password, where everybody reads it; {example}, and say password_file")
    if unknown := sorted(set(parsed.query) - {"host", "port", "sslmode"}):
        raise ValueError(f"says {', '.join(unknown)}, of which foretag knows nothing; {example}")
    mode = parsed.query.get("sslmode", "verify-full")
    if mode not in MODES:
        raise ValueError(f"says an sslmode that foretag does not know; write one of {', '.join(MODES)}")
    if not (parsed.username and parsed.database and (parsed.host or parsed.query.get("host"))):
        raise ValueError(f"needs user, host and database; {example}")
    return url


def _bounded(timeout: timedelta) -> timedelta:
    if timeout > timedelta(minutes=1):
        raise ValueError("is longer than 1min; a writer that waits longer holds up every source")
    return timeout


_SMALLEST = 16 * 2**20
"""Of a spill [byte]: a transaction has to fit in, and several files."""


def _worth_it(limit: ByteCount) -> ByteCount:
    if 0 < limit < _SMALLEST:
        raise ValueError('is too little to be of use; write "16MiB" or more, or "0" for no spill')
    return limit


class SpillConfig(Section):
    """Where samples wait on disk while the database is away or slow. They are safe there, so the plant's servers are
    told that we have them; when the database is back, they follow in order."""

    limit: Annotated[Size, AfterValidator(_worth_it)] = ByteCount(2 * 2**30)
    """Bytes on disk at most, 16MiB or more: 2GiB hold some 50 million samples. "0": no spill; while the database is
    away the sources wait, and the plant's servers keep what their queues hold."""
    keep: Literal["oldest", "newest"] = "oldest"
    """When the limit is reached. ``oldest``: no more is taken, the sources wait, and the plant's servers keep what
    their queues hold. ``newest``: the oldest samples are left out and counted, and a gap says which; gaps and progress
    stay."""
    after: Annotated[Duration, AfterValidator(_bounded)] = timedelta(seconds=2)
    """How long a live sample may wait for the database before it goes to the spill [0 s .. 1 min]."""
    folder: Path = Path("spill")
    """Folder; a relative one lies in the data folder. On another disk than the database it helps where that is full."""
    reserve: Size = ByteCount(256 * 2**20)
    """Bytes that the spill leaves free on its disk: the database needs room to take over what is in it."""


class HistorianConfig(Section):
    """Where samples and results are kept, and how much of them in memory."""

    url: Annotated[str, AfterValidator(_supported)] = f"{_DRIVER}:///historian.db"
    """Database. A SQLite file; a relative one lies in the data folder. Or PostgreSQL (13 or newer, with the extra
    ``postgres``): ``postgresql+asyncpg://user@host:5432/database``, or for a Unix socket
    ``postgresql+asyncpg://user@/database?host=/run/postgresql``. A server on another machine has to prove itself
    by its certificate (``?sslmode=verify-full``, the default there); weaker are ``verify-ca`` (of any name),
    ``require`` (of anybody) and ``disable`` (not encrypted)."""
    password_env: VariableName = ""
    """Name of the environment variable that holds the password of PostgreSQL's user."""
    password_file: Path | None = None
    """File that holds that password, on its first line; others than its owner and group must not read it."""
    password_credential: CredentialName = ""
    """Name of the systemd credential that holds that password."""
    ca_file: Path | None = None
    """File with the certificates (PEM) of who may vouch for PostgreSQL's server; a relative one lies in the data
    folder. Default: those of the operating system."""
    synchronous: Literal["full", "normal"] = "full"
    """``full``: a sample is on the database's disk before the plant's server is told that we have it. ``normal``: one
    disk flush less per commit; after a power cut (not after a crash of the program) the commits of the last seconds may
    be gone, the database stays sound, and only what the plant's server has as history comes back."""
    busy_timeout: Annotated[Duration, AfterValidator(_bounded)] = timedelta(seconds=5)
    """How long to wait while another program locks the database [0 s .. 1 min]; then it counts as away."""
    ring_samples: int = Field(default=4096, ge=1, le=1_000_000)
    """Newest samples held in memory of each tag that a model reads [samples]."""
    ring_memory: int = Field(default=256, ge=1, le=1_000_000)
    """Upper bound of that memory [MiB]; with many such tags there are fewer samples of each."""
    rows_per_commit: int = Field(default=50_000, ge=1, le=1_000_000)
    """Samples that are gathered at most into one transaction [rows]."""
    queue: int = Field(default=256, ge=1, le=100_000)
    """Deliveries that may wait for the database before the sources are made to wait [deliveries]."""
    close_after: Duration = timedelta(hours=1)
    """How far samples have to be behind the newest before they are coded by tag, rolled up by minute, hour and day, and
    compressed where a tag asks for it; late ones follow. "0s": never. The database then needs three times the room, and
    nothing is dropped by age."""
    shard: str = Field(default="default", min_length=1, max_length=200)
    """Whose sources this gateway acquires, where several gateways share a PostgreSQL database: of those with the same
    shard one leads, and the others stand by. A source, a model and a tag belong to one shard alone."""
    spill: SpillConfig = SpillConfig()
    """What happens while the database is away."""
    disk: Size | None = None
    """Size of the disk that PostgreSQL has for this database, for the forecast of when it is full; a SQLite file's disk
    is looked at."""
    retention: tuple[RetentionConfig, ...] = ()
    """Classes of tags, and how long what of them is kept; default: all of all tags for good."""
    keep: KeepConfig = KeepConfig()
    """How long results and events are kept; default: for good."""

    @model_validator(mode="after")
    def _password_is_in_one_place(self) -> Self:
        places = bool(self.password_env) + (self.password_file is not None) + bool(self.password_credential)
        if places > 1:
            raise ValueError("give one of password_env, password_file and password_credential")
        if (places or self.ca_file) and not self.on_postgres:
            raise ValueError("password and ca_file are for PostgreSQL; a SQLite file is protected by its mode")
        if self.shard != "default" and not self.on_postgres:
            raise ValueError("shard is for PostgreSQL; a SQLite database has one gateway")
        return self

    @property
    def on_postgres(self) -> bool:
        """A server's database, not a file."""
        return make_url(self.url).get_backend_name() == "postgresql"

    def located(self, data: Path) -> str:
        """All that a store needs to reach the database, in one URL. It may hold the password: not for a message.

        Files are absolute: relative ones lie in ``data``. StoreError where there is no password in the place given.
        """
        url = make_url(self.url)
        if not self.on_postgres:
            url = url.set(drivername=_DRIVER, database=str(data / str(url.database)))
            return url.render_as_string(hide_password=False)
        url = url.set(drivername=POSTGRES, password=self._password() or None)
        if self.ca_file is not None:
            url = url.update_query_dict({"sslrootcert": str(data / self.ca_file)})
        return url.render_as_string(hide_password=False)

    def _password(self) -> str:
        """Empty: none is given."""
        if not (self.password_env or self.password_file or self.password_credential):
            return ""
        try:
            return passwords.from_one_of(
                environment=self.password_env, file=self.password_file, credential=self.password_credential
            )
        except SecretError as error:
            raise StoreError(f"no password for the database: {error}") from None
