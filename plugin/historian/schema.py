"""The tables, as SQLAlchemy Core knows them; :mod:`migrations` brings a database to this shape.

Every time is a 64-bit integer of microseconds since 1970-01-01 UTC: exact, ordered, the same in SQLite and PostgreSQL,
and wide enough for the stamps that OPC UA allows (1601 to 9999). Types suit both: a StatusCode is BIGINT because it has
32 bits and PostgreSQL's INTEGER is signed.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

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
    comment="Configured plant measurements",
)

# Keyed by time first: appending stays as fast as in an empty table however many rows there are, and neighbours in time
# share pages. There is no foreign key to tags, which would cost a look-up per row: SqlStore.write checks the keys.
samples = Table(
    "samples",
    metadata,
    Column("source_time", BigInteger, primary_key=True, autoincrement=False),
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column(
        "ordinal",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        comment="0, 1, … for different values that carry one source time, in order of arrival",
    ),
    Column("value", Double, comment="NULL: no number"),
    Column("status", BigInteger, nullable=False, comment="OPC UA StatusCode, all 32 bits"),
    Column("server_time", BigInteger, nullable=False),
    Column("received_time", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="What the plant said",
)

# Beside the samples, because hardly any sample has one: a column in their table would cost every row.
sample_texts = Table(
    "sample_texts",
    metadata,
    Column("source_time", BigInteger, primary_key=True, autoincrement=False),
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("ordinal", SmallInteger, primary_key=True, autoincrement=False, comment="Key of the sample"),
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

model_versions = Table(
    "model_versions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, comment="champion, challenger, retired"),
    Column("created", BigInteger, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("metrics", JSON, nullable=False, comment="On held-out groups; null: not a finite number"),
    Column("provenance", JSON, nullable=False),
    Column("artifact", Text, nullable=False, comment="File relative to the model folder"),
    Column("sha256", Text, nullable=False),
    # The database itself refuses a second champion.
    Index(
        "uq_model_versions_champion",
        "model",
        unique=True,
        sqlite_where=text("state = 'champion'"),
        postgresql_where=text("state = 'champion'"),
    ),
    comment="Trained models",
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="score, train"),
    Column("scheduled", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("finished", BigInteger),
    Column("result", Text, nullable=False, comment="running, done, failed, missed"),
    Column("version", Integer, nullable=False, comment="0: none"),
    Column("assets", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("stages", JSON, nullable=False, comment="Seconds by stage"),
    Column(
        "unheard",
        JSON,
        nullable=False,
        server_default="{}",
        comment="Last word [µs] by source that was away when it looked",
    ),
    Index("ix_runs_model_scheduled", "model", "scheduled"),
    comment="Scheduled executions",
)

output_tags = Table(
    "output_tags",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("model", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("low", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("description", Text, nullable=False),
    Column("flag", Boolean(create_constraint=False), nullable=False),
    UniqueConstraint("model", "asset", "output"),
    comment="Tags from the future: the numbers that models give",
)

predictions = Table(
    "predictions",
    metadata,
    Column("as_of", BigInteger, primary_key=True, autoincrement=False, comment="End of the window: source time"),
    Column("output_id", Integer, ForeignKey(output_tags.c.id), primary_key=True, autoincrement=False),
    Column("target_time", BigInteger, primary_key=True, autoincrement=False, comment="What the number speaks of"),
    Column("run_id", Integer, ForeignKey(runs.c.id), primary_key=True, autoincrement=False),
    Column("valid_until", BigInteger, nullable=False),
    Column("value", Double, comment="NULL: no number"),
    Column("lower", Double),
    Column("upper", Double),
    Column("status", BigInteger, nullable=False),
    Column("coverage", Double, nullable=False, comment="Share of the window observed, 0..1"),
    Column("version", Integer, nullable=False, comment="Model version; 0: no model has run"),
    sqlite_with_rowid=False,
    comment="What models said",
)

flags = Table(
    "flags",
    metadata,
    Column("as_of", BigInteger, primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("run_id", Integer, ForeignKey(runs.c.id), primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("raised", Boolean(create_constraint=False), nullable=False),
    Column("score", Double, comment="NULL: no score"),
    Column("threshold", Double, comment="NULL: no threshold"),
    Column("status", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="Decisions on anomaly scores",
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Text, primary_key=True, comment="Of the condition; one row per condition and branch"),
    Column("branch", Text, primary_key=True, server_default="", comment="Empty: the current state"),
    Column("event_id", Text, nullable=False, unique=True, comment="Of the last notification"),
    Column("source", Text, nullable=False, comment="Asset, model or plant server that it is about"),
    Column("condition_type", Text, nullable=False, comment="BrowseName of the OPC UA type"),
    Column("condition_class", Text, nullable=False),
    Column("model", Text),
    Column("version", Integer),
    Column("enabled", Boolean(create_constraint=False), nullable=False),
    Column("active", Boolean(create_constraint=False), nullable=False),
    Column("acknowledged", Boolean(create_constraint=False), nullable=False),
    Column("confirmed", Boolean(create_constraint=False), nullable=False),
    Column("suppressed", Boolean(create_constraint=False), nullable=False),
    Column("shelved_until", BigInteger, comment="NULL: not shelved"),
    Column("retain", Boolean(create_constraint=False), nullable=False),
    Column("severity", Integer, nullable=False, comment="1..1000"),
    Column("quality", BigInteger, nullable=False, comment="StatusCode of the input"),
    Column("message", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("client_user", Text, nullable=False, comment="Who acknowledged or commented last"),
    Column("time", BigInteger, nullable=False, comment="Of the last change of state"),
    Column("active_time", BigInteger),
    Column("acknowledged_time", BigInteger),
    Column("returned_time", BigInteger),
    Column("run_id", Integer),
    CheckConstraint("severity BETWEEN 1 AND 1000", name="severity"),
    ForeignKeyConstraint(["model", "version"], [model_versions.c.model, model_versions.c.version]),
    comment="State of alarms (OPC 10000-9), to be found again after a restart",
)
