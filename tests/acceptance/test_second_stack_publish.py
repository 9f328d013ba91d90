"""Our server, seen by another vendor's stack."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua

from plugin import pki
from plugin.channel import Terms
from plugin.diagnostics import Diagnostics
from plugin.domain import Meaning, Outcome, OutputTag, Prediction, Run, RunKind, RunResult, Status
from plugin.publish.config import PublishConfig, WriteBackConfig
from plugin.publish.people import hashed
from plugin.publish.server import OpcUaSink
from plugin.publish.writeback import Connection, WriteBack

_RUL = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "Remaining useful life", Meaning.LIFETIME)
_NOX = OutputTag("nox", "gas-turbine", "nox", "mg/m3", 0.0, 200.0, "Nitrogen oxides")
_FLAG = OutputTag("anomaly", "engine-01", "flag", "", 0.0, 1.0, "Unlike its healthy self", Meaning.FLAG)


def _node(name: str) -> str:
    return f"nsu=urn:foretag:predictions;s={name}"


def _outcome(value: float, status: int = Status.GOOD) -> Outcome:
    now = datetime.now(UTC)
    later = now + timedelta(minutes=5)
    prediction = Prediction(_RUL, 3, now, later, later, value, value - 10, value + 10, status, 1.0, 7)
    return Outcome(Run(7, "rul", RunKind.SCORE, now, now, now, RunResult.DONE, 3, 1), (prediction,), ())


@contextlib.asynccontextmanager
async def _served(folder: Path, *security: Any, tags: Any = (_RUL, _NOX, _FLAG)) -> AsyncIterator[OpcUaSink]:
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=security)
    sink = OpcUaSink(config, folder, Diagnostics())
    async with sink.open(tags):
        yield sink


@pytest.fixture
def certificate(tmp_path: Path) -> pki.OwnCertificate:
    """That of the other stack's client."""
    return pki.ensure_own_certificate(tmp_path / "client", "urn:test:second-stack", ["localhost"])


async def test_browses_reads_units_and_ranges_and_sees_a_prediction_move(second_stack, tmp_path):
    async with _served(tmp_path, "None") as sink:
        found, (rul, nox, flag) = await asyncio.gather(
            second_stack(sink.endpoint, "browse"),
            second_stack(sink.endpoint, "read", _node(_RUL.name), _node(_NOX.name), _node(_FLAG.name)),
        )
        paths = {line["path"]: line for line in found}
        assert paths["/Foretag/Assets/engine-01/rul/rul"]["type"] == "ns=2;s=Types.PredictedLifetimeType"
        assert paths["/Foretag/Assets/engine-01/anomaly/flag"]["type"] == "ns=2;s=Types.PredictedFlagType"
        assert {"/Foretag/Assets/engine-01/rul/rul/LowerBound", "/Foretag/Models/rul/LastRun"} <= paths.keys()
        assert rul["units"] == {
            "id": 16951,
            "text": "cycles",
            "namespace": "http://www.opcfoundation.org/UA/units/un/cefact",
        }
        assert rul["range"] == {"low": 0, "high": 125}
        assert nox["units"]["id"] == 18256
        assert flag["units"] is None
        assert rul["status"] == Status.BAD_WAITING_FOR_INITIAL_DATA
        assert rul["value"] is None

        watching = asyncio.create_task(second_stack(sink.endpoint, "subscribe", _node(_RUL.name), "20", "4"))
        sent: dict[str, tuple[float, int]] = {}
        for number in range(1000):
            outcome = _outcome(100.0 - number, Status.UNCERTAIN_SUB_NORMAL if number % 2 else Status.GOOD)
            await sink.publish(outcome)
            (prediction,) = outcome.predictions
            sent[_milliseconds(prediction.as_of)] = (100.0 - number, prediction.status)
            done, _ = await asyncio.wait((watching,), timeout=0.05)
            if done:
                break
        seen = [line for line in await watching if line["value"] is not None]
        assert len({line["value"] for line in seen}) >= 3, seen
        for line in seen:
            assert sent[line["source_time"]] == (line["value"], line["status"])


