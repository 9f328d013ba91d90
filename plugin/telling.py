"""What people tell of the plant: failures, work orders, verdicts on flags, and results of the laboratory."""

import csv
import io
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path

from plugin.asking import beside
from plugin.auditing import whoami
from plugin.config import Config
from plugin.domain import Flag, Label, LabelKind, LabSample, Verdict
from plugin.errors import ConfigError, Fault
from plugin.fields import parse_moment
from plugin.protocols import Store

_NAMES = uuid.UUID("6f1d3c52-0f5e-4f2c-9a3e-7f6f72657461")
"""Namespace of ids that follow from what a result is about, so that a file told twice tells nothing new."""
_COLUMNS = ("asset", "quantity", "taken", "value")
_FURTHER = ("unit", "note", "id")
_LABEL_COLUMNS = ("kind", "asset", "at")
_LABEL_FURTHER = ("until", "verdict", "model", "reference", "note", "id")
_FLAGS = timedelta(days=7)
"""How far back a flag is looked for that a verdict is about."""
_FAULTS = 20
"""Told of one file at most."""
_TOO_MANY = "Quote cells that hold the mark between columns, such as a decimal comma, or part columns by semicolons"


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says happened, as they wrote it."""

    kind: str
    """One of :class:`plugin.domain.LabelKind`."""
    asset: str
    at: str = ""
    """Date, time, or so long ago; empty: now."""
    until: str = ""
    verdict: str = ""
    """One of :class:`plugin.domain.Verdict`, with the kind ``verdict``."""
    model: str = ""
    reference: str = ""
    note: str = ""
    id: str = ""
    """Of the label that this one replaces; empty: a new one."""


async def tell_label(config: Config, said: Said) -> tuple[Label, bool]:
    """Store it; whether it says anything new. ConfigError where it names what there is not."""
    async with beside(config) as store:
        label = await _label(config, store, said)
        return label, bool(await store.write_labels([label]))


async def tell_labels(config: Config, path: Path) -> tuple[int, int]:
    """Those of a CSV file: how many there are, and how many of them are new or other than before.

    Told again, a file says nothing new. ConfigError names all that is wrong with its rows; nothing is stored then.
    """
    faults: list[Fault] = []
    async with beside(config) as store:
        rows = _read_csv(path, _LABEL_COLUMNS, _LABEL_FURTHER)
        labels = [await _row(config, store, row, f"row {n}", faults) for n, row in enumerate(rows, 1)]
        _refuse(str(path), rows, faults)
        return len(labels), await store.write_labels([label for label in labels if label is not None])


async def _row(config: Config, store: Store, row: Mapping[str, str], place: str, faults: list[Fault]) -> Label | None:
    own = str(uuid.uuid5(_NAMES, "\n".join(row[name] for name in _LABEL_COLUMNS)))
    said = Said(**{name: value for name, value in row.items() if value} | {"id": row.get("id") or own})
    if not said.at:  # now would be another time when the file is told again
        faults.append(Fault(f"{place}, at", "", "is empty", "Write when it happened or began"))
        return None
    try:
        return await _label(config, store, said)
    except ConfigError as error:
        faults += [replace(fault, field=f"{place}, {fault.field.removeprefix('--')}") for fault in error.faults]
        return None


def _refuse(name: str, rows: Sequence[object], faults: Sequence[Fault]) -> None:
    """Where there are faults."""
    if faults:
        more = Fault("rows", str(len(rows)), f"have {len(faults)} faults in all", "Mend these, and try again")
        raise ConfigError(name, [*faults[:_FAULTS], *([more] * (len(faults) > _FAULTS))])


async def _label(config: Config, store: Store, said: Said) -> Label:
    now = datetime.now(UTC)
    faults = list(_asset_faults(config, said.asset))
    if said.kind not in list(LabelKind):
        faults.append(Fault("kind", said.kind, "is no kind of label", f"Kinds are: {', '.join(LabelKind)}"))
    start = _time("--at", said.at, now, faults) if said.at else now
    end = _time("--until", said.until, now, faults) if said.until else None
    if (said.kind == LabelKind.VERDICT) != (said.verdict in list(Verdict)):
        choices = ", ".join(Verdict)
        faults.append(Fault("--verdict", said.verdict, "goes with the kind verdict", f"Verdicts are: {choices}"))
    if said.model and said.kind != LabelKind.VERDICT:
        faults.append(Fault("--model", said.model, "goes with the kind verdict", "Leave it out"))
    if start is not None and start > now:
        faults.append(Fault("--at", said.at, "is in the future", "Write when it happened or began"))
    if end is not None and end > now:
        faults.append(Fault("--until", said.until, "is in the future", "Leave it out as long as it lasts"))
    if end is not None and start is not None and end <= start:
        faults.append(Fault("--until", said.until, "is not after --at", "Name the later time"))
    if faults or start is None:
        raise ConfigError("the command", faults)
    flag = await _flag(store, said, start) if said.verdict else None
    return Label(
        id=said.id or str(uuid.uuid4()),
        kind=LabelKind(said.kind),
        asset=said.asset,
        start=start if flag is None else flag.as_of,
        created=now,
        end=end,
        verdict=Verdict(said.verdict) if said.verdict else None,
        model=flag.model if flag else "",
        as_of=flag.as_of if flag else None,
        run=flag.run if flag else 0,
        reference=said.reference,
        note=said.note,
        user=whoami(),
    )


async def _flag(store: Store, said: Said, by: datetime) -> Flag:
    """The newest raised flag of the asset at that time, of the model where one is named."""
    found = await store.flags(by - _FLAGS, by + timedelta(microseconds=1), asset=said.asset)
    raised = [flag for flag in found if flag.raised and said.model in {"", flag.model}]
    models = sorted({flag.model for flag in raised})
    if len(models) > 1:
        told = f"is not said, and {', '.join(models)} raised flags of {said.asset} in the 7 days before"
        raise ConfigError("the command", [Fault("--model", "", told, "Say whose flag it is about")])
    if raised:
        return raised[-1]
    of = f" of model {said.model}" if said.model else ""
    told = f"has no raised flag{of} in the 7 days before {by:%Y-%m-%d %H:%M:%S %z}"
    raise ConfigError("the command", [Fault("ASSET", said.asset, told, "Name the time of the flag with --at")])


async def tell_lab(config: Config, rows: Sequence[Mapping[str, str]], name: str) -> tuple[int, int]:
    """Store results of the laboratory: how many there are, and how many of them are new or corrected.

    ``rows``: texts by column; ``name``: where they come from. ConfigError names all that is wrong with them; nothing is
    stored then.
    """
    now, user = datetime.now(UTC), whoami()
    faults: list[Fault] = []
    samples = [_lab_sample(config, row, f"row {n}", now, user, faults) for n, row in enumerate(rows, 1)]
    _refuse(name, rows, faults)
    told = [sample for sample in samples if sample is not None]
    async with beside(config) as store:
        return len(told), await store.write_lab_samples(await _with_units(store, told))


async def _with_units(store: Store, told: Sequence[LabSample]) -> Sequence[LabSample]:
    """What is told again without a unit has the one that it had."""
    without = [sample.taken for sample in told if not sample.unit]
    if not without:
        return told
    before = await store.lab_samples(None, None, min(without), max(without) + timedelta(microseconds=1))
    units = {sample.id: sample.unit for sample in before}
    return [replace(sample, unit=sample.unit or units.get(sample.id, "")) for sample in told]


def _lab_sample(
    config: Config, row: Mapping[str, str], place: str, now: datetime, user: str, faults: list[Fault]
) -> LabSample | None:
    asset, quantity = row["asset"], row["quantity"]
    found = list(_asset_faults(config, asset, f"{place}, asset"))
    if not quantity:
        found.append(Fault(f"{place}, quantity", "", "is empty", "Name what was measured, such as nox"))
    taken = _time(f"{place}, taken", row["taken"], now, found)
    if taken is not None and taken > now:
        found.append(Fault(f"{place}, taken", row["taken"], "is in the future", "Write when the specimen was drawn"))
    value = _number(f"{place}, value", row["value"], found)
    faults += found
    if found or taken is None:
        return None
    own = str(uuid.uuid5(_NAMES, f"{asset}\n{quantity}\n{taken.astimezone(UTC).isoformat()}"))
    key, unit, note = row.get("id") or own, row.get("unit") or "", row.get("note") or ""
    return LabSample(key, asset, quantity, taken, now, value, unit, user=user, note=note)


def lab_rows(one: Mapping[str, str], csv_file: Path | None) -> Sequence[Mapping[str, str]]:
    """The one result that was written on the command line, or those of a file. ConfigError where it is neither."""
    if csv_file is not None:
        if beside := [Fault(name, text, "goes without --csv", "Leave it out") for name, text in one.items() if text]:
            raise ConfigError("lab add", beside)
        return read_lab_csv(csv_file)
    missing = [name for name in _COLUMNS if not one[name]]
    if missing:
        told = "Write ASSET QUANTITY VALUE --taken TIME, or --csv FILE"
        raise ConfigError("lab add", [Fault(name, "", "is missing", told) for name in missing])
    return [one]


def read_lab_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with the columns asset, quantity, taken, value, and perhaps unit, note, id; see :func:`_read_csv`.

    With semicolons a decimal comma is one.
    """
    rows = _read_csv(path, _COLUMNS, _FURTHER)
    if ";" in path.read_text(encoding="utf-8-sig").partition("\n")[0]:
        return [{**row, "value": row["value"].replace(",", ".")} for row in rows]
    return rows


