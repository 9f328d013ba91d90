"""The past of our nodes, asked for by another vendor's stack."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from plugin.diagnostics import Diagnostics
from plugin.domain import Event, Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.historian.sqlite.store import SqliteStore
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink

_NOX = OutputTag("nox", "gas-turbine", "nox", "mg/m3", 0.0, 200.0, "Nitrogen oxides")
_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


def _shown(time: datetime) -> str:
    """As JavaScript does."""
    return f"{time:%Y-%m-%dT%H:%M:%S}.000Z"


def _node(name: str) -> str:
    return f"nsu=urn:foretag:predictions;s={name}"


def _event(number: int) -> Event:
    time, severity = _NOON + number * _MINUTE, 100 * number + 101
    return Event(
        f"{number:032x}", time, time, "foretag", "gas-turbine", "BaseEventType", severity, f"event {number}",
        asset="gas-turbine", condition="", fields={},
    )  # fmt: skip


async def test_it_reads_values_in_pages_at_times_and_averages_of_intervals_and_events(second_stack, tmp_path):
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path}/historian.db") as store:
        run = await store.write_run(Run(0, "nox", RunKind.SCORE, _NOON))
        first = Prediction(_NOX, 1, _NOON, _NOON, _NOON, 0.0, None, None, Status.GOOD, 1.0, run.id)
        said = [replace(first, as_of=_NOON + n * _MINUTE, value=float(n)) for n in range(7)]
        said[5] = replace(said[5], value=None, status=Status.BAD_NO_DATA)
        await store.write_outcome(Outcome(run, tuple(said), ()))
        config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
        sink = OpcUaSink(config, tmp_path, Diagnostics(), store=store)
        await store.write_events([_event(number) for number in range(5)])
        async with sink.open([_NOX]):
            node, span = _node(_NOX.name), (_NOON.isoformat(), (_NOON + 8 * _MINUTE).isoformat())
            between = [(_NOON + minutes * _MINUTE).isoformat() for minutes in (1, 2.5)]
            asked = (
                ("raw", node, *span, "3"), ("Average", node, *span, "240000"), ("at", node, *between),
                ("events", _node("Foretag.Assets.gas-turbine"), *span, "2"),
            )  # fmt: skip
            found = await second_stack(
                sink.endpoint, *[word for each in asked for word in ("then", "history", *each)][1:]
            )
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
    times = [line for line in found if line["kind"] == "at"]
    assert [(line["value"], line["source_time"]) for line in times] == [
        (1.0, _shown(_NOON + _MINUTE)), (2.5, _shown(_NOON + 2.5 * _MINUTE))
    ]  # fmt: skip
    assert [hex(line["status"]) for line in times] == ["0x0", "0x402"], "raw, then interpolated"
    events = [line for line in found if line["kind"] == "events"]
    assert [(line["page"], line["severity"], line["message"]) for line in events] == [
        (1, 101, "event 0"), (1, 201, "event 1"), (2, 301, "event 2"), (2, 401, "event 3"), (3, 501, "event 4")
    ]  # fmt: skip
    assert [line["time"] for line in events] == [_shown(_NOON + number * _MINUTE) for number in range(5)]
