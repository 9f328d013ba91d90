"""Results written into a plant's server, over a real socket."""

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager

from plugin import channel, pki
from plugin.channel import Terms
from plugin.diagnostics import Diagnostics
from plugin.domain import Audit, Flag, Meaning, Outage, Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.errors import PublishError
from plugin.publish import writeback
from plugin.publish.config import PublishConfig, WriteBackConfig, WriteRule
from plugin.publish.server import OpcUaSink
from plugin.publish.writeback import Connection, WriteBack

pytestmark = pytest.mark.asyncio(loop_scope="module")

_URI = "urn:plant"
_WAIT = 15.0
_TAGS = tuple(OutputTag("rul", f"engine-{number:02}", "rul", "cycles", 0.0, 125.0, "") for number in range(1, 7))
_FLAG = OutputTag("rul", "engine-01", "flag", "", 0.0, 1.0, "", Meaning.FLAG)
_KINDS = {
    "engine-01.rul": ua.Variant(0.0, ua.VariantType.Double),
    "engine-02.rul": ua.Variant(0.0, ua.VariantType.Float),
    "engine-03.rul": ua.Variant(0, ua.VariantType.Int16),
    "engine-04.rul": ua.Variant("", ua.VariantType.String),
    # engine-05 has no node
    "engine-06.rul": ua.Variant(0.0, ua.VariantType.Double),
    "engine-01.flag": ua.Variant(False, ua.VariantType.Boolean),
}


class _Plant:
    """A plain server with advisory nodes; ``refuses`` says what it does not take in a write.

    The library does not tell a status that was not sent from a Good one: ``status`` stands for a server that takes the
    third form that is tried.
    """

    def __init__(self, server: Server, namespace: int) -> None:
        self.server = server
        self.namespace = namespace
        self.refuses: set[str] = set()
        self.scale = 0.0
        """Where it is not 0, what is kept is a multiple of it."""
        self.fail: dict[str, list[int]] = {}
        """By node: what its next writes are answered with."""
        self._attempts: Counter[ua.NodeId] = Counter()
        self._changed = asyncio.Event()
        self._write = server.iserver.attribute_service.write
        server.iserver.attribute_service.write = self._receive  # type: ignore[assignment, method-assign]

    async def _receive(self, params: ua.WriteParameters, user: User) -> list[ua.StatusCode]:
        if user.role is UserRole.Admin:  # the server's own clock
            return await self._write(params, user)
        results = []
        for item in params.NodesToWrite:
            self._attempts[item.NodeId] += 1
            times = "times" in self.refuses and item.Value.SourceTimestamp is not None
            status = "status" in self.refuses and self._attempts[item.NodeId] < 3
            one = ua.WriteParameters([item])
            if self.fail.get(item.NodeId.Identifier):
                results.append(ua.StatusCode(ua.UInt32(self.fail[item.NodeId.Identifier].pop(0))))
                continue
            if self.scale and item.Value.Value is not None:
                kept = ua.Variant(round(item.Value.Value.Value / self.scale) * self.scale, item.Value.Value.VariantType)
                one = ua.WriteParameters([dataclasses.replace(item, Value=dataclasses.replace(item.Value, Value=kept))])
            refused = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadWriteNotSupported))
            results += [refused] if times or status else await self._write(one, user)
        self._changed.set()
        return results

    def refuse(self, *what: str) -> None:
        self.refuses = set(what)
        self.scale, self.fail = 0.0, {}
        self._attempts.clear()

    def read(self, name: str) -> ua.DataValue:
        node = ua.NodeId(ua.String(name), ua.Int16(self.namespace))
        return self.server.iserver.aspace.read_attribute_value(node, ua.AttributeIds.Value)

    def value(self, name: str) -> Any:
        data = self.read(name)
        return data.Value.Value if data.Value is not None else None

    def set(self, name: str, value: float, since: datetime) -> None:
        """As the plant itself does."""
        node = ua.NodeId(ua.String(name), ua.Int16(self.namespace))
        data = ua.DataValue(ua.Variant(value, _KINDS[name].VariantType), ua.StatusCode(), since)  # type: ignore[arg-type]
        attribute = self.server.iserver.aspace[node].attributes[ua.AttributeIds.Value]
        attribute.value = data

    @property
    def sessions(self) -> int:
        return len(self.server.bserver.clients) if self.server.bserver is not None else 0

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(_WAIT):
            while not seen():
                self._changed.clear()
                await self._changed.wait()


