"""Questions to a service that runs, and to its database beside it: reload, status, gaps.

Nothing here imports the service: a question is answered before JAX, or an OPC UA client, would be loaded.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console, Group, RenderableType
from rich.text import Text

from plugin import lock
from plugin.auditing import take_up, whoami
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import Audit, GapCause, Label, LabelKind, LabSample
from plugin.errors import ConfigError, Fault, ModelError, ServiceError, StoreError, StoreMissing
from plugin.fields import parse_moment
from plugin.historian.stores import SqlStore, configured
from plugin.pki import write_private
from plugin.report.gaps import gap_record, gaps_view
from plugin.report.models import drift_record, version_record, version_view, versions_view
from plugin.report.people import audit_view, lab_view, labels_view, told_record
from plugin.report.status import Verdict, living_view, status_view
from plugin.report.told import ask

if TYPE_CHECKING:
    from plugin.reloading import Reloaded

Told = TypeVar("Told", Label, LabSample, Audit)

OUTCOME = "reload.json"
"""File in the data folder: what became of the last reload."""
_BEGIN, _END = datetime(1601, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
_ENTRIES = 100_000
"""Of the audit log that are gone through for one version."""
_ASKED = "reload.asked"
"""File in the data folder: who asks for one, since a signal does not say."""


async def reload_running(config: Config, wait: float = 60.0) -> "Reloaded":
    """Have the service that runs with this configuration's data folder read its file again; ServiceError where none
    answers within ``wait`` [s]."""
    found = lock.holder(config.data / lock.NAME)
    if found is None:
        raise ServiceError(f"no foretag runs with the data folder {config.data}; start one with `foretag run`")
    if found.config != config.path.resolve():
        raise ServiceError(
            f"the foretag of {config.data} runs with {found.config}; edit that, or name it with --config"
        )
    if not lock.is_open_by(config.data / lock.NAME, found.pid):
        raise ServiceError(
            f"the foretag of {config.data} is no process that can be seen from here, as in another container; ask there"
        )
    asked = time.monotonic()
    try:
        write_private(config.data / _ASKED, whoami().encode())
        os.kill(found.pid, signal.SIGHUP)
    except PermissionError as error:
        (config.data / _ASKED).unlink(missing_ok=True)
        raise ServiceError(f"foretag (process {found.pid}) belongs to another user; ask as that user") from error
    while time.monotonic() < asked + wait:
        outcome = _outcome(config.data / OUTCOME, found.pid, asked)
        if outcome is not None:
            return outcome
        if lock.holder(config.data / lock.NAME) is None:
            raise ServiceError(f"foretag (process {found.pid}) ended meanwhile; its log has more")
        await asyncio.sleep(0.05)
    raise ServiceError(f"foretag (process {found.pid}) did not answer within {wait:g} s; its log may have more")


def asker(folder: Path) -> str | None:
    """For the service: who asked for this reload; None: nobody left a name. It is told once."""
    path = folder / _ASKED
    try:
        name = path.read_text(encoding="utf-8", errors="replace")
        path.unlink()
    except OSError:
        return None
    return name[:200]


def _outcome(path: Path, pid: int, since: float) -> "Reloaded | None":
    """What the service left there, where it began after ``since``: monotonic clocks of one machine agree."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if found.pop("pid", None) != pid or found.pop("begun", 0.0) < since:
        return None
    from plugin.reloading import Reloaded  # noqa: PLC0415 - of all questions this one alone needs an OPC UA client

    return Reloaded(**{name: tuple(rows) for name, rows in found.items()})


