"""Tags, the samples that arrive, and what is missing or odd about them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Integer,
    SmallInteger,
    Table,
    Text,
    true,
)

from plugin.historian.schema.names import metadata

assets = Table(
    "assets",
    metadata,
    Column("name", Text, primary_key=True),
    comment="Machines that models watch",
)

tags = Table(
    "tags",
    metadata,
    Column("id", Integer, Identity(), primary_key=True, comment="1, 2, … without holes: a tag is never deleted"),
    Column("name", Text, nullable=False, unique=True),
    Column("source", Text, nullable=False),
    Column("node", Text, nullable=False, comment="NodeId by namespace URI"),
    Column("asset", Text, ForeignKey(assets.c.name)),
    Column("feature", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("low", Double, comment="Range [unit]"),
    Column("high", Double),
    Column("deadband", Double, nullable=False, comment="[unit]"),
    Column("sampling", BigInteger, comment="Sampling interval [µs]; NULL: the source's default"),
    Column("element", Text, nullable=False, server_default="", comment="Part of the node's value; empty: all of it"),
    Column("fill", Text, nullable=False, server_default="hold", comment="Between samples: hold, linear"),
    Column("max_age", BigInteger, comment="How long a value stands for itself [µs]; NULL: as the model says"),
    Column(
        "uncertain",
        Boolean(create_constraint=False),
        nullable=False,
        server_default=true(),
        comment="Uncertain values are used by models",
    ),
    Column("compression", Double, nullable=False, server_default="0", comment="Swinging door at the archive [unit]"),
    Column("retention", Text, nullable=False, server_default="", comment="Class of retention; empty: the default"),
    comment="Configured plant measurements",
)

# A clock that stands still gives one stamp to whatever comes. SQLite heeds no width, and need not write a table anew.
_ORDINAL = SmallInteger().with_variant(Integer(), "postgresql")

# Keyed by time first: appending stays as fast as in an empty table however many rows there are, and neighbours in time
# share pages. There is no foreign key to tags, which would cost a look-up per row: SqliteStore.write checks the keys.
samples = Table(
    "samples",
    metadata,
    Column("source_time", BigInteger, primary_key=True, autoincrement=False),
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column(
        "ordinal",
        _ORDINAL,
        primary_key=True,
        autoincrement=False,
        comment="0, 1, … for different values that carry one source time, in order of arrival",
    ),
    Column("value", Double, comment="NULL: no number"),
    Column("status", BigInteger, nullable=False, comment="OPC UA StatusCode, all 32 bits"),
    # SQLite writes a small number in few bytes, and these are most of what a row is.
    Column("server_delay", BigInteger, nullable=False, comment="Server time less source time [µs]"),
    Column("received_delay", BigInteger, nullable=False, comment="Received time less server time [µs]"),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (source_time)",
    comment="What the plant said",
)


def clocks(of: str) -> str:
    """Server and received time of a row of ``samples``, as SQL has them; ``of``: what the row is called there."""
    server = f"{of}.source_time + {of}.server_delay"
    return f"{server} AS server_time, {server} + {of}.received_delay AS received_time"


# Beside the samples, because hardly any sample has one: a column in their table would cost every row.
sample_texts = Table(
    "sample_texts",
    metadata,
    Column("source_time", BigInteger, primary_key=True, autoincrement=False),
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("ordinal", _ORDINAL, primary_key=True, autoincrement=False, comment="Key of the sample"),
    Column("text", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="What the number of a sample can't say",
)

remarks = Table(
    "remarks",
    metadata,
    Column("source_time", BigInteger, primary_key=True, autoincrement=False, comment="Of the first sample it is about"),
    Column("source", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("kind", Text, primary_key=True, comment="type_changed, time_went_back"),
    Column("detail", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="What was odd about samples that were kept all the same",
)

gaps = Table(
    "gaps",
    metadata,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("source", Text, nullable=False),
    Column("tag", Text, comment="Name of the tag; NULL: all tags of the source"),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger, comment="NULL: it lasts"),
    Column("cause", Text, nullable=False),
    Column("detected", BigInteger, nullable=False, index=True),
    Column("state", Text, nullable=False, index=True, comment="open, filled, unfillable"),
    Column("rows_filled", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column(
        "known_from",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="When it was stored as it is now, by our clock",
    ),
    comment="Where samples are or may be missing",
)

# Keyed by the end of each state: what changed after a moment is found without a look at all that changed before it.
gap_history = Table(
    "gap_history",
    metadata,
    Column(
        "known_until",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="When the next state was stored, by our clock",
    ),
    Column("gap_id", Text, ForeignKey(gaps.c.id), primary_key=True),
    Column("known_from", BigInteger, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("state", Text, nullable=False),
    Column("rows_filled", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="Gaps as they were before they changed",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    comment="What sources need at their next start, committed with their samples",
)