class _Everybody(UserManager):
    """Lets all clients in, as this."""

    def __init__(self, role: UserRole) -> None:
        self._user = User(role=role)

    def get_user(self, *_: Any, **__: Any) -> User:
        return self._user


@asynccontextmanager
async def _plant(port: int = 0, *, pad: int = 0, role: UserRole = UserRole.User) -> AsyncIterator[_Plant]:
    """``pad``: namespaces registered before ours, which moves its index."""
    server = Server(user_manager=_Everybody(role))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for number in range(pad):
        await server.register_namespace(f"urn:other:{number}")
    namespace = await server.register_namespace(_URI)
    for name, value in _KINDS.items():
        node = await server.nodes.objects.add_variable(ua.NodeId(ua.String(name), ua.Int16(namespace)), name, value)
        await node.set_writable()
    async with server:
        yield _Plant(server, namespace)


def _open_connection(endpoint: str, folder: Path) -> Connection:
    return Connection(Terms("plant", endpoint, folder, "urn:foretag", "None", "None", timeout=5.0))


def _endpoint(plant: _Plant) -> str:
    assert plant.server.bserver is not None
    return f"opc.tcp://127.0.0.1:{plant.server.bserver.port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant() -> AsyncIterator[_Plant]:
    async with _plant() as plant:
        yield plant


@pytest.fixture(autouse=True)
def _takes_everything(plant):
    plant.refuse()


async def _until(seen: Callable[[], bool | int]) -> None:
    """For what has no event of its own: counters and logs."""
    async with asyncio.timeout(_WAIT):
        while not seen():
            await asyncio.sleep(0.01)


class _Desk:
    """An open write-back, and what it counted."""

    def __init__(self, sink: WriteBack, diagnostics: Diagnostics, rows: list[Audit]) -> None:
        self.sink = sink
        self.rows = rows
        self._diagnostics = diagnostics

    def lost(self, cause: str) -> float:
        return self._diagnostics.value("publish_failures_total", sink="write-back:plant", cause=cause)

    @property
    def written(self) -> float:
        return self._diagnostics.value("published_total", sink="write-back:plant")

    async def until(self, seen: Callable[[], bool]) -> None:
        await _until(seen)


def _rule(output: str = "rul", **changes: Any) -> WriteRule:
    rule = WriteRule(
        source="plant", model="rul", output=output, node=f"nsu={_URI};s={{asset}}.{{output}}", low=0.0, high=150.0,
        uncertain="write",
    )  # fmt: skip
    return rule.model_copy(update=changes)


@asynccontextmanager
async def _desk(
    endpoint: str,
    tmp_path: Path,
    *rules: WriteRule,
    tags: Sequence[OutputTag] = _TAGS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    **config: Any,
) -> AsyncIterator[_Desk]:
    diagnostics = Diagnostics()
    connection = _open_connection(endpoint, tmp_path)
    section = WriteBackConfig(enabled=True, rules=rules or (_rule(),), **config)
    rows: list[Audit] = []

    async def record(*entries: Audit) -> None:
        rows.extend(entries)

    sink = WriteBack(section, "plant", connection, diagnostics, now=now, record=record)
    async with sink.open([*tags, _FLAG]):
        yield _Desk(sink, diagnostics, rows)


def _prediction(asset: int, value: float | None, status: int = Status.GOOD, fresh: float = 300.0) -> Prediction:
    now = datetime.now(UTC)
    until = now + timedelta(seconds=fresh)
    return Prediction(_TAGS[asset - 1], 3, now, until, until, value, None, None, status, 1.0, 9)


def _outcome(*predictions: Prediction, flags: tuple[Flag, ...] = ()) -> Outcome:
    return Outcome(Run(9, "rul", RunKind.SCORE, datetime.now(UTC)), predictions, flags)


