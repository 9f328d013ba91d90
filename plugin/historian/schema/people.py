"""Events, and what people bring and do: laboratory, labels, imports, the audit log; and who leads."""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
)

from plugin.historian.schema.names import metadata

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True, comment="EventId, as hexadecimal digits, or a UUID"),
    Column("time", BigInteger, nullable=False, index=True, comment="When it happened, by its source"),
    Column("received", BigInteger, nullable=False),
    Column("source", Text, nullable=False, comment="Plant server, or foretag"),
    Column("source_name", Text, nullable=False, comment="What it is about, as the source names it"),
    Column("asset", Text, comment="NULL: of none"),
    Column("type", Text, nullable=False, comment="BrowseName of the OPC UA type"),
    Column("condition", Text, comment="Key in alarms; NULL: no condition's event"),
    Column("severity", Integer, nullable=False, comment="1..1000"),
    Column("message", Text, nullable=False),
    Column("fields", JSON, nullable=False, comment="What its type adds"),
    CheckConstraint("severity BETWEEN 1 AND 1000", name="severity"),
    comment="Events and changes of alarms, as they came",
)

lab_samples = Table(
    "lab_samples",
    metadata,
    Column("id", Text, primary_key=True, comment="UUID, or the laboratory's own number"),
    Column("asset", Text, nullable=False),
    Column("quantity", Text, nullable=False, comment="What was measured; an output of a soft sensor"),
    Column("taken", BigInteger, nullable=False, comment="When the sample was drawn"),
    Column("known", BigInteger, nullable=False, comment="When we had the result, by our clock"),
    Column("value", Double),
    Column("unit", Text, nullable=False),
    Column("status", BigInteger, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("note", Text, nullable=False),
    Index("ix_lab_samples_asset_taken", "asset", "taken"),
    comment="What the laboratory measured",
)

labels = Table(
    "labels",
    metadata,
    Column("id", Text, primary_key=True, comment="UUID"),
    Column("kind", Text, nullable=False, comment="failure, work_order, verdict, normal"),
    Column("asset", Text, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger, comment="NULL: a moment, or it lasts"),
    Column("verdict", Text, comment="Of a flag: confirmed, false_alarm, unclear"),
    Column("model", Text, comment="Of the flag"),
    Column("as_of", BigInteger, comment="Of the flag"),
    Column("run_id", Integer, comment="Of the flag"),
    Column("reference", Text, nullable=False, comment="Such as the number of a work order"),
    Column("note", Text, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("created", BigInteger, nullable=False, comment="When we had it, by our clock"),
    Index("ix_labels_asset_start_time", "asset", "start_time"),
    comment="What people say happened",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("time", BigInteger, nullable=False, index=True),
    Column("user_name", Text, nullable=False, comment="Who; foretag itself for a promotion by rule"),
    Column("origin", Text, nullable=False, comment="command, page, opcua, service"),
    Column("action", Text, nullable=False, comment="Such as promote, label, correct, reload, import, drop"),
    Column("subject", Text, nullable=False, comment="What was changed"),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    comment="Every change that a person or a promotion made; rows are only added",
)

imports = Table(
    "imports",
    metadata,
    Column("id", Text, primary_key=True, comment="SHA-256 of file and options"),
    Column("file", Text, nullable=False, comment="Its name"),
    Column("started", BigInteger, nullable=False),
    Column("finished", BigInteger, comment="NULL: it can be taken up again"),
    Column("position", BigInteger, nullable=False, comment="Rows of the file that are done"),
    Column("stored", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("options", JSON, nullable=False),
    comment="History that was brought from files",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("import_id", Text, ForeignKey(imports.c.id), primary_key=True),
    Column(
        "row",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="In the file, from 1, heading left out; 0: the file",
    ),
    Column("column", Text, primary_key=True, comment="Empty: the whole row"),
    Column("content", Text, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="What of a file could not be taken",
)

leaders = Table(
    "leaders",
    metadata,
    Column("shard", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False, comment="Counts the leaders; a write under an older one is refused"),
    Column("gateway", Text, nullable=False, comment="UUID of its data folder"),
    Column("holder", Text, nullable=False, comment="Host and process"),
    Column("since", BigInteger, nullable=False),
    comment="Which gateway acquires the sources of a shard",
)

claims = Table(
    "claims",
    metadata,
    Column("kind", Text, primary_key=True, comment="source, model"),
    Column("name", Text, primary_key=True),
    Column("shard", Text, nullable=False),
    comment="Which shard's leader acquired a source, or ran a model, last",
)