def _milliseconds(time: datetime) -> str:
    """As JavaScript shows it."""
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"


async def test_browses_in_pages_and_finds_the_same(second_stack, tmp_path):
    async with _served(tmp_path, "None") as sink:
        whole, paged = await asyncio.gather(
            *(second_stack(sink.endpoint, "browse", _node("Foretag"), *size) for size in ((), ("3",)))
        )
    assert len(whole) > 50
    assert paged == whole


async def test_reads_lives_states_forecasts_and_the_assets_health(second_stack, tmp_path):
    state = OutputTag("kind", "engine-01", "state", "", 0.0, 1.0, "", Meaning.STATE, ("fine", "worn"))
    load = OutputTag("load", "engine-01", "load", "kWh", 0.0, 50.0, "", Meaning.FORECAST)
    now = datetime.now(UTC)
    hours = [now + timedelta(hours=ahead) for ahead in (1, 4)]
    given = [
        Prediction(tag, 3, now, target, hours[-1], value, None, None, Status.GOOD, 1.0, 7)
        for tag, value, target in ((_RUL, 0.0, now), (state, 1.0, now), (load, 10.0, hours[0]), (load, 12.5, hours[1]))
    ]
    parts = ".StartValue", ".Indication", "", ".ValueAsText", ".EnumValues", "", ".TargetTimes"
    owners = _RUL, _RUL, state, state, state, load, load
    names = [f"{tag.name}{part}" for tag, part in zip(owners, parts, strict=True)]
    async with _served(tmp_path, "None", tags=(_RUL, state, load)) as sink:
        await sink.publish(replace(_outcome(1.0), predictions=tuple(given)))
        found = await second_stack(
            sink.endpoint, "read", *map(_node, (*names, "Foretag.Assets.engine-01.DeviceHealth"))
        )
    start, indication, index, text, values, loads, targets, health = [line["value"] for line in found]
    assert (start, indication, index, text["text"]) == (125, "ns=3;i=476", 1, "worn")
    assert [value["displayName"]["text"] for value in values] == ["fine", "worn"]
    assert list(loads.values() if isinstance(loads, dict) else loads) == [10.0, 12.5]
    assert targets == [_milliseconds(time) for time in hours]
    assert health == 1, "FAILURE: nothing is left"


async def test_an_open_channel_is_refused_where_only_secured_ones_are_offered(second_stack, tmp_path):
    async with _served(tmp_path, "Basic256Sha256_SignAndEncrypt") as sink:
        (answer,) = await second_stack(sink.endpoint, "read", _node(_RUL.name))
    assert "error" in answer


async def test_a_client_is_let_in_once_its_certificate_is_trusted(second_stack, tmp_path, certificate):
    async with _served(tmp_path, "Basic256Sha256_SignAndEncrypt") as sink:
        asked = second_stack, sink.endpoint, certificate.cert_path, certificate.key_path
        (stranger,) = await _read_securely(*asked)
        assert "error" in stranger
        (rejected,) = pki.rejected_folder(tmp_path).iterdir()
        pki.trust(tmp_path, rejected.read_bytes())
        await sink.publish(_outcome(88.0))
        (friend,) = await _read_securely(*asked)
    assert friend["value"] == 88.0
    assert friend["status"] == Status.GOOD


async def _read_securely(second_stack: Any, endpoint: str, certificate: Path, key: Path) -> Any:
    return await second_stack(endpoint, "read", _node(_RUL.name), certificate=certificate, key=key)


@pytest.mark.parametrize(("kind", "size"), [("absolute", "12.5"), ("percent", "10")])
async def test_a_deadband_keeps_small_changes_from_it(second_stack, tmp_path, kind, size):
    """Percent is of the EURange: 10 % of 0 to 125 are 12.5."""
    async with _served(tmp_path, "None") as sink:
        await sink.publish(_outcome(100.0))
        watching = asyncio.create_task(
            second_stack(sink.endpoint, "subscribe", _node(_RUL.name), "20", "3", kind, size)
        )
        for value in itertools.cycle((100.0, 95.0, 88.0, 87.0, 80.0, 75.5, 74.9, 100.0)):
            await sink.publish(_outcome(value))
            if (await asyncio.wait((watching,), timeout=0.1))[0]:
                break
        values = [line["value"] for line in await watching]
    assert len(values) == 3, values
    assert all(abs(after - before) > 12.5 for before, after in itertools.pairwise(values)), values