async def test_a_result_arrives_with_value_status_and_time_and_leaves_a_line_in_the_audit(plant, tmp_path, caplog):
    caplog.set_level(logging.INFO, "foretag.audit")
    async with _desk(_endpoint(plant), tmp_path) as desk:
        prediction = _prediction(1, 81.5, Status.UNCERTAIN_SUB_NORMAL)
        await desk.sink.publish(_outcome(prediction))
        await desk.until(lambda: desk.written == 1)
    data = plant.read("engine-01.rul")
    assert (data.Value.Value, data.StatusCode.value) == (81.5, Status.UNCERTAIN_SUB_NORMAL)
    assert data.SourceTimestamp == prediction.as_of
    (line,) = [record.getMessage() for record in caplog.records if record.name == "foretag.audit"]
    assert line == (
        f"write source=plant node=nsu=urn:plant;s=engine-01.rul value=81.5 status=0x40950000 "
        f"as_of={prediction.as_of.isoformat()} from=engine-01.rul.rul version=3 run=9 result=Good"
    )


async def test_each_node_gets_its_own_type_and_what_it_cant_hold_is_counted(plant, tmp_path):
    flag = Flag("rul", "engine-01", 3, datetime.now(UTC), True, 4.0, 3.0, Status.GOOD, 9)
    async with _desk(_endpoint(plant), tmp_path, _rule(), _rule("flag")) as desk:
        await desk.sink.publish(_outcome(*(_prediction(n, 80.6) for n in (2, 3, 4, 5, 6)), flags=(flag,)))
        await desk.until(lambda: desk.written == 4 and desk.lost("BadNodeIdUnknown") == 1)
        assert desk.lost("BadTypeMismatch") == 1
    assert plant.value("engine-02.rul") == pytest.approx(80.6, rel=1e-7)
    assert plant.value("engine-03.rul") == 81
    assert plant.value("engine-06.rul") == 80.6
    assert plant.value("engine-01.flag") is True


async def test_a_node_that_appears_later_is_written_then(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path) as desk:
        await desk.sink.publish(_outcome(_prediction(5, 1.0)))
        await desk.until(lambda: desk.lost("BadNodeIdUnknown") == 1)
        node = ua.NodeId(ua.String("engine-05.rul"), ua.Int16(plant.namespace))
        late = await plant.server.nodes.objects.add_variable(node, "late", 0.0)
        await late.set_writable()
        await desk.sink.publish(_outcome(_prediction(5, 2.0)))
        await desk.until(lambda: desk.written == 1)
        await late.delete()


@pytest.mark.parametrize(
    ("prediction", "cause"),
    [
        (_prediction(1, 151.0), "out_of_range"),
        (_prediction(1, -0.1), "out_of_range"),
        (_prediction(1, float("nan")), "out_of_range"),
        (_prediction(1, None, Status.BAD_NO_DATA), "bad"),
        (_prediction(1, 5.0, Status.BAD_NO_DATA), "bad"),
        (_prediction(1, 5.0, Status.UNCERTAIN), "uncertain"),
        (_prediction(1, 5.0, fresh=-1.0), "stale"),
    ],
)
async def test_what_a_rule_does_not_allow_is_refused_and_counted(plant, tmp_path, prediction, cause):
    async with _desk(_endpoint(plant), tmp_path, _rule(uncertain="skip")) as desk:
        before = plant.value("engine-01.rul")
        await desk.sink.publish(_outcome(prediction, _prediction(6, 7.0)))
        await desk.until(lambda: desk.written == 1 and desk.lost(cause) == 1)
        assert plant.value("engine-01.rul") == before


async def test_what_befalls_many_nodes_at_once_is_one_line_of_the_log(plant, tmp_path, caplog):
    async with _desk(_endpoint(plant), tmp_path) as desk:
        for _ in range(2):
            await desk.sink.publish(_outcome(*(_prediction(number, 151.0) for number in (1, 2, 3))))
        await desk.until(lambda: desk.lost("out_of_range") == 6 and _told(caplog, "not written") == 1)
    assert _told(caplog, "engine-01.rul and 2 more: out_of_range") == 1


