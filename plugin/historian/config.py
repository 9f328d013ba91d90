"""``[historian]``: where samples and results are kept."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from plugin.fields import ByteCount, Duration, Section, Size
from plugin.historian.retention import KeepConfig, RetentionConfig

_DRIVER = "sqlite+aiosqlite"


def _supported(url: str) -> str:
    """The URL itself; ValueError says what to write instead. The URL is never quoted: it may hold a password."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(f"is no database URL; write {_DRIVER}:///historian.db") from error
    if parsed.get_backend_name() == "postgresql":
        raise ValueError(f"PostgreSQL is not yet in this release; write {_DRIVER}:///historian.db")
    if parsed.drivername not in {"sqlite", _DRIVER}:
        raise ValueError(f"names a database that foretag does not know; write {_DRIVER}:///historian.db")
    if not parsed.database or parsed.database.startswith(("file:", ":memory:")):
        raise ValueError(f"names no file; write {_DRIVER}:///historian.db")
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
    """Database; a relative file lies in the data folder. SQLite alone in this release."""
    synchronous: Literal["full", "normal"] = "full"
    """``full``: a sample is on disk before the plant's server is told that we have it. ``normal``: one disk flush less
    per commit; after a power cut (not after a crash of the program) the commits of the last seconds may be gone, the
    database stays sound, and only what the plant's server has as history comes back."""
    busy_timeout: Annotated[Duration, AfterValidator(_bounded)] = timedelta(seconds=5)
    """How long to wait while another program locks the database [0 s .. 1 min]; then it counts as away."""
    ring_samples: int = Field(default=2048, ge=1, le=1_000_000)
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
    spill: SpillConfig = SpillConfig()
    """What happens while the database is away."""
    retention: tuple[RetentionConfig, ...] = ()
    """Classes of tags, and how long what of them is kept; default: all of all tags for good."""
    keep: KeepConfig = KeepConfig()
    """How long results and events are kept; default: for good."""

    def located(self, data: Path) -> str:
        """The URL with its file made absolute: a relative one lies in ``data``."""
        url = make_url(self.url).set(drivername=_DRIVER)
        return url.set(database=str(data / str(url.database))).render_as_string(hide_password=False)