async def show_status(config: Config, console: Console) -> Verdict:
    """What the running service tells, where it runs; and what the database tells."""
    told = await ask(config.diagnostics.address) if config.diagnostics.listen else None
    whose = told.facts("foretag_build_info").get("data") if told is not None else None
    verdict, absence = Verdict.NOT_RUNNING, "foretag is not running"
    if not config.diagnostics.listen:
        verdict, absence = Verdict.UNKNOWN, "whether foretag runs is not known: [diagnostics] listen is empty"
    elif whose == str(config.data):
        verdict = Verdict.WELL
    elif told is not None:
        absence += f": who answers at {config.diagnostics.listen} works on {whose or 'something else'}"
    else:
        absence += f": nobody answers at {config.diagnostics.listen}"
    mine = told if verdict is Verdict.WELL else None
    try:
        async with _reading(config) as store:
            patience = {model.name: model.validity + model.schedule.every for model in config.models}
            product, used = await store.product(), await store.used()
            view, well = await status_view(store, config.tags, patience, mine, absence, product, used)
    except StoreError as error:
        if mine is not None:
            view, well = living_view(mine, config.tags, str(error)), False
        elif isinstance(error, StoreMissing):
            view, well = Group(absence, Text(str(error), "red")), False
        else:
            raise
    console.print(view)
    return Verdict.UNWELL if verdict is Verdict.WELL and not well else verdict


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which gaps a person wants to see, as they wrote it; empty: all."""

    open_only: bool = False
    since: str = ""
    tag: str = ""
    source: str = ""
    cause: str = ""
    limit: int = 100


async def show_gaps(config: Config, chosen: Chosen, console: Console, *, as_json: bool) -> None:
    """The gaps that the database holds, the newest last. ConfigError where a choice names nothing that there is."""
    now = datetime.now(UTC)
    source, tag, cause, since = _choice(config, chosen, now)
    async with _reading(config) as store:
        found = await store.gaps(
            open_only=chosen.open_only, since=since, source=source, tag=tag, cause=cause, limit=chosen.limit
        )
    if as_json:
        console.print_json(data=[gap_record(gap) for gap in reversed(found)])
    else:
        console.print(gaps_view(found[::-1], now, limit=chosen.limit, width=console.width))


def _choice(
    config: Config, chosen: Chosen, now: datetime
) -> tuple[str | None, str | None, GapCause | None, datetime | None]:
    """Source, tag, cause and time."""
    sources = {source.name for source in config.sources}
    of_tag = {tag.name: tag.source for tag in config.tags}
    causes = [cause.value for cause in GapCause]
    faults = []
    if chosen.source and chosen.source not in sources:
        faults.append(Fault("--source", chosen.source, "is no source", f"Sources are: {', '.join(sorted(sources))}"))
    if chosen.tag and chosen.tag not in of_tag:
        like = ", ".join(get_close_matches(chosen.tag, of_tag, 3)) or "see the tag files"
        faults.append(Fault("--tag", chosen.tag, "is no tag", f"Name one that there is: {like}"))
    if chosen.cause and chosen.cause not in causes:
        faults.append(Fault("--cause", chosen.cause, "is no cause", f"Causes are: {', '.join(causes)}"))
    try:
        since = parse_moment(chosen.since, now) if chosen.since else None
    except (ValueError, OverflowError):
        since = None
        faults.append(_no_time(chosen.since))
    if faults:
        raise ConfigError("the command", faults)
    source = chosen.source or of_tag.get(chosen.tag) or None
    return source, chosen.tag or None, GapCause(chosen.cause) if chosen.cause else None, since


async def show_labels(config: Config, console: Console, *, asset: str, kind: str, since: str, as_json: bool) -> None:
    """What people said happened."""
    start = moment(since) or _BEGIN
    async with _reading(config) as store:
        found = await store.labels(asset or None, start, _END, kind=LabelKind(kind) if kind else None)
    _show(console, found, labels_view, as_json=as_json)


async def show_lab(config: Config, console: Console, *, asset: str, quantity: str, since: str, as_json: bool) -> None:
    """Results of the laboratory."""
    start = moment(since) or _BEGIN
    async with _reading(config) as store:
        found = await store.lab_samples(asset or None, quantity or None, start, _END)
    _show(console, found, lab_view, as_json=as_json)


async def show_audit(config: Config, console: Console, *, since: str, action: str, limit: int, as_json: bool) -> None:
    """Who changed what; what still waits for the log is put into it first."""
    start = moment(since)
    async with _reading(config) as store:
        with contextlib.suppress(StoreError, OSError):  # a database that only lets read shows what it has
            await take_up(store, config.data)
        found = await store.audit(start, action=action or None, limit=limit)
    _show(console, found[::-1], audit_view, as_json=as_json)


async def show_versions(config: Config, console: Console, *, model: str, as_json: bool) -> None:
    """Of all models that are configured, or of one."""
    names = [config.model(model).name] if model else [each.name for each in config.models]
    async with _reading(config) as store:
        found = [version for name in names for version in await store.versions(name)]
    if as_json:
        console.print_json(data=[version_record(version) for version in found])
    else:
        console.print(versions_view(found))


async def show_version(config: Config, console: Console, *, model: str, number: int, as_json: bool) -> None:
    """All of one version, how it drifts, and what the audit log says of it. ModelError where there is none."""
    config.model(model)
    async with _reading(config) as store:
        version = next((each for each in await store.versions(model) if each.version == number), None)
        if version is None:
            raise ModelError(f"model {model} has no version {number}; see `foretag models list {model}`")
        changes = [entry for entry in await store.audit(limit=_ENTRIES) if entry.subject == version.label]
        lasting = await store.drifts(model=model, open_only=True, limit=_ENTRIES)
    drifts = [drift for drift in lasting if drift.version == number]
    if as_json:
        more = {"changes": [told_record(entry) for entry in changes], "drifts": [drift_record(each) for each in drifts]}
        console.print_json(data={**version_record(version), **more})
    else:
        console.print(version_view(version, changes, drifts))


def _show(
    console: Console, found: Sequence[Told], view: Callable[[Sequence[Told]], RenderableType], *, as_json: bool
) -> None:
    if as_json:
        console.print_json(data=[told_record(each) for each in found])
    else:
        console.print(view(found))


def moment(text: str, option: str = "--since") -> datetime | None:
    """Of an option, as a person writes it; None: it is empty. ConfigError."""
    try:
        return parse_moment(text, datetime.now(UTC)) if text else None
    except (ValueError, OverflowError):
        raise ConfigError("the command", [_no_time(text, option)]) from None


def _no_time(text: str, option: str = "--since") -> Fault:
    remedy = 'Write "90s", "30min", "24h", "7d", or a date: "2026-03-01T08:00"'
    return Fault(option, text, "is neither a duration nor a date", remedy)


def beside(config: Config) -> SqlStore:
    """The historian, for a command beside the running service or without one."""
    return configured(config.historian, config.data, Diagnostics(), with_ring=False)


def _reading(config: Config) -> SqlStore:
    """The historian, for a question: it makes no database. StoreMissing where there is none."""
    path = config.database
    if path is not None and not path.exists():
        raise StoreMissing.told(path)
    return beside(config)
