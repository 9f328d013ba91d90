"""The archive: chunks, roll-ups, corrections; and what people add: laboratory, labels, events, audit, imports."""

import sqlalchemy as sa
from alembic import op

from plugin.historian.schema import guards, sample_views, views
from plugin.historian.schema.plant import clocks

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


_DELAYS = {"server_delay": "Server time less source time [µs]", "received_delay": "Received time less server time [µs]"}


def upgrade() -> None:
    _stamps_to_delays()
    _ordinals_to("integer")
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False, comment="Who; foretag itself for a promotion by rule"),
        sa.Column("origin", sa.Text(), nullable=False, comment="command, page, opcua, service"),
        sa.Column("action", sa.Text(), nullable=False, comment="Such as promote, label, correct, reload, import, drop"),
        sa.Column("subject", sa.Text(), nullable=False, comment="What was changed"),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        comment="Every change that a person or a promotion made; rows are only added",
    )
    op.create_index(op.f("ix_audit_log_time"), "audit_log", ["time"], unique=False)
    op.create_table(
        "bookkeeping",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_bookkeeping")),
        comment="Of the historian itself: samples (stored in all), closed_until, latest_since",
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Text(), nullable=False, comment="EventId, as hexadecimal digits, or a UUID"),
        sa.Column("time", sa.BigInteger(), nullable=False, comment="When it happened, by its source"),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="Plant server, or foretag"),
        sa.Column("source_name", sa.Text(), nullable=False, comment="What it is about, as the source names it"),
        sa.Column("asset", sa.Text(), nullable=True, comment="NULL: of none"),
        sa.Column("type", sa.Text(), nullable=False, comment="BrowseName of the OPC UA type"),
        sa.Column("condition", sa.Text(), nullable=True, comment="Key in alarms; NULL: no condition's event"),
        sa.Column("severity", sa.Integer(), nullable=False, comment="1..1000"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False, comment="What its type adds"),
        sa.CheckConstraint("severity BETWEEN 1 AND 1000", name=op.f("ck_events_severity")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        comment="Events and changes of alarms, as they came",
    )
    op.create_index(op.f("ix_events_time"), "events", ["time"], unique=False)
    op.create_table(
        "imports",
        sa.Column("id", sa.Text(), nullable=False, comment="SHA-256 of file and options"),
        sa.Column("file", sa.Text(), nullable=False, comment="Its name"),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.BigInteger(), nullable=True, comment="NULL: it can be taken up again"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="Rows of the file that are done"),
        sa.Column("stored", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("quarantined", sa.BigInteger(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        comment="History that was brought from files",
    )
    op.create_table(
        "growth",
        sa.Column("time", sa.BigInteger(), autoincrement=False, nullable=False, comment="By our clock"),
        sa.Column("used", sa.BigInteger(), nullable=False, comment="Database without free pages [byte]"),
        sa.Column("closed", sa.BigInteger(), nullable=False, comment="Samples of closed partitions among them [byte]"),
        sa.Column("hot", sa.BigInteger(), nullable=False, comment="Samples that are not in a closed partition yet"),
        sa.PrimaryKeyConstraint("time", name=op.f("pk_growth")),
        comment="How large the database was, for the forecast of when its disk is full",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "kept_since",
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("what", sa.Text(), nullable=False, comment="samples, minutes, hours, days"),
        sa.Column("since", sa.BigInteger(), nullable=False, comment="From then on nothing is missing that was stored"),
        sa.PrimaryKeyConstraint("tag_id", "what", name=op.f("pk_kept_since")),
        comment="How far back the archive of a tag is whole; no row: retention has dropped nothing of it",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lab_samples",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID, or the laboratory's own number"),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Text(), nullable=False, comment="What was measured; an output of a soft sensor"),
        sa.Column("taken", sa.BigInteger(), nullable=False, comment="When the sample was drawn"),
        sa.Column("known", sa.BigInteger(), nullable=False, comment="When we had the result, by our clock"),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab_samples")),
        comment="What the laboratory measured",
    )
    op.create_index("ix_lab_samples_asset_taken", "lab_samples", ["asset", "taken"], unique=False)
    op.create_table(
        "labels",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("kind", sa.Text(), nullable=False, comment="failure, work_order, verdict, normal"),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True, comment="NULL: a moment, or it lasts"),
        sa.Column("verdict", sa.Text(), nullable=True, comment="Of a flag: confirmed, false_alarm, unclear"),
        sa.Column("model", sa.Text(), nullable=True, comment="Of the flag"),
        sa.Column("as_of", sa.BigInteger(), nullable=True, comment="Of the flag"),
        sa.Column("run_id", sa.Integer(), nullable=True, comment="Of the flag"),
        sa.Column("reference", sa.Text(), nullable=False, comment="Such as the number of a work order"),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False, comment="When we had it, by our clock"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labels")),
        comment="What people say happened",
    )
    op.create_index("ix_labels_asset_start_time", "labels", ["asset", "start_time"], unique=False)
    op.create_table(
        "latest_samples",
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source_time", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("server_time", sa.BigInteger(), nullable=False),
        sa.Column("received_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tag_id", name=op.f("pk_latest_samples")),
        comment="The newest sample of each tag, but for samples from bookkeeping 'latest_since' on",
    )
    op.create_table(
        "claims",
        sa.Column("kind", sa.Text(), nullable=False, comment="source, model"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("shard", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_claims")),
        comment="Which shard's leader acquired a source, or ran a model, last",
    )
    op.create_table(
        "leaders",
        sa.Column("shard", sa.Text(), nullable=False),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            nullable=False,
            comment="Counts the leaders; a write under an older one is refused",
        ),
        sa.Column("gateway", sa.Text(), nullable=False, comment="UUID of its data folder"),
        sa.Column("holder", sa.Text(), nullable=False, comment="Host and process"),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_leaders")),
        comment="Which gateway acquires the sources of a shard",
    )
    op.create_table(
        "modified_samples",
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source_time", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("modified", sa.BigInteger(), autoincrement=False, nullable=False, comment="When, by our clock"),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("server_time", sa.BigInteger(), nullable=False),
        sa.Column("received_time", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column(
            "update_type", sa.Text(), nullable=False, comment="replaced, deleted (OPC 10000-11, HistoryUpdateType)"
        ),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tag_id", "source_time", "ordinal", "modified", name=op.f("pk_modified_samples")),
        comment="What samples were before somebody corrected them",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "places",
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_places")),
        comment="0 to 511: of a sample in its chunk",
    )
    op.create_table(
        "powers",
        sa.Column("exponent", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("power", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("exponent", name=op.f("pk_powers")),
        comment="2 to the power of the exponent, -1074 to 971",
    )
    for level in ("day", "hour", "minute"):
        _create_roll_ups(level)
    op.create_table(
        "sample_chunks",
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "first_time",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Source time of the first sample",
        ),
        sa.Column("first_ordinal", sa.Integer(), autoincrement=False, nullable=False, comment="Its ordinal"),
        sa.Column("last_time", sa.BigInteger(), nullable=False, comment="Source time of the last sample"),
        sa.Column("samples", sa.Integer(), nullable=False, comment="How many, 1 to 512"),
        sa.Column("partition_id", sa.Integer(), nullable=False),
        sa.Column(
            "step",
            sa.BigInteger(),
            nullable=False,
            comment="Time of sample i: first_time + time_base + time_unit * (i * step / time_unit, cut off, + code)",
        ),
        sa.Column("time_base", sa.BigInteger(), nullable=False),
        sa.Column("time_unit", sa.Integer(), nullable=False, comment="[µs]"),
        sa.Column("time_width", sa.SmallInteger(), nullable=False, comment="Bytes of a code, 0 to 8"),
        sa.Column(
            "scale", sa.Double(), nullable=True, comment="Value: (value_base + code) / scale; NULL: as ieee says"
        ),
        sa.Column(
            "ieee",
            sa.SmallInteger(),
            nullable=False,
            comment="32, 64: value_base + code are the bits of an IEEE 754 number",
        ),
        sa.Column(
            "nulls",
            sa.Integer(),
            nullable=False,
            comment="Values that are NULL; where there are any, code 0 is NULL",
        ),
        sa.Column("value_base", sa.BigInteger(), nullable=False),
        sa.Column("value_width", sa.SmallInteger(), nullable=False),
        sa.Column("status_base", sa.BigInteger(), nullable=False),
        sa.Column("status_width", sa.SmallInteger(), nullable=False),
        sa.Column(
            "server_base", sa.BigInteger(), nullable=False, comment="Server time: source time + base + unit * code"
        ),
        sa.Column("server_unit", sa.Integer(), nullable=False, comment="[µs]"),
        sa.Column("server_width", sa.SmallInteger(), nullable=False),
        sa.Column(
            "received_base", sa.BigInteger(), nullable=False, comment="Received time: server time + base + unit * code"
        ),
        sa.Column("received_unit", sa.Integer(), nullable=False, comment="[µs]"),
        sa.Column("received_width", sa.SmallInteger(), nullable=False),
        sa.Column("ordinal_base", sa.Integer(), nullable=False),
        sa.Column("ordinal_width", sa.SmallInteger(), nullable=False),
        sa.Column(
            "data",
            sa.LargeBinary(),
            nullable=False,
            comment="Codes of times, values, statuses, …: of each all lowest bytes, …, all highest",
        ),
        sa.PrimaryKeyConstraint("tag_id", "first_time", "first_ordinal", name=op.f("pk_sample_chunks")),
        comment="Samples of one tag that follow one another, coded without loss",
    )
    op.create_index("ix_sample_chunks_partition_id_tag_id", "sample_chunks", ["partition_id", "tag_id"], unique=False)
    op.create_table(
        "sample_partitions",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("retention", sa.Text(), nullable=False, comment="Class of retention of all its tags"),
        sa.Column("start_time", sa.BigInteger(), nullable=False, comment="Oldest source time"),
        sa.Column("end_time", sa.BigInteger(), nullable=False, comment="Newest source time, exclusive"),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("left_out", sa.BigInteger(), nullable=False, comment="Samples that the swinging door left out"),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.BigInteger(), nullable=False, comment="When, by our clock"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample_partitions")),
        comment="Stretches of time whose samples are coded; retention drops them whole",
    )
    op.create_index("ix_sample_partitions_end_time", "sample_partitions", ["end_time"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("import_id", sa.Text(), nullable=False),
        sa.Column(
            "row",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="In the file, from 1, heading left out; 0: the file",
        ),
        sa.Column("column", sa.Text(), nullable=False, comment="Empty: the whole row"),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_quarantine_import_id")),
        sa.PrimaryKeyConstraint("import_id", "row", "column", name=op.f("pk_quarantine")),
        comment="What of a file could not be taken",
        sqlite_with_rowid=False,
    )
    op.add_column(
        "tags",
        sa.Column("fill", sa.Text(), server_default="hold", nullable=False, comment="Between samples: hold, linear"),
    )
    op.add_column(
        "tags",
        sa.Column(
            "max_age",
            sa.BigInteger(),
            nullable=True,
            comment="How long a value stands for itself [µs]; NULL: as the model says",
        ),
    )
    op.add_column(
        "tags",
        sa.Column(
            "uncertain",
            sa.Boolean(),
            server_default=sa.true(),
            nullable=False,
            comment="Uncertain values are used by models",
        ),
    )
    op.add_column(
        "tags",
        sa.Column(
            "compression",
            sa.Double(),
            server_default="0",
            nullable=False,
            comment="Swinging door at the archive [unit]",
        ),
    )
    op.add_column(
        "tags",
        sa.Column(
            "retention", sa.Text(), server_default="", nullable=False, comment="Class of retention; empty: the default"
        ),
    )
    _extend_results()
    op.bulk_insert(sa.table("places", sa.column("place", sa.Integer)), [{"place": place} for place in range(512)])
    powers = [{"exponent": exponent, "power": 2.0**exponent} for exponent in range(-1074, 972)]
    op.bulk_insert(sa.table("powers", sa.column("exponent", sa.Integer), sa.column("power", sa.Double)), powers)
    op.create_index(
        "ix_predictions_output_id_version_target_time", "predictions", ["output_id", "version", "target_time"]
    )
    op.create_index("ix_predictions_output_id_as_of", "predictions", ["output_id", "as_of"])
    op.create_index("ix_predictions_output_id_target_time_as_of", "predictions", ["output_id", "target_time", "as_of"])
    op.create_index("ix_flags_model_asset_as_of", "flags", ["model", "asset", "as_of"])
    guards.create(op.get_bind())
    views.create(op.get_bind())

    # An older release would not see what is in chunks, and would not look there for duplicates.
    op.execute("INSERT INTO bookkeeping (name, value) VALUES ('works_from', 4)")
    op.execute("INSERT INTO bookkeeping (name, value) SELECT 'samples', count(*) FROM samples")
    if op.get_context().dialect.name == "postgresql":  # there to be locked: see plugin.historian.postgres.samples
        op.execute(
            "INSERT INTO bookkeeping (name, value) VALUES ('closed_until', -9223372036854775808), "
            "('late_before', -9223372036854775808), ('corrections', 0)"
        )
    columns = "tag_id, source_time, ordinal, value, status"
    newest = "SELECT tag_id AS t, max(source_time) AS newest FROM samples GROUP BY tag_id"
    later = "SELECT 1 FROM samples l WHERE l.source_time = n.newest AND l.tag_id = n.t AND l.ordinal > s.ordinal"
    op.execute(
        f"INSERT INTO latest_samples ({columns}, server_time, received_time) "  # noqa: S608  only names
        f"SELECT {columns}, {clocks('s')} FROM ({newest}) n "
        f"JOIN samples s ON s.source_time = n.newest AND s.tag_id = n.t WHERE NOT EXISTS ({later})"
    )
    op.execute(
        "INSERT INTO bookkeeping (name, value) "
        "SELECT 'latest_since', max(source_time) FROM samples HAVING max(source_time) IS NOT NULL"
    )


def _extend_results() -> None:
    op.create_table(
        "explanations",
        sa.Column("as_of", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("output_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False, comment="In what the output is, 0..1"),
        sa.ForeignKeyConstraint(["output_id"], ["output_tags.id"], name=op.f("fk_explanations_output_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_explanations_run_id")),
        sa.PrimaryKeyConstraint("as_of", "output_id", "run_id", "feature", name=op.f("pk_explanations")),
        comment="Which features made an output what it is",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "drifts",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="input, distribution, bias, residual, coverage"),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="The feature, or the output, that it was seen in"),
        sa.Column("since", sa.BigInteger(), nullable=False, comment="Of the first value that is unlike those before"),
        sa.Column("noticed", sa.BigInteger(), nullable=False, comment="By our clock"),
        sa.Column("until", sa.BigInteger(), nullable=True, comment="NULL: it lasts"),
        sa.Column("statistic", sa.Double(), nullable=False),
        sa.Column("limit_value", sa.Double(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["model_versions.model", "model_versions.version"], name=op.f("fk_drifts_model")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drifts")),
        comment="Where a model and the plant have come apart",
    )
    op.create_index("ix_drifts_model_since", "drifts", ["model", "since"], unique=False)
    comment = "Of what the run said, when it last became active"
    op.add_column("alarms", sa.Column("as_of", sa.BigInteger(), nullable=True, comment=comment))
    for name, comment in (
        ("level", "0: not active; 1, 2: beyond that limit"),
        ("last_severity", "0: there was none before"),
        ("repeats", "How often it was raised again"),
    ):
        op.add_column("alarms", sa.Column(name, sa.Integer(), server_default="0", nullable=False, comment=comment))
    for name, comment in (
        ("one_shot", "Shelved until it returns to normal"),
        ("gathered", "In the case of its asset"),
    ):
        op.add_column(
            "alarms", sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False, comment=comment)
        )
    op.add_column(
        "output_tags",
        sa.Column(
            "meaning", sa.Text(), server_default="value", nullable=False, comment="value, lifetime, flag, forecast, …"
        ),
    )
    op.add_column(
        "output_tags",
        sa.Column(
            "states",
            sa.JSON(),
            server_default="[]",
            nullable=False,
            comment="Of a state: their names; its value is an index",
        ),
    )
    op.execute("UPDATE output_tags SET meaning = 'flag' WHERE flag")
    op.drop_column("output_tags", "flag")


def _stamps_to_delays() -> None:
    """Of each row in its place: the columns' order stays."""
    for clock, delay in zip(("server", "received"), _DELAYS, strict=True):
        op.execute(f"ALTER TABLE samples RENAME COLUMN {clock}_time TO {delay}")
    # What stands on the right is of the row as it was before.
    op.execute(
        "UPDATE samples SET server_delay = server_delay - source_time, received_delay = received_delay - server_delay"
    )
    if op.get_context().dialect.name == "postgresql":
        for delay, says in _DELAYS.items():
            op.execute(f"COMMENT ON COLUMN samples.{delay} IS '{says}'")


def _delays_to_stamps() -> None:
    op.execute(
        "UPDATE samples SET server_delay = source_time + server_delay, "
        "received_delay = source_time + server_delay + received_delay"
    )
    for clock, delay in zip(("server", "received"), _DELAYS, strict=True):
        op.execute(f"ALTER TABLE samples RENAME COLUMN {delay} TO {clock}_time")
        if op.get_context().dialect.name == "postgresql":
            op.execute(f"COMMENT ON COLUMN samples.{clock}_time IS NULL")


def _ordinals_to(kind: str) -> None:
    """SQLite's have no width."""
    if op.get_context().dialect.name == "postgresql":
        for table in ("samples", "sample_texts"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN ordinal TYPE {kind}")


def _create_roll_ups(level: str) -> None:
    op.create_table(
        f"rollup_{level}s",
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "start_time", sa.BigInteger(), autoincrement=False, nullable=False, comment=f"Of the {level}, in UTC"
        ),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("good", sa.Integer(), nullable=False, comment="Samples that are Good"),
        sa.Column("minimum", sa.Double(), nullable=True, comment="Of Good and Uncertain values; NULL: there is none"),
        sa.Column("maximum", sa.Double(), nullable=True),
        sa.Column("mean", sa.Double(), nullable=True, comment="Of the values"),
        sa.Column("numbers", sa.Integer(), nullable=False, comment="Values that the mean is of"),
        sa.Column("first_time", sa.BigInteger(), nullable=False),
        sa.Column("first_value", sa.Double(), nullable=True),
        sa.Column("last_time", sa.BigInteger(), nullable=False),
        sa.Column("last_value", sa.Double(), nullable=True),
        sa.Column("last_status", sa.BigInteger(), nullable=False),
        sa.Column("weighted_mean", sa.Double(), nullable=True, comment="Weighted by how long each value stood"),
        sa.Column("observed", sa.BigInteger(), nullable=False, comment="How long there was a value [µs]"),
        sa.Column("good_time", sa.BigInteger(), nullable=False, comment="How long the value was Good [µs]"),
        sa.PrimaryKeyConstraint("tag_id", "start_time", name=op.f(f"pk_rollup_{level}s")),
        comment=f"Samples of closed partitions by {level}",
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    views.drop(op.get_bind())
    sample_views.reopen(op.get_bind())
    _delays_to_stamps()
    _ordinals_to("smallint")
    op.drop_index("ix_predictions_output_id_version_target_time", "predictions")
    op.drop_index("ix_predictions_output_id_as_of", "predictions")
    op.drop_index("ix_predictions_output_id_target_time_as_of", "predictions")
    op.drop_index("ix_flags_model_asset_as_of", "flags")
    # ### commands auto generated by Alembic - please adjust! ###
    for name in ("gathered", "one_shot", "repeats", "last_severity", "level", "as_of"):
        op.drop_column("alarms", name)
    op.add_column("output_tags", sa.Column("flag", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE output_tags SET flag = (meaning = 'flag')")
    op.drop_column("output_tags", "states")
    op.drop_column("output_tags", "meaning")
    op.drop_index("ix_drifts_model_since", table_name="drifts")
    op.drop_table("drifts")
    op.drop_table("explanations")
    op.drop_column("tags", "retention")
    op.drop_column("tags", "compression")
    op.drop_column("tags", "uncertain")
    op.drop_column("tags", "max_age")
    op.drop_column("tags", "fill")
    op.drop_table("quarantine")
    op.drop_index("ix_sample_partitions_end_time", table_name="sample_partitions")
    op.drop_table("sample_partitions")
    op.drop_index("ix_sample_chunks_partition_id_tag_id", table_name="sample_chunks")
    op.drop_table("sample_chunks")
    op.drop_table("rollup_minutes")
    op.drop_table("rollup_hours")
    op.drop_table("rollup_days")
    op.drop_table("powers")
    op.drop_table("places")
    op.drop_table("modified_samples")
    op.drop_table("leaders")
    op.drop_table("claims")
    op.drop_table("latest_samples")
    op.drop_index("ix_labels_asset_start_time", table_name="labels")
    op.drop_table("labels")
    op.drop_index("ix_lab_samples_asset_taken", table_name="lab_samples")
    op.drop_table("lab_samples")
    op.drop_table("kept_since")
    op.drop_table("growth")
    op.drop_table("imports")
    op.drop_index(op.f("ix_events_time"), table_name="events")
    op.drop_table("events")
    op.drop_table("bookkeeping")
    op.drop_index(op.f("ix_audit_log_time"), table_name="audit_log")
    op.drop_table("audit_log")
    guards.drop(op.get_bind())
    # ### end Alembic commands ###
