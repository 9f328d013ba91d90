"""Methods of our server, called by people of every role with another vendor's stack."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from plugin import pki
from plugin.domain import LabelKind, RunKind
from tests.integration.methods_house import ASSET, MODEL, PASSWORD, House, housed
from tests.integration.model_bench import NOW

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SERVER = "Foretag.Server"
_LABEL = ASSET, "Label", "failure", NOW.isoformat(), "", "bearing"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with housed(tmp_path_factory.mktemp("methods")) as made:
        yield made


async def _asks(second_stack: Any, house: House, user: str, *calls: tuple[str, ...]) -> list[dict[str, Any]]:
    """What a client got for each call of one session."""
    own = pki.ensure_own_certificate(house.folder / "stranger", "urn:test:second-stack", ["localhost"])
    pki.trust(house.folder, own.cert_path.read_bytes())
    words: list[str] = []
    for owner, *call in calls:
        words += ["then", "call", f"nsu=urn:foretag:predictions;s={owner}", *call]
    keys = {"certificate": own.cert_path, "key": own.key_path}
    found: list[dict[str, Any]] = await second_stack(house.sink.endpoint, *words[1:], user=(user, PASSWORD), **keys)
    assert not [line for line in found if "error" in line], found
    return found


async def test_an_engineer_trains_puts_in_force_and_scores(second_stack, house):
    async with house.session("ed") as ed:
        for version in (1, 2):
            await house.ends(await ed.says(MODEL, "Retrain"))
            assert len(await house.bench.store.versions("odd")) == version
    promoted, back, scored, again = await _asks(
        second_stack, house, "ed", (MODEL, "Promote", "2"), (MODEL, "RollBack"), (MODEL, "ScoreNow"),
        (MODEL, "Promote", "9"),
    )  # fmt: skip
    assert (promoted["answers"], back["answers"]) == ([2], [1])
    ((_, key),) = scored["answers"]  # 64 bits are two numbers there
    assert key in {run.id for run in await house.bench.store.runs("odd") if run.kind is RunKind.SCORE}
    assert again["status"] == "BadInvalidState"


async def test_an_operator_labels_what_happened_and_what_can_not_be_is_refused(second_stack, house):
    kept, odd = await _asks(second_stack, house, "otto", _LABEL, (ASSET, "Label", "explosion", *_LABEL[3:]))
    (label,) = await house.bench.store.labels("pump-1", NOW - timedelta(days=1), NOW + timedelta(days=1))
    assert kept == {"method": "Label", "status": "Good", "answers": [label.id]}
    assert (label.kind, label.start, label.end, label.note, label.user) == (
        LabelKind.FAILURE, NOW, None, "bearing", "otto"
    )  # fmt: skip
    assert odd["status"] == "BadInvalidArgument"


async def test_an_administrator_reloads(second_stack, house):
    (reloaded,) = await _asks(second_stack, house, "ada", (_SERVER, "Reload"))
    ((line,),) = reloaded["answers"]
    assert "e1.T24" in line
    assert house.reloads == ["ada opcua"]


@pytest.mark.parametrize(
    ("user", "refused"),
    [
        ("olga", {"ScoreNow", "Label", "Retrain", "Promote", "RollBack", "Reload"}),
        ("otto", {"Retrain", "Promote", "RollBack", "Reload"}),
        ("ed", {"Reload"}),
    ],
)
async def test_a_role_that_may_not_is_refused(second_stack, house, user, refused):
    calls = (MODEL, "ScoreNow"), _LABEL, (MODEL, "Retrain"), (MODEL, "Promote", "2"), (MODEL, "RollBack")
    answers = await _asks(
        second_stack, house, user, *(call for call in (*calls, (_SERVER, "Reload")) if call[1] in refused)
    )
    assert {line["method"]: line["status"] for line in answers} == dict.fromkeys(refused, "BadUserAccessDenied")