async def test_outputs_that_join_later_are_written_too(plant, tmp_path):
    sink = WriteBack(
        WriteBackConfig(enabled=True, rules=(_rule(),)),
        "plant",
        _open_connection(_endpoint(plant), tmp_path),
        Diagnostics(),
    )
    async with sink.open([]):
        await sink.extend(_TAGS[:1])
        await sink.extend(_TAGS[:1])  # known already
        await sink.publish(_outcome(_prediction(1, 33.0)))
        async with asyncio.timeout(20):
            while plant.value("engine-01.rul") != 33.0:
                await asyncio.sleep(0.02)


async def test_what_no_rule_names_is_not_written(plant, tmp_path):
    rules = (_rule(assets="engine-06"), _rule("flag", source="another"))
    flag = Flag("rul", "engine-01", 3, datetime.now(UTC), False, 4.0, 3.0, Status.GOOD, 9)
    async with _desk(_endpoint(plant), tmp_path, *rules) as desk:
        untouched = [plant.read(name) for name in ("engine-01.rul", "engine-01.flag")]
        await desk.sink.publish(_outcome(_prediction(1, 12.0), _prediction(6, 13.0), flags=(flag,)))
        await desk.until(lambda: desk.written == 1)
        assert [plant.read(name) for name in ("engine-01.rul", "engine-01.flag")] == untouched
    assert plant.value("engine-06.rul") == 13.0


async def test_a_server_that_takes_no_times_gets_value_and_status(plant, tmp_path):
    plant.refuse("times")
    async with _desk(_endpoint(plant), tmp_path) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 21.0, Status.UNCERTAIN)))
        await desk.until(lambda: desk.written == 1)
    data = plant.read("engine-01.rul")
    assert (data.Value.Value, data.StatusCode.value, data.SourceTimestamp) == (21.0, Status.UNCERTAIN, None)


async def test_a_server_that_takes_no_status_never_shows_an_uncertain_value_as_good(plant, tmp_path):
    plant.refuse("times", "status")
    async with _desk(_endpoint(plant), tmp_path) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 31.0), _prediction(6, 32.0, Status.UNCERTAIN)))
        await desk.until(lambda: desk.written == 1 and desk.lost("StatusNotWritable") == 1)
    assert plant.value("engine-01.rul") == 31.0
    assert plant.value("engine-06.rul") != 32.0


async def test_a_dry_run_writes_nothing_and_says_what_it_would(plant, tmp_path, caplog):
    caplog.set_level(logging.INFO, "foretag.audit")
    async with _desk(_endpoint(plant), tmp_path, dry_run=True) as desk:
        before = plant.value("engine-01.rul")
        await desk.sink.publish(_outcome(_prediction(1, 99.0)))
        await desk.until(lambda: any("dry-run" in record.getMessage() for record in caplog.records))
        assert plant.value("engine-01.rul") == before
        assert desk.written == 0


async def test_a_value_that_nobody_renews_grows_uncertain_at_the_plant_too(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path) as desk:
        prediction = _prediction(1, 44.0, fresh=1.0)
        await desk.sink.publish(_outcome(prediction))
        await desk.until(lambda: desk.written == 2)
    data = plant.read("engine-01.rul")
    assert (data.Value.Value, data.StatusCode.value) == (44.0, Status.UNCERTAIN_LAST_USABLE_VALUE)
    assert data.SourceTimestamp == prediction.valid_until


async def test_what_was_written_from_a_lost_source_grows_uncertain_at_the_plant_too(plant, tmp_path):
    cut_off = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
    kept = _rule(assets="engine-02", uncertain="skip")
    async with _desk(_endpoint(plant), tmp_path, _rule(assets="engine-01"), kept) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 71.0), _prediction(2, 72.0)))
        await desk.until(lambda: desk.written == 2)
        await desk.sink.degrade(Outage(frozenset({"plant"}), 1, frozenset(tag.name for tag in _TAGS)))
        await plant.until(lambda: plant.read("engine-01.rul").StatusCode.value == cut_off)
        assert plant.value("engine-01.rul") == 71.0
        assert plant.read("engine-02.rul").StatusCode.value == Status.GOOD, "the rule writes nothing Uncertain"
        await desk.sink.publish(_outcome(_prediction(1, 70.0)))
        await plant.until(lambda: plant.value("engine-01.rul") == 70.0)
        assert plant.read("engine-01.rul").StatusCode.value == Status.GOOD
        assert desk.lost("uncertain") == 0


