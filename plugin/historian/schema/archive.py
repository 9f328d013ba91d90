"""Samples that are coded by tag and stretch of time, rolled up or corrected; the newest; what is known of them all."""

from sqlalchemy import BigInteger, Column, Double, Identity, Index, Integer, LargeBinary, SmallInteger, Table, Text

from plugin.historian.schema.names import metadata

sample_partitions = Table(
    "sample_partitions",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("retention", Text, nullable=False, comment="Class of retention of all its tags"),
    Column("start_time", BigInteger, nullable=False, comment="Oldest source time"),
    Column("end_time", BigInteger, nullable=False, comment="Newest source time, exclusive"),
    Column("samples", BigInteger, nullable=False),
    Column("left_out", BigInteger, nullable=False, comment="Samples that the swinging door left out"),
    Column("bytes", BigInteger, nullable=False),
    Column("closed", BigInteger, nullable=False, comment="When, by our clock"),
    Index("ix_sample_partitions_end_time", "end_time"),
    comment="Stretches of time whose samples are coded; retention drops them whole",
)

sample_chunks = Table(
    "sample_chunks",
    metadata,
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("first_time", BigInteger, primary_key=True, autoincrement=False, comment="Source time of the first sample"),
    Column("first_ordinal", Integer, primary_key=True, autoincrement=False, comment="Its ordinal"),
    Column("last_time", BigInteger, nullable=False, comment="Source time of the last sample"),
    Column("samples", Integer, nullable=False, comment="How many, 1 to 512"),
    Column("partition_id", Integer, nullable=False),
    Column(
        "step",
        BigInteger,
        nullable=False,
        comment="Time of sample i: first_time + time_base + time_unit * (i * step / time_unit, cut off, + code)",
    ),
    Column("time_base", BigInteger, nullable=False),
    Column("time_unit", Integer, nullable=False, comment="[µs]"),
    Column("time_width", SmallInteger, nullable=False, comment="Bytes of a code, 0 to 8"),
    Column("scale", Double, comment="Value: (value_base + code) / scale; NULL: as ieee says"),
    Column(
        "ieee", SmallInteger, nullable=False, comment="32, 64: value_base + code are the bits of an IEEE 754 number"
    ),
    Column("nulls", Integer, nullable=False, comment="Values that are NULL; where there are any, code 0 is NULL"),
    Column("value_base", BigInteger, nullable=False),
    Column("value_width", SmallInteger, nullable=False),
    Column("status_base", BigInteger, nullable=False),
    Column("status_width", SmallInteger, nullable=False),
    Column("server_base", BigInteger, nullable=False, comment="Server time: source time + base + unit * code"),
    Column("server_unit", Integer, nullable=False, comment="[µs]"),
    Column("server_width", SmallInteger, nullable=False),
    Column("received_base", BigInteger, nullable=False, comment="Received time: server time + base + unit * code"),
    Column("received_unit", Integer, nullable=False, comment="[µs]"),
    Column("received_width", SmallInteger, nullable=False),
    Column("ordinal_base", Integer, nullable=False),
    Column("ordinal_width", SmallInteger, nullable=False),
    Column(
        "data",
        LargeBinary,
        nullable=False,
        comment="Codes of times, values, statuses, …: of each all lowest bytes, …, all highest",
    ),
    Index("ix_sample_chunks_partition_id_tag_id", "partition_id", "tag_id"),
    comment="Samples of one tag that follow one another, coded without loss",
)

# Byte planes become numbers in plain SQL by joins with these two.
powers = Table(
    "powers",
    metadata,
    Column("exponent", Integer, primary_key=True, autoincrement=False),
    Column("power", Double, nullable=False),
    comment="2 to the power of the exponent, -1074 to 971",
)

places = Table(
    "places",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=False),
    comment="0 to 511: of a sample in its chunk",
)

latest_samples = Table(
    "latest_samples",
    metadata,
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("source_time", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("value", Double),
    Column("status", BigInteger, nullable=False),
    Column("server_time", BigInteger, nullable=False),
    Column("received_time", BigInteger, nullable=False),
    comment="The newest sample of each tag, but for samples from bookkeeping 'latest_since' on",
)

modified_samples = Table(
    "modified_samples",
    metadata,
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("source_time", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("modified", BigInteger, primary_key=True, autoincrement=False, comment="When, by our clock"),
    Column("value", Double),
    Column("status", BigInteger, nullable=False),
    Column("server_time", BigInteger, nullable=False),
    Column("received_time", BigInteger, nullable=False),
    Column("text", Text),
    Column("update_type", Text, nullable=False, comment="replaced, deleted (OPC 10000-11, HistoryUpdateType)"),
    Column("user_name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="What samples were before somebody corrected them",
)

bookkeeping = Table(
    "bookkeeping",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    comment="Of the historian itself: samples (stored in all), closed_until, latest_since",
)

kept_since = Table(
    "kept_since",
    metadata,
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("what", Text, primary_key=True, comment="samples, minutes, hours, days"),
    Column("since", BigInteger, nullable=False, comment="From then on nothing is missing that was stored"),
    sqlite_with_rowid=False,
    comment="How far back the archive of a tag is whole; no row: retention has dropped nothing of it",
)

growth = Table(
    "growth",
    metadata,
    Column("time", BigInteger, primary_key=True, autoincrement=False, comment="By our clock"),
    Column("used", BigInteger, nullable=False, comment="Database without free pages [byte]"),
    Column("closed", BigInteger, nullable=False, comment="Samples of closed partitions among them [byte]"),
    Column("hot", BigInteger, nullable=False, comment="Samples that are not in a closed partition yet"),
    sqlite_with_rowid=False,
    comment="How large the database was, for the forecast of when its disk is full",
)


def _rollup(level: str) -> Table:
    return Table(
        f"rollup_{level}s",
        metadata,
        Column("tag_id", Integer, primary_key=True, autoincrement=False),
        Column("start_time", BigInteger, primary_key=True, autoincrement=False, comment=f"Of the {level}, in UTC"),
        Column("samples", Integer, nullable=False),
        Column("good", Integer, nullable=False, comment="Samples that are Good"),
        Column("minimum", Double, comment="Of Good and Uncertain values; NULL: there is none"),
        Column("maximum", Double),
        Column("mean", Double, comment="Of the values"),
        Column("numbers", Integer, nullable=False, comment="Values that the mean is of"),
        Column("first_time", BigInteger, nullable=False),
        Column("first_value", Double),
        Column("last_time", BigInteger, nullable=False),
        Column("last_value", Double),
        Column("last_status", BigInteger, nullable=False),
        Column("weighted_mean", Double, comment="Weighted by how long each value stood"),
        Column("observed", BigInteger, nullable=False, comment="How long there was a value [µs]"),
        Column("good_time", BigInteger, nullable=False, comment="How long the value was Good [µs]"),
        sqlite_with_rowid=False,
        comment=f"Samples of closed partitions by {level}",
    )


rollup_minutes = _rollup("minute")
rollup_hours = _rollup("hour")
rollup_days = _rollup("day")
