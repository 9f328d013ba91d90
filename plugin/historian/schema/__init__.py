"""The tables, as SQLAlchemy Core knows them; :mod:`migrations` brings a database to this shape.

Every time is a 64-bit integer of microseconds since 1970-01-01 UTC: exact, ordered, the same in SQLite and PostgreSQL,
and wide enough for the stamps that OPC UA allows (1601 to 9999). Types suit both: a StatusCode is BIGINT because it has
32 bits and PostgreSQL's INTEGER is signed.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, MetaData, Table, event

from plugin.historian.schema import guards, views
from plugin.historian.schema.archive import (
    bookkeeping,
    growth,
    kept_since,
    latest_samples,
    modified_samples,
    places,
    powers,
    rollup_days,
    rollup_hours,
    rollup_minutes,
    sample_chunks,
    sample_partitions,
)
from plugin.historian.schema.names import metadata
from plugin.historian.schema.people import audit_log, claims, events, imports, lab_samples, labels, leaders, quarantine
from plugin.historian.schema.plant import assets, checkpoints, gap_history, gaps, remarks, sample_texts, samples, tags
from plugin.historian.schema.results import (
    alarms,
    drifts,
    explanations,
    flags,
    model_versions,
    output_tags,
    predictions,
    runs,
)

__all__ = [
    "alarms",
    "assets",
    "audit_log",
    "bookkeeping",
    "checkpoints",
    "claims",
    "drifts",
    "events",
    "explanations",
    "flags",
    "gap_history",
    "gaps",
    "growth",
    "imports",
    "kept_since",
    "lab_samples",
    "labels",
    "latest_samples",
    "leaders",
    "metadata",
    "model_versions",
    "modified_samples",
    "output_tags",
    "places",
    "powers",
    "predictions",
    "quarantine",
    "remarks",
    "rollup_days",
    "rollup_hours",
    "rollup_minutes",
    "runs",
    "sample_chunks",
    "sample_partitions",
    "sample_texts",
    "samples",
    "tags",
]


@event.listens_for(metadata, "after_create")
def _complete(_metadata: MetaData, connection: Connection, tables: Collection[Table], **_: Any) -> None:
    """What is no table belongs to the shape too."""
    if len(tables) == len(metadata.tables):
        guards.create(connection)
        views.create(connection)