def _read_csv(path: Path, needed: Sequence[str], further: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV with comma, semicolon or tab. ConfigError where a column is missing or unknown."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        heading = text.partition("\n")[0]
        delimiter = max(";\t,", key=heading.count)
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, restval="")
        columns, rows = [name.strip() for name in lines.fieldnames or ()], list(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = Fault("CSV", str(path), f"can't be read: {error}", "Save it as UTF-8, with a line for each row")
        raise ConfigError(str(path), [told]) from error
    faults = [Fault("column", name, "is missing", f"The first line has to name it, as {', '.join(needed)}")
              for name in needed if name not in columns]  # fmt: skip
    known = (*needed, *further)
    faults += [Fault("column", name, "is not known", f"Columns are: {', '.join(known)}")
               for name in columns if name not in known]  # fmt: skip
    faults += [Fault("column", name, "is there twice", "Leave one of them out")
               for name in sorted(set(columns)) if columns.count(name) > 1]  # fmt: skip
    faults += [Fault(f"row {n}", ",".join(row[None]), "is left over behind the last column", _TOO_MANY)
               for n, row in enumerate(rows, 1) if None in row]  # fmt: skip
    _refuse(str(path), rows, faults)
    return [dict(zip(columns, map(str.strip, row.values()), strict=True)) for row in rows]


def _asset_faults(config: Config, asset: str, name: str = "ASSET") -> Iterator[Fault]:
    assets = {tag.asset for tag in config.tags if tag.asset}
    if asset not in assets:
        like, some = get_close_matches(asset, assets, 3), ", ".join(sorted(assets)[:10])
        remedy = f"Is it {' or '.join(like)}?" if like else f"Assets are: {some or 'none is configured'}"
        yield Fault(name, asset, "is no asset", remedy)


def _time(name: str, text: str, now: datetime, faults: list[Fault]) -> datetime | None:
    try:
        return parse_moment(text, now)
    except (ValueError, OverflowError):
        told = 'Write a date and time, such as "2026-03-01T08:00", or how long ago: "2h"'
        faults.append(Fault(name, text, "is no time", told))
        return None


def _number(name: str, text: str, faults: list[Fault]) -> float | None:
    """Empty: the laboratory has no result."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    faults.append(Fault(name, text, "is no number", "Write it as 12.5, or leave it empty where there is no result"))
    return None
