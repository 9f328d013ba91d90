"""Methods of our server: what a person has the service do, over a secured socket, with real models behind it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua

from plugin.acting import Acting
from plugin.domain import LabelKind, RunKind, RunResult
from plugin.errors import ConfigError, ModelError, StoreError
from tests.integration.methods_house import ASSET, MODEL, House, housed
from tests.integration.model_bench import NOW, SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SPAN = timedelta(days=3650)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with housed(tmp_path_factory.mktemp("methods")) as made:
        yield made


async def test_a_model_is_trained_promoted_rolled_back_and_scored(house):
    store = house.bench.store
    async with house.session("ed") as ed:
        assert (await ed.call(MODEL, "ScoreNow")).StatusCode.name == "BadInvalidState"  # there is no version yet
        for version in (1, 2):
            run = await house.ends(await ed.says(MODEL, "Retrain"))
            assert (run.kind, run.result, run.version) == (RunKind.TRAIN, RunResult.DONE, version)
        assert await ed.says(MODEL, "Promote", ua.Variant(2, ua.VariantType.UInt32)) == 2
        again = await ed.call(MODEL, "Promote", ua.Variant(2, ua.VariantType.UInt32))
        assert again.StatusCode.name == "BadInvalidState"
        assert await ed.says(MODEL, "RollBack") == 1
        key = await ed.says(MODEL, "ScoreNow")
        (scored,) = [run for run in await store.runs("odd") if run.id == key]
        assert scored.kind is RunKind.SCORE
    entries = [(e.user, e.origin, e.action, e.subject) for e in house.audit if e.action.startswith("call")]
    assert entries == [("ed", "opcua", f"call {method}", "odd") for method in (
        "ScoreNow", "Retrain", "Retrain", "Promote", "Promote", "RollBack", "ScoreNow"
    )]  # fmt: skip
    told = [entry.after for entry in house.audit if entry.action == "call Promote"]
    assert told[0] == {"version": 2}
    assert "in force already" in told[1]["refused"]
    promoted = await store.audit(action="promote")
    assert {(entry.user, entry.origin) for entry in promoted if entry.subject == "odd-2"} == {("ed", "opcua")}


@pytest.mark.parametrize("part", ["versions", "write_run"])
async def test_a_score_while_the_database_is_away_is_refused_for_that(house, monkeypatch, part):
    """And not for want of a version, which nobody knows then."""

    async def away(*_: object, **__: object) -> None:
        raise StoreError("the database is away")

    async with house.session("ed") as ed:
        monkeypatch.setattr(house.bench.store, part, away)
        assert (await ed.call(MODEL, "ScoreNow")).StatusCode.name == "BadResourceUnavailable"
    asked = [entry for entry in house.audit if entry.action == "call ScoreNow"]
    assert asked[-1].after["refused"] == "the database is away"


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("olga", set[str]()),
        ("otto", {"ScoreNow", "Label"}),
        ("ada", {"ScoreNow", "Label", "Retrain", "Promote", "RollBack", "Reload"}),
    ],
)
async def test_a_method_is_for_those_whose_role_may(house, user, allowed):
    async with house.session(user) as person:
        refused = {
            method
            for method in ("ScoreNow", "Label", "Retrain", "Promote", "RollBack", "Reload")
            if (await person.call("nowhere", method)).StatusCode.name == "BadUserAccessDenied"
        }
    assert refused == {"ScoreNow", "Label", "Retrain", "Promote", "RollBack", "Reload"} - allowed


def _label(kind: Any = "failure", start: Any = NOW, end: Any = None, note: Any = "bearing") -> list[ua.Variant]:
    text, time = ua.VariantType.String, ua.VariantType.DateTime
    return [ua.Variant(kind, text), ua.Variant(start, time), ua.Variant(end or ua.get_win_epoch(), time),
            ua.Variant(note, text)]  # fmt: skip


async def test_an_operator_says_what_happened_to_an_asset(house):
    async with house.session("otto") as otto:
        key = await otto.says(ASSET, "Label", *_label())
        lasting = await otto.says(ASSET, "Label", *_label("normal", end=NOW + timedelta(seconds=SECONDS)))
    labels = {label.id: label for label in await house.bench.store.labels("pump-1", NOW - _SPAN, NOW + _SPAN)}
    told = labels[key]
    assert (told.kind, told.start, told.end, told.note, told.user) == (
        LabelKind.FAILURE, NOW, None, "bearing", "otto"
    )  # fmt: skip
    assert labels[lasting].end == NOW + timedelta(seconds=SECONDS)
    (entry, *_) = await house.bench.store.audit(action="label")
    assert (entry.user, entry.origin) == ("otto", "opcua")


@pytest.mark.parametrize(
    ("owner", "given", "code"),
    [
        (ASSET, _label("verdict"), "BadInvalidArgument"),
        (ASSET, _label("explosion"), "BadInvalidArgument"),
        (ASSET, _label(start=datetime.now(UTC) + timedelta(days=1)), "BadInvalidArgument"),
        (ASSET, _label(end=NOW - timedelta(days=1)), "BadInvalidArgument"),
        (ASSET, _label(note="x" * 1001), "BadInvalidArgument"),
        (ASSET, _label("normal", end=datetime.now(UTC) + timedelta(days=1)), "BadInvalidArgument"),
        (ASSET, _label(note="no text\0"), "BadInvalidArgument"),
        (ASSET, _label(note="no UTF-8 \udcff"), "BadInvalidArgument"),
        (ASSET, _label()[:3], "BadArgumentsMissing"),
        (ASSET, [*_label(), ua.Variant(1)], "BadTooManyArguments"),
        (ASSET, [ua.Variant(1), *_label()[1:]], "BadInvalidArgument"),
        (MODEL, _label(), "BadMethodInvalid"),
    ],
)
async def test_a_label_that_can_not_be_is_refused(house, owner, given, code):
    before = await house.bench.store.labels("pump-1", NOW - _SPAN, NOW + _SPAN)
    async with house.session("otto") as otto:
        assert (await otto.call(owner, "Label", *given)).StatusCode.name == code
    assert await house.bench.store.labels("pump-1", NOW - _SPAN, NOW + _SPAN) == before


async def test_an_administrator_reloads_the_configuration(house):
    async with house.session("ada") as ada:
        (line,) = await ada.says("Foretag.Server", "Reload")
        assert "e1.T24" in line
        house.faults.append(ConfigError("foretag.toml", []))
        assert (await ada.call("Foretag.Server", "Reload")).StatusCode.name == "BadConfigurationError"
    assert house.reloads == ["ada opcua"] * 2


async def test_methods_say_what_they_take_and_give(house):
    async with house.session("olga") as olga:
        methods = {
            (await node.read_browse_name()).Name: node
            for node in await olga.client.get_node(olga.id(MODEL)).get_methods()
        }
        assert set(methods) == {"ScoreNow", "Retrain", "Promote", "RollBack"}
        (argument,) = await (await methods["Promote"].get_child("0:InputArguments")).read_value()
        assert (argument.Name, argument.DataType) == ("Version", ua.NodeId(ua.Int32(ua.ObjectIds.UInt32)))
        assert argument.Description.Text
        (answer,) = await (await methods["Promote"].get_child("0:OutputArguments")).read_value()
        assert answer.Name == "Version"


async def test_what_is_starting_or_stopping_refuses(house):
    stopped = Acting(house.bench.store, house.folder / "models", [], house.acting.reload, house.bench.diagnostics)
    for ask in (stopped.score("odd"), stopped.retrain("odd"), stopped.promote("odd", 1, "ed")):
        with pytest.raises(ModelError, match=r"starting or stopping|not configured"):
            await ask
