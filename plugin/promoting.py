"""What a person does to versions of models, beside a running service or without one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from models.signature import SignatureError, private_key
from plugin.asking import beside, moment
from plugin.auditing import whoami
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import ModelVersion
from plugin.errors import ModelError
from plugin.historian.stores import SqlStore
from plugin.infer.comparing import compare
from plugin.infer.outputs import model_spec
from plugin.infer.promotion import passes
from plugin.infer.registry import Registry
from plugin.opening import open_compute
from plugin.report.models import comparison_view
from plugin.scorers import Scorers

_LATER = "a running service takes it up with its next run"


@dataclass(frozen=True, slots=True)
class _Desk:
    store: SqlStore
    registry: Registry


@asynccontextmanager
async def _desk(config: Config) -> AsyncIterator[_Desk]:
    async with beside(config) as store:
        yield _Desk(store, Registry(store, config.model_folder, user=whoami(), origin="command", key=config.model_key))


async def promote(config: Config, model: str, number: int) -> str:
    """A line for the person. ModelError where the version can't be put in force."""
    spec = model_spec(config.model(model))
    async with _desk(config) as desk:
        version = await desk.registry.promote(model, number, spec)
    return f"{version.label} is in force; {_LATER}"


async def roll_back(config: Config, model: str) -> str:
    """A line for the person. ModelError where no other version was in force before."""
    spec = model_spec(config.model(model))
    async with _desk(config) as desk:
        version = await desk.registry.roll_back(model, spec)
    return f"{version.label} is in force again; {_LATER}"


async def retire(config: Config, model: str, number: int, reason: str) -> str:
    """A line for the person. ModelError where it is no challenger."""
    config.model(model)
    async with _desk(config) as desk:
        version = await desk.registry.retire(model, number, because={"reason": reason} if reason else {})
    return f"{version.label} is retired"


async def sign(config: Config, model: str, number: int, key: Path, password: str) -> str:
    """A line for the person. ModelError where key or artifact can't be used."""
    config.model(model)
    try:
        private = private_key(key, password)
    except SignatureError as error:
        raise ModelError(str(error)) from error
    async with _desk(config) as desk:
        version = await desk.registry.version(model, number)
        await desk.registry.sign(version, private)
    return f"{version.label} is signed"


async def show_comparison(
    config: Config, console: Console, *, model: str, number: int, against: int, since: str, as_json: bool
) -> None:
    """A challenger beside the version in force, or beside ``against``; and whether the rule would promote it."""
    section, now, diagnostics = config.model(model), datetime.now(UTC), Diagnostics()
    start = moment(since)
    async with _desk(config) as desk, open_compute(config, diagnostics) as compute:
        tags = await desk.store.tags()
        scorers = Scorers(config, tags, desk.store, desk.registry, compute, diagnostics)
        scorer = next(each for each in scorers.in_force if each.config.name == model)
        challenger = await desk.registry.version(model, number)
        champion = await _against(desk.registry, config, model, against)
        found = await compare(
            desk.store, section, scorer.assets, scorer.tags, (champion, challenger), (start or challenger.created, now)
        )
    if as_json:
        console.print_json(data={"challenger": number, **found.figures()})
    else:
        console.print(comparison_view(champion, challenger, found, section.promotion, passes(section.promotion, found)))


async def _against(registry: Registry, config: Config, model: str, number: int) -> ModelVersion:
    if number:
        return await registry.version(model, number)
    champion = await registry.champion(model, model_spec(config.model(model)))
    if champion is None:
        raise ModelError(f"model {model} has no version in force; name one with --against")
    return champion
