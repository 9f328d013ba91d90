"""``foretag gaps`` over a database."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from plugin.asking import Chosen, show_gaps
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, SampleBatch
from plugin.errors import ConfigError
from plugin.opening import open_store
from plugin.protocols import Delivery

FILE = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"
[[sources]]
name = "mill"
endpoint = "opc.tcp://127.0.0.1:2/"

[[assets]]
names = ["engine-{01..02}"]
source = "plant"
node = "nsu=u;s={asset}.{feature}"
tags = { T24 = {}, T50 = {} }
"""
HOUR = timedelta(hours=1)


def gap(name: str, begun: timedelta, **changes: Any) -> Gap:
    start = datetime.now(UTC) - begun
    fields: dict[str, Any] = {
        "id": name, "source": "plant", "tag": None, "start": start, "end": start + HOUR / 60,
        "cause": GapCause.SUBSCRIPTION_LOST, "detected": start,
    }  # fmt: skip
    return Gap(**(fields | changes))


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    (tmp_path / "foretag.toml").write_text(FILE)
    config = load(tmp_path / "foretag.toml")
    gaps = (
        gap("old", 50 * HOUR, state=GapState.FILLED),
        gap("cut", 3 * HOUR),
        gap("bad", 2 * HOUR, tag="engine-01.T24", cause=GapCause.BAD_ITEM, end=None),
        gap("mill", HOUR, source="mill", state=GapState.UNFILLABLE),
    )
    async with open_store(config, Diagnostics(), alone=True) as store:
        await store.write([Delivery(SampleBatch.empty(), gaps)])
    return config


async def listed(config: Config, **choice: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    await show_gaps(config, Chosen(**choice), console, as_json=True)
    assert isinstance(console.file, io.StringIO)
    return [record["id"] for record in json.loads(console.file.getvalue())]


async def test_the_newest_is_last_and_every_choice_narrows(config):
    assert await listed(config) == ["old", "cut", "bad", "mill"]
    assert await listed(config, limit=1) == ["mill"]
    assert await listed(config, open_only=True) == ["cut", "bad"]
    assert await listed(config, since="24h") == ["cut", "bad", "mill"]
    assert await listed(config, since=(datetime.now(UTC) - 1.5 * HOUR).isoformat()) == ["bad", "mill"]
    assert await listed(config, source="mill") == ["mill"]
    assert await listed(config, tag="engine-01.T24") == ["old", "cut", "bad"]
    assert await listed(config, tag="engine-02.T24") == ["old", "cut"]
    assert await listed(config, cause="bad_item") == ["bad"]


async def test_a_choice_that_names_nothing_is_refused_with_what_there_is(config):
    with pytest.raises(ConfigError) as refused:
        await listed(config, source="plent", tag="engine-01.T42", cause="rain", since="yesterday")
    text = str(refused.value)
    for part in ("plent", "mill, plant", "engine-01.T24", "bad_item", "yesterday", '"24h"'):
        assert part in text