@pytest.mark.parametrize(
    ("name", "refused"),
    [(f"{_RUL.name}.LowerBound", "BadMonitoredItemFilterUnsupported"), (_FLAG.name, "BadFilterNotAllowed")],
    ids=["no range", "no number"],
)
async def test_a_percent_deadband_on_what_can_not_have_one_is_refused(second_stack, tmp_path, name, refused):
    async with _served(tmp_path, "None") as sink:
        *_, answer = await second_stack(sink.endpoint, "subscribe", _node(name), "3", "1", "percent", "10")
    assert refused in answer.get("error", ""), answer


async def test_a_set_point_is_approved_by_an_operator_and_by_nobody_else(second_stack, tmp_path, certificate):
    users: Any = [
        {"name": name, "role": role, "password_hash": hashed(f"{name}'s own")}
        for name, role in (("otto", "operator"), ("olga", "observer"))
    ]
    publish = PublishConfig.model_validate({"endpoint": "opc.tcp://127.0.0.1:0/foretag", "users": users})
    async with _plant() as (port, value_of):
        rule: Any = {
            "source": "plant", "model": "rul", "output": "rul", "low": 0.0, "high": 200.0, "approval": True,
            "node": "nsu=urn:plant;s={asset}.setpoint",
        }  # fmt: skip
        terms = Terms("plant", f"opc.tcp://127.0.0.1:{port}", tmp_path / "pki", "urn:foretag", "None", "None")
        config = WriteBackConfig.model_validate({"enabled": True, "rules": [rule]})
        back = WriteBack(config, "plant", Connection(terms), Diagnostics())
        sink = OpcUaSink(publish, tmp_path, Diagnostics(), write_backs=[back])
        pki.trust(tmp_path, certificate.cert_path.read_bytes())
        async with back.open([_RUL]), sink.open([_RUL]):
            advice = _node(f"{_RUL.name}.Advice")
            keys: Any = {"certificate": certificate.cert_path, "key": certificate.key_path}

            async def approve(name: str, value: str) -> str:
                asked = "call", advice, "Approve", value
                (answer,) = await second_stack(sink.endpoint, *asked, user=(name, f"{name}'s own"), **keys)
                return str(answer["status"])

            for each in (sink, back):
                await each.publish(_outcome(71.5))
            assert await approve("olga", "71.5") == "BadUserAccessDenied"
            assert await approve("otto", "70") == "BadInvalidArgument"
            assert value_of() == 0.0
            assert await approve("otto", "71.5") == "Good"
            async with asyncio.timeout(15):
                while value_of() != 71.5:
                    await asyncio.sleep(0.02)
            read = await second_stack(
                sink.endpoint, "read", f"{advice}.State", f"{advice}.Value", user=("olga", "olga's own"), **keys
            )
            assert [line["value"] for line in read] == ["written", 71.5]
            assert await approve("otto", "71.5") == "BadInvalidState"


@contextlib.asynccontextmanager
async def _plant() -> AsyncIterator[tuple[int, Callable[[], Any]]]:
    """A server with a set-point; its port, and what reads the set-point."""
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    node = ua.NodeId(ua.String("engine-01.setpoint"), ua.Int16(await server.register_namespace("urn:plant")))
    await (await server.nodes.objects.add_variable(node, "setpoint", 0.0)).set_writable()

    def value() -> Any:
        found = server.iserver.aspace.read_attribute_value(node, ua.AttributeIds.Value).Value
        return found.Value if found is not None else None

    async with server:
        assert server.bserver is not None
        yield server.bserver.port, value