async def test_within_the_minimum_interval_the_newest_value_waits(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path, _rule(minimum_interval=timedelta(seconds=0.5))) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 1.0)))
        await desk.until(lambda: desk.written == 1)
        for value in (2.0, 3.0, 4.0):
            await desk.sink.publish(_outcome(_prediction(1, value)))
        await desk.until(lambda: desk.written == 2)
        assert plant.value("engine-01.rul") == 4.0
        assert desk.lost("superseded") == 0


async def test_an_absent_plant_holds_nothing_up_and_gets_the_newest_value_when_it_is_back(tmp_path):
    async with _plant() as first:
        port = int(_endpoint(first).rpartition(":")[2])
        async with _desk(_endpoint(first), tmp_path) as desk:
            await desk.sink.publish(_outcome(_prediction(1, 50.0)))
            await desk.until(lambda: desk.written == 1)
            await first.server.stop()
            for value in (60.0, 61.0, 62.0):
                await desk.sink.publish(_outcome(_prediction(1, value)))
            async with _plant(port, pad=3) as second:
                await desk.until(lambda: second.value("engine-01.rul") == 62.0)
            assert desk.lost("superseded") >= 1


async def test_two_outputs_for_one_node_are_refused_at_the_start(plant, tmp_path):
    rule = _rule(node=f"nsu={_URI};s=engine-01.rul")
    with pytest.raises(PublishError, match="two outputs"):
        async with _desk(_endpoint(plant), tmp_path, rule):
            pass


async def test_nothing_is_written_unless_it_is_enabled(plant, tmp_path):
    section = WriteBackConfig(rules=(_rule(),))
    sink = WriteBack(section, "plant", _open_connection(_endpoint(plant), tmp_path), Diagnostics())
    before = plant.value("engine-01.rul"), plant.sessions
    async with sink.open(_TAGS):
        await sink.publish(_outcome(_prediction(1, 17.0)))
        await asyncio.sleep(0)
        assert (plant.value("engine-01.rul"), plant.sessions) == before
        sink.switch(section.model_copy(update={"enabled": True}))
        await sink.publish(_outcome(_prediction(1, 18.0)))
        await plant.until(lambda: plant.value("engine-01.rul") == 18.0)


async def test_the_switch_stops_all_writing_at_once_and_starts_it_again(plant, tmp_path):
    rule = _rule(minimum_interval=timedelta(hours=1))
    async with _desk(_endpoint(plant), tmp_path, rule, _rule("flag")) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 1.0)))
        await desk.until(lambda: desk.written == 1)
        await desk.sink.publish(_outcome(_prediction(1, 2.0)))  # waits for the interval
        section = WriteBackConfig(enabled=False)
        desk.sink.switch(section)
        assert desk.lost("switched_off") == 1
        await desk.until(lambda: plant.sessions == 0)
        await desk.sink.publish(_outcome(_prediction(6, 3.0)))
        desk.sink.switch(WriteBackConfig(enabled=True))
        await desk.sink.publish(_outcome(_prediction(6, 4.0)))
        await desk.until(lambda: desk.written == 2)
    assert plant.value("engine-06.rul") == 4.0
    assert plant.value("engine-01.rul") == 1.0
    rows = [(entry.action, entry.after["result"]) for entry in desk.rows if entry.subject == "engine-01.rul.rul"]
    assert rows == [("write", "Good"), ("write ends", "Good")]


async def test_no_faster_than_the_rule_allows(plant, tmp_path):
    """60 a minute: one a second, counted from what was written last."""
    now = datetime.now(UTC)
    clock = [now]
    async with _desk(_endpoint(plant), tmp_path, _rule(rate=60.0), now=lambda: clock[0]) as desk:

        async def offer(value: float, after: float) -> None:
            clock[0] += timedelta(seconds=after)
            before = desk.written + desk.lost("rate")
            await desk.sink.publish(_outcome(_prediction(2, value, fresh=1000.0)))
            await desk.until(lambda: desk.written + desk.lost("rate") == before + 1)

        plant.set("engine-02.rul", 40.0, now - timedelta(seconds=5))
        await offer(46.0, 0.0)
        assert desk.lost("rate") == 1, "the plant's own value of five seconds ago counts before the first write"
        await offer(44.0, 0.0)
        assert plant.value("engine-02.rul") == 44.0
        await offer(54.5, 10.0)
        assert desk.lost("rate") == 2
        await offer(54.0, 0.0)
        assert plant.value("engine-02.rul") == 54.0


