"""``foretag models``: a person at the command line, beside what runs."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from plugin.__main__ import app
from plugin.asking import beside
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import ModelState, SampleBatch, to_micros
from plugin.errors import ModelError
from plugin.historian.stores import SqlStore
from plugin.infer.compute import Compute
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.opening import open_compute, open_store
from plugin.protocols import Delivery
from plugin.running import train_once
from plugin.scorers import Scorers

FILE = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"

[[assets]]
names = ["pump-{1..2}"]
node = "nsu=u;s={asset}.{feature}"
tags = { a = {}, b = {} }

[[models]]
name = "odd"
kind = "pca_anomaly"
assets = ["*"]
features = ["a", "b"]
window = "20s"
step = "1s"
hold = "5s"
schedule = { every = "1s", deadline = "20s" }
training = { learn = "normal" }
"""
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
SECONDS = 300


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "foretag.toml"
    path.write_text(FILE, encoding="utf-8")
    return load(path)


async def prepared(config: Config, versions: int) -> None:
    """Samples, and so many versions: the first is in force."""
    async with beside(config) as store:
        tags = await store.register_tags(config.tags)
        times = to_micros(NOW) + np.arange(-SECONDS, 0, dtype=np.int64) * 1_000_000
        noise = np.random.default_rng(1)
        for tag in tags:
            values = noise.normal(10, 1, SECONDS)
            await store.write([Delivery(SampleBatch.of([tag.id] * SECONDS, times, values, 0, times, times))])
    from rich.console import Console

    for _ in range(versions):
        await train_once(config, "odd", Console(quiet=True))


def person(config: Config, *words: str, code: int = 0, said: str = "") -> str:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    done = runner.invoke(app, ["models", *words, "--config", str(config.path)], input=said)
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


async def told(config: Config, *words: str, code: int = 0, said: str = "") -> str:
    return await asyncio.to_thread(lambda: person(config, *words, code=code, said=said))


async def test_versions_are_listed_shown_promoted_rolled_back_and_retired(config: Config) -> None:
    await prepared(config, 0)
    assert "No model has been trained yet" in await told(config, "list")
    await prepared(config, 3)
    listed: list[dict[str, Any]] = json.loads(await told(config, "list", "odd", "--json"))
    assert [(row["version"], row["state"]) for row in listed] == [(3, "challenger"), (2, "challenger"), (1, "champion")]
    assert "challenger" in await told(config, "list")
    assert await told(config, "promote", "odd", "2", "--yes") == (
        "odd-2 is in force; a running service takes it up with its next run"
    )
    assert "odd-1 is in force again" in await told(config, "roll-back", "odd", "--yes")
    assert await told(config, "retire", "odd", "3", "--reason", "not needed", "--yes") == "odd-3 is retired"
    shown = await told(config, "show", "odd", "3")
    assert "not needed" in shown
    assert "sha256" in shown
    assert [await told(config, "show", *words) for words in (("odd-3",), ("odd", "odd-3"))] == [shown, shown]
    entries = json.loads(await told(config, "show", "odd", "1", "--json"))["changes"]
    assert [(entry["action"], entry["origin"]) for entry in entries] == [
        ("promote", "command"), ("retire", "command"), ("promote", "command"),
    ]  # fmt: skip
    assert entries[0]["after"] == {"state": "champion", "rolled_back": "odd-2"}
    compared = await told(config, "compare", "odd", "2")
    assert "Nothing that both said has come true yet" in compared
    assert json.loads(await told(config, "compare", "odd", "2", "--against", "3", "--json"))["against"] == 3


async def test_a_version_is_signed_with_a_key_that_has_a_password(config: Config, tmp_path: Path) -> None:
    await prepared(config, 1)
    key, form = Ed25519PrivateKey.generate(), serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"pass")
    (tmp_path / "sign.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    words = "sign", "odd", "1", "--key", str(tmp_path / "sign.pem")
    assert "the password is not the right one" in await told(config, *words, said="wrong\n", code=2)
    assert "odd-1 is signed" in await told(config, *words, said="pass\n")
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "sign.pub").write_bytes(public)
    config.path.write_text(f'[foretag]\nmodel_key = "sign.pub"\n{FILE}', encoding="utf-8")
    async with scoring(load(config.path)) as (_, _, scorers, runs):
        assert await runs.score(scorers.in_force[0], NOW, NOW)


