"""The tables as reports see them: views with plain names, readable times and joined keys, in either database's SQL.

Of a time there are two columns: ``start_time`` to be read (ISO 8601 with ``Z`` in SQLite, ``timestamptz`` in
PostgreSQL) and ``start_time_us``, the microseconds since 1970-01-01 UTC that indices know.
"""

from collections.abc import Callable

from sqlalchemy import Connection, inspect

from plugin.historian.schema import people_views as people
from plugin.historian.schema import plant_views as plant
from plugin.historian.schema import result_views as results
from plugin.historian.schema import sample_views as sampled
from plugin.historian.schema.view import Dialect, View, Words

_MAKERS: tuple[Callable[[Words], View], ...] = (
    plant.tags,
    sampled.samples,
    plant.latest,
    plant.rolled_up("hour", 3_600_000_000, "v_tag_hourly"),
    plant.rolled_up("day", 86_400_000_000, "v_tag_daily"),
    plant.gaps,
    results.predictions,
    results.forecasts,
    results.accuracy,
    results.flags,
    people.alarms,
    people.events,
    people.lab_samples,
    people.labels,
    results.explanations,
    results.drifts,
    results.runs,
    results.versions,
    people.audit,
)


def views(dialect: Dialect) -> tuple[View, ...]:
    """All of them, in the order in which they are made and told."""
    sql = Words(dialect)
    return tuple(make(sql) for make in _MAKERS)


def create(connection: Connection) -> None:
    """Make them all."""
    connection.exec_driver_sql(sampled.closed(Words(_dialect(connection))))
    for view in views(_dialect(connection)):
        connection.exec_driver_sql(view.create)


def drop(connection: Connection) -> None:
    """Take them away: nothing that they show can be altered while they are there."""
    there = set(inspect(connection).get_view_names())
    for view in reversed(views(_dialect(connection))):
        if view.name in there:
            connection.exec_driver_sql(f"DROP VIEW {view.name}")
    if sampled.CLOSED in there:
        connection.exec_driver_sql(f"DROP VIEW {sampled.CLOSED}")


def _dialect(connection: Connection) -> Dialect:
    return "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