async def test_what_is_read_back_may_differ_by_the_tolerance(plant, tmp_path):
    plant.scale = 0.5  # keeps halves alone
    rules = _rule(assets="engine-01", tolerance=0.25), _rule(assets="engine-06", retries=0)
    async with _desk(_endpoint(plant), tmp_path, *rules) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 10.2), _prediction(6, 10.2)))
        await desk.until(lambda: desk.written == 1 and desk.lost("ReadBackDiffers") == 1)
    assert plant.value("engine-01.rul") == 10.0


async def test_what_may_pass_is_tried_again_and_what_may_not_is_not(plant, tmp_path):
    plant.fail = {"engine-01.rul": [ua.StatusCodes.BadDeviceFailure], "engine-06.rul": [ua.StatusCodes.BadNotWritable]}
    async with _desk(_endpoint(plant), tmp_path) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 61.0), _prediction(6, 62.0)))
        await desk.until(lambda: desk.written == 1 and desk.lost("BadNotWritable") == 1)
        assert desk.lost("BadDeviceFailure") == 0
    assert plant.value("engine-01.rul") == 61.0
    assert plant.value("engine-06.rul") != 62.0


async def test_tries_come_to_an_end(plant, tmp_path):
    plant.fail = {"engine-01.rul": [ua.StatusCodes.BadDeviceFailure] * 3}
    async with _desk(_endpoint(plant), tmp_path, _rule(retries=1)) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 63.0)))
        await desk.until(lambda: desk.lost("BadDeviceFailure") == 1)
    assert len(plant.fail["engine-01.rul"]) == 1, "two tries"


async def test_by_default_an_uncertain_value_is_refused_and_an_old_one_is_marked(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path, _rule(uncertain="mark")) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 46.0, fresh=1.0)))
        await desk.until(lambda: desk.written == 2)
        assert plant.read("engine-01.rul").StatusCode.value == Status.UNCERTAIN_LAST_USABLE_VALUE
        await desk.sink.publish(_outcome(_prediction(1, 47.0, Status.UNCERTAIN_SUB_NORMAL)))
        await desk.until(lambda: desk.lost("uncertain") == 1)
    assert plant.value("engine-01.rul") == 46.0


async def test_a_challengers_results_are_never_written(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path) as desk:
        shadow = Outcome(Run(9, "rul", RunKind.SHADOW, datetime.now(UTC)), (_prediction(1, 3.5),), ())
        await desk.sink.publish(shadow)
        await desk.sink.publish(_outcome(_prediction(6, 3.5)))
        await desk.until(lambda: desk.written == 1)
    assert plant.value("engine-01.rul") != 3.5


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_node_is_made_where_rule_and_server_allow_it(tmp_path, allowed):
    async with _plant(role=UserRole.Admin if allowed else UserRole.User) as plant:
        async with _desk(_endpoint(plant), tmp_path, _rule(create=True, retries=0)) as desk:
            await desk.sink.publish(_outcome(_prediction(5, 75.5)))
            done = (lambda: desk.written == 1) if allowed else (lambda: desk.lost("BadUserAccessDenied") == 1)
            await desk.until(done)
            if not allowed:
                return
            found = plant.read("engine-05.rul").Value
        assert found is not None
        assert (found.Value, found.VariantType) == (75.5, ua.VariantType.Double)


async def test_a_row_is_written_when_the_course_changes_and_not_for_every_value(plant, tmp_path, caplog):
    caplog.set_level(logging.INFO, "foretag.audit")
    clock = [datetime.now(UTC)]
    async with _desk(_endpoint(plant), tmp_path, now=lambda: clock[0]) as desk:
        for number in range(5):
            await desk.sink.publish(_outcome(_prediction(1, 20.0 + number, fresh=3000.0)))
            await desk.until(lambda wanted=number + 1: desk.written == wanted)  # type: ignore[misc]
        clock[0] += timedelta(minutes=2)
        await desk.sink.publish(_outcome(_prediction(1, 151.0, fresh=3000.0)))
    told = [(entry.action, entry.after["result"], entry.after["since"]) for entry in desk.rows]
    assert told == [
        ("write", "Good", {"Good": 1}),
        ("refused", "out_of_range", {"Good": 4, "out_of_range": 1}),
        ("write ends", "out_of_range", {}),
    ]
    lines = [record for record in caplog.records if record.name == "foretag.audit"]
    assert len(lines) == 6, "the file has every one"