async def test_what_can_not_be_is_refused_with_what_to_do_and_a_no_changes_nothing(config: Config) -> None:
    await prepared(config, 2)
    assert "Models are: odd" in await told(config, "list", "other", code=2)
    assert "no version 9" in await told(config, "promote", "odd", "9", "--yes", code=2)
    assert "in force already" in await told(config, "promote", "odd", "1", "--yes", code=2)
    assert "promote another version, or roll back" in await told(config, "retire", "odd", "1", "--yes", code=2)
    assert "no other version was in force before" in await told(config, "roll-back", "odd", "--yes", code=2)
    assert "no version 7" in await told(config, "show", "odd", "7", code=2)
    for words in (("odd",), ("odd", "other-3"), ("odd", "0"), ("odd-0",), ("odd", "soon")):
        assert "names no version: say" in " ".join((await told(config, "show", *words, code=2)).split())
    assert "is neither" in await told(config, "compare", "odd", "2", "--since", "soon", code=2)
    await told(config, "promote", "odd", "2", said="n\n", code=1)
    async with beside(config) as store:
        assert [v.state for v in await store.versions("odd")] == [ModelState.CHALLENGER, ModelState.CHAMPION]


@asynccontextmanager
async def scoring(config: Config) -> AsyncIterator[tuple[SqlStore, Compute, Scorers, Runs]]:
    """What a running service scores with."""
    diagnostics = Diagnostics()
    async with open_store(config, diagnostics, alone=True) as store, open_compute(config, diagnostics) as compute:
        registry = Registry(store, config.model_folder, key=config.model_key)
        tags = await store.register_tags(config.tags)
        yield store, compute, Scorers(config, tags, store, registry, compute, diagnostics), Runs(store, [], diagnostics)


async def test_a_process_beside_promotes_and_the_next_run_goes_by_it(config: Config) -> None:
    await prepared(config, 2)
    async with scoring(config) as (_, _, scorers, runs):
        (scorer,) = scorers.in_force

        async def version() -> int:
            outcome = await runs.score(scorer, NOW, NOW)
            assert outcome
            return outcome.run.version

        assert await version() == 1
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "plugin", "models", "promote", "odd", "2", "--yes", "--config", str(config.path),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), 120) == 0
        assert await version() == 2
        await told(config, "roll-back", "odd", "--yes")
        assert await version() == 1


async def test_a_promotion_that_is_cut_off_at_any_moment_leaves_one_champion_and_a_true_log(config: Config) -> None:
    await prepared(config, 2)
    spec = model_spec(config.model("odd"))
    async with beside(config) as store:
        registry = Registry(store, config.model_folder, key=config.model_key)
        for turn in range(30):
            target = next(v.version for v in await store.versions("odd") if v.state is not ModelState.CHAMPION)
            task = asyncio.create_task(registry.promote("odd", target, spec))
            await asyncio.sleep(turn * 0.0007)
            task.cancel()
            await asyncio.wait({task})
            champions = [v.version for v in await store.versions("odd") if v.state is ModelState.CHAMPION]
            (newest,) = await store.audit(action="promote", limit=1)
            assert [newest.subject] == [f"odd-{version}" for version in champions]
        with pytest.raises(ModelError, match="in force already"):
            await registry.promote("odd", champions[0], spec)


async def test_a_version_to_begin_from_is_asked_for_at_the_command_line(config: Config) -> None:
    await prepared(config, 1)
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    for words, told in ((["--head-only"], "it goes with --from"), (["--from", "odd-1"], "odd-1 has not seen")):
        asked = ["train", "odd", *words, "--config", str(config.path)]
        done = await asyncio.to_thread(runner.invoke, app, asked)
        assert done.exit_code == 2
        assert told in done.output
