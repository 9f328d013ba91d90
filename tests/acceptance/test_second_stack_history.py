"""The past of our nodes, asked for by another vendor's stack."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from plugin.diagnostics import Diagnostics
from plugin.domain import Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.historian.sqlite.store import SqliteStore
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink

_NOX = OutputTag("nox", "gas-turbine", "nox", "mg/m3", 0.0, 200.0, "Nitrogen oxides")
_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


def _shown(time: datetime) -> str:
    """As JavaScript does."""
    return f"{time:%Y-%m-%dT%H:%M:%S}.000Z"


async def test_it_reads_raw_values_in_pages_and_averages_of_intervals(second_stack, tmp_path):
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path}/historian.db") as store:
        run = await store.write_run(Run(0, "nox", RunKind.SCORE, _NOON))
        first = Prediction(_NOX, 1, _NOON, _NOON, _NOON, 0.0, None, None, Status.GOOD, 1.0, run.id)
        said = [replace(first, as_of=_NOON + n * _MINUTE, value=float(n)) for n in range(7)]
        said[5] = replace(said[5], value=None, status=Status.BAD_NO_DATA)
        await store.write_outcome(Outcome(run, tuple(said), ()))
        config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
        sink = OpcUaSink(config, tmp_path, Diagnostics(), store=store)
        async with sink.open([_NOX]):
            node, end = f"nsu=urn:foretag:predictions;s={_NOX.name}", _NOON + 8 * _MINUTE
            asked = node, _NOON.isoformat(), end.isoformat(), "3", "Average", "240000"
            found = await second_stack(sink.endpoint, "history", *asked)
    assert not [line for line in found if "error" in line], found
    raw = [line for line in found if line["kind"] == "raw"]
    assert [line["value"] for line in raw] == [0.0, 1.0, 2.0, 3.0, 4.0, None, 6.0]
    assert [line["page"] for line in raw] == [1, 1, 1, 2, 2, 2, 3]
    assert [line["source_time"] for line in raw] == [_shown(prediction.as_of) for prediction in said]
    assert raw[5]["status"] == Status.BAD_NO_DATA
    averages = [line for line in found if line["kind"] == "Average"]
    assert [line["value"] for line in averages] == [1.5, 5.0]
    assert [hex(line["status"]) for line in averages] == ["0x401", "0x40a40401"]
    assert [line["source_time"] for line in averages] == [_shown(_NOON), _shown(_NOON + 4 * _MINUTE)]