def _advised(desk: "_Desk") -> Any:
    (target,) = [target for target in desk.sink.targets if target.advised]
    return target


async def test_a_set_point_is_written_when_an_operator_approves_it_and_not_before(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path, _rule(approval=True)) as desk:
        said: list[str] = []
        desk.sink.tell = lambda _, state: said.append(state)
        await desk.sink.publish(_outcome(_prediction(1, 55.0)))
        target = _advised(desk)
        assert desk.sink.approve(target, 54.0, "otto") == "another value waits"
        assert desk.sink.approve(target, 55.0, "otto") == ""
        await desk.until(lambda: desk.written == 1)
        assert plant.value("engine-01.rul") == 55.0
        assert desk.sink.approve(target, 55.0, "otto") == "nothing waits"
        await desk.sink.publish(_outcome(_prediction(1, 56.0)))
        assert desk.sink.reject(target, "otto") == ""
        await desk.sink.publish(_outcome(_prediction(1, 57.0, fresh=-1.0)))
        assert desk.sink.approve(target, 57.0, "otto") == "expired"
        assert plant.value("engine-01.rul") == 55.0
    assert said[:5] == ["waiting", "approved", "written", "waiting", "rejected"]
    by_otto = [(entry.action, entry.origin) for entry in desk.rows if entry.user == "otto"]
    assert by_otto == [("approve", "opcua"), ("reject", "opcua")]
    (write,) = [entry for entry in desk.rows if entry.action == "write"]
    assert (write.after["value"], write.after["approved_by"]) == (55.0, "otto")


async def test_an_integer_is_not_rounded_out_of_its_range(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path, _rule(high=10.6)) as desk:
        before = plant.value("engine-03.rul")
        await desk.sink.publish(_outcome(_prediction(3, 10.6), _prediction(1, 10.6)))
        await desk.until(lambda: desk.written == 1 and desk.lost("out_of_range") == 1)
        assert (plant.value("engine-01.rul"), plant.value("engine-03.rul")) == (10.6, before)


async def test_an_approval_that_another_one_overtakes_is_on_record(tmp_path):
    async with _desk("opc.tcp://127.0.0.1:1", tmp_path, _rule(approval=True)) as desk:
        for value in (55.0, 56.0):
            await desk.sink.publish(_outcome(_prediction(1, value)))
            assert desk.sink.approve(_advised(desk), value, "otto") == ""
        assert desk.lost("superseded") == 1
    assert [entry.after["result"] for entry in desk.rows][:3] == ["approved", "superseded", "approved"]


async def test_an_advice_expires_on_its_node_also_while_the_plant_is_away(tmp_path):
    async with _desk("opc.tcp://127.0.0.1:1", tmp_path, _rule(approval=True)) as desk:
        config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
        server = OpcUaSink(config, tmp_path / "pki", Diagnostics(), write_backs=[desk.sink])
        async with server.open(_TAGS[:1]):
            await desk.sink.publish(_outcome(_prediction(1, 55.0, fresh=0.2)))
            await desk.until(lambda: desk.lost("stale") == 1)
            async with Client(server.endpoint, timeout=_WAIT) as client:
                name = ua.NodeId(ua.String(f"{_TAGS[0].name}.Advice.Value"), ua.Int16(2))
                found: Any = await client.get_node(name).read_data_value(raise_on_bad_status=False)
    assert (found.StatusCode.name, found.Value.Value) == ("BadNoData", None)


