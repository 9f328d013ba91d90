"""How the past of a forecast is read: what a page costs does not grow with the archive."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import sqlite

from plugin.domain import Meaning, OutputTag, Part
from plugin.historian.schema import predictions
from plugin.historian.schema.names import metadata
from plugin.historian.told import told

_LOAD = OutputTag("load", "e1", "load", "kW", 0.0, 200.0, "Load", Meaning.FORECAST)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_page_is_read_by_target_time_in_its_order(newest_first):
    query = told(_LOAD, Part.VALUE, 0, 2**62, 5000, newest_first=newest_first)
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        asked = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {asked}"))]
    engine.dispose()
    by_target = f"INDEX ix_{predictions.name}_output_id_target_time_as_of (output_id=? AND target_time"
    assert sum(by_target in step for step in plan) == 2, plan  # of a row, and of what was said later of its instant
    assert not [step for step in plan if "TEMP B-TREE" in step], "it is sorted, so it was read whole"