async def test_an_advice_is_withdrawn_when_it_expires_its_source_is_lost_or_writing_is_off(plant, tmp_path):
    async with _desk(_endpoint(plant), tmp_path, _rule(approval=True)) as desk:
        await desk.sink.publish(_outcome(_prediction(1, 55.0, fresh=0.5)))
        await desk.until(lambda: desk.lost("stale") == 1)
        await desk.sink.publish(_outcome(_prediction(1, 56.0)))
        target = _advised(desk)
        await desk.sink.degrade(Outage(frozenset({"plant"}), 1, frozenset(tag.name for tag in _TAGS)))
        assert desk.sink.approve(target, 56.0, "otto") == "nothing waits"
        await desk.sink.publish(_outcome(_prediction(1, 57.0)))
        desk.sink.switch(WriteBackConfig(enabled=False))
        assert desk.sink.approve(target, 57.0, "otto") == "writing is off"
    assert (desk.lost("source_lost"), desk.lost("switched_off"), desk.written) == (1, 1, 0)


def _told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    ours = (record for record in caplog.records if record.name.startswith("plugin.publish"))
    return sum(text in record.getMessage() for record in ours)


@asynccontextmanager
async def _secured(tmp_path: Path) -> AsyncIterator[tuple[_Plant, Connection, bytes]]:
    """A plant with a secured channel, how it is reached, and the certificate that it shows."""
    own = pki.ensure_own_certificate(tmp_path / "plant", "urn:test:plant", ["localhost"])
    server = Server()
    await server.init()
    await server.set_application_uri("urn:test:plant")
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
    await server.load_certificate(own.cert_path)
    await server.load_private_key(own.key_path, format="pem")
    namespace = await server.register_namespace(_URI)
    node = ua.NodeId(ua.String("engine-01.rul"), ua.Int16(namespace))
    await (await server.nodes.objects.add_variable(node, "rul", 0.0)).set_writable()
    async with server:
        plant = _Plant(server, namespace)
        terms = Terms("plant", _endpoint(plant), tmp_path / "ours", "urn:foretag", "Basic256Sha256", "SignAndEncrypt")
        yield plant, Connection(terms), own.cert_path.read_bytes()


async def test_a_plant_that_is_not_trusted_gets_nothing_until_it_is(tmp_path, caplog):
    async with _secured(tmp_path) as (plant, connection, certificate):
        sink = WriteBack(WriteBackConfig(enabled=True, rules=(_rule(),)), "plant", connection, Diagnostics())
        async with sink.open(_TAGS[:1]):
            await sink.publish(_outcome(_prediction(1, 70.0)))
            await _until(lambda: _told(caplog, "is not trusted"))
            assert plant.value("engine-01.rul") == 0.0
            pki.trust(tmp_path / "ours", certificate)
            await plant.until(lambda: plant.value("engine-01.rul") == 70.0)
    assert _told(caplog, "is not trusted") == 1


async def test_a_plant_that_is_trusted_no_longer_gets_nothing_over_the_session_that_stands(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(channel, "REVIEW", 0.05)
    monkeypatch.setattr(writeback, "_ALIVE_SECONDS", 0.05)
    async with _secured(tmp_path) as (plant, connection, certificate):
        file, diagnostics = pki.trust(tmp_path / "ours", certificate), Diagnostics()
        sink = WriteBack(WriteBackConfig(enabled=True, rules=(_rule(),)), "plant", connection, diagnostics)
        async with sink.open(_TAGS[:1]):
            await sink.publish(_outcome(_prediction(1, 70.0)))
            await plant.until(lambda: plant.value("engine-01.rul") == 70.0)
            file.unlink()
            await _until(lambda: _told(caplog, "is not trusted"))
            await sink.publish(_outcome(_prediction(1, 60.0)))
            await _until(lambda: diagnostics.total("reconnects_total") >= 2)
        assert plant.value("engine-01.rul") == 70.0


@pytest.mark.parametrize("channel", [("None", "SignAndEncrypt"), ("Basic256Sha256", "Sign")])
async def test_a_password_never_goes_over_an_open_channel(plant, tmp_path, caplog, channel):
    terms = Terms("plant", _endpoint(plant), tmp_path, "urn:foretag", *channel)
    connection = Connection(terms, user="operator", password=lambda: "secret")
    assert "secret" not in repr(connection)
    sink = WriteBack(WriteBackConfig(enabled=True, rules=(_rule(),)), "plant", connection, Diagnostics())
    async with sink.open(_TAGS):
        await _until(lambda: _told(caplog, "encrypted channel"))
    assert "secret" not in caplog.text
