"""Names in a file, and the tags that they are."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Tag
from plugin.errors import ConfigError, Fault
from plugin.exchange.units import conversion
from plugin.protocols import Store

SOURCE = "import"
"""Source of the tags that an import has made."""
_HEADING = {"column", "tag", "unit", "scale", "offset"}
_LONGEST = 200
_PROVISIONAL = 2**30
"""Keys from here on are of tags that a dry run would make."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a mapping says of one name."""

    tag: str
    """Empty: it is left out."""
    unit: str = ""
    """Of the numbers in the file; empty: as the tag's."""
    scale: float = 1.0
    offset: float = 0.0
    """value = number × scale + offset, before the unit is turned into the tag's."""


@dataclass(slots=True)
class Roster:
    """What the names of one file stand for."""

    store: Store
    mapping: Mapping[str, Entry]
    tags: dict[str, Tag]
    """All that there are, by name, with their keys."""
    create: bool
    dry: bool
    ids: dict[str, int] = field(default_factory=dict)
    """Key of the tag by name in the file; 0: it is none, and is left out."""
    created: list[Tag] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """Samples that were left out, by name in the file."""
    _scale: dict[int, tuple[float, float]] = field(default_factory=dict)

    async def learn(self, names: Iterable[str]) -> None:
        """Look up those that are new, and make tags of them where that is wanted. ConfigError: units do not fit."""
        new = [name for name in dict.fromkeys(names) if name not in self.ids]
        entries = {name: self.mapping.get(name, Entry(name)) for name in new}
        missing = {e.tag: e for e in entries.values() if e.tag not in self.tags and _may_be_made(e.tag)}
        if self.create and missing:
            await self._make(missing)
        faults: list[Fault] = []
        for name, entry in entries.items():
            tag = self.tags.get(entry.tag) if entry.tag else None
            self.ids[name] = tag.id if tag else 0
            if tag is not None:
                self._convert(name, entry, tag, faults)
        if faults:
            raise ConfigError("the command", faults)

    async def _make(self, missing: Mapping[str, Entry]) -> None:
        new = [Tag(name, SOURCE, f"nsu=urn:foretag:import;s={name}", unit=e.unit) for name, e in missing.items()]
        if self.dry:
            first = _PROVISIONAL + len(self.created)
            made = tuple(replace(tag, id=first + number) for number, tag in enumerate(new))
        else:
            made = await self.store.register_tags(new)
        self.created += made
        self.tags |= {tag.name: tag for tag in made}

    def _convert(self, name: str, entry: Entry, tag: Tag, faults: list[Fault]) -> None:
        try:
            scale, offset = conversion(entry.unit, tag.unit) if entry.unit else (1.0, 0.0)
        except ConfigError as error:
            faults += [replace(each, field=f"unit of {name}") for each in error.faults]
            return
        both = entry.scale * scale, entry.offset * scale + offset
        if both != (1.0, 0.0):
            self._scale[tag.id] = both

    def scales(self, tags: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Scale and offset of each row; None: all numbers stay as they are."""
        if not self._scale:
            return None
        different, where = np.unique(tags, return_inverse=True)
        factors = np.array([self._scale.get(tag, (1.0, 0.0)) for tag in different.tolist()]).reshape(-1, 2)
        return factors[where, 0], factors[where, 1]


def _may_be_made(name: str) -> bool:
    return 0 < len(name) <= _LONGEST and name.isprintable()


def read_mapping(path: Path) -> dict[str, Entry]:
    """From a CSV with the columns ``column``, ``tag``, perhaps ``unit``, ``scale``, ``offset``; lists every fault."""
    faults: list[Fault] = []
    found: dict[str, Entry] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            heading = set(reader.fieldnames or ())
            if not {"column", "tag"} <= heading <= _HEADING:
                remedy = f"Columns are column and tag, and perhaps {sorted(_HEADING - {'column', 'tag'})}"
                raise ConfigError(str(path), [Fault("heading", f"{sorted(heading)}", "is no mapping's", remedy)])
            for number, row in enumerate(reader, start=2):
                _add(found, number, row, faults)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(str(path), [Fault("--map", str(path), f"can't be read: {error}", "Mend it")]) from error
    tags = Counter(entry.tag for entry in found.values() if entry.tag)
    faults += [
        Fault("tag", tag, "has several columns", "Give each its own") for tag, count in tags.items() if count > 1
    ]
    if faults:
        raise ConfigError(str(path), faults)
    return found


def _add(found: dict[str, Entry], number: int, row: Mapping[str | None, str | None], faults: list[Fault]) -> None:
    cells = {
        key: (value or "").strip() for key, value in row.items() if isinstance(key, str) and not isinstance(value, list)
    }
    name = cells["column"]
    if not name or name in found or len(cells) < len(row):
        problem = "is there twice" if name in found else "has more cells than the heading" if name else "is empty"
        faults.append(Fault(f"line {number}: column", repr(name), problem, "Write each column once"))
        return
    factors = {}
    for key, default in (("scale", 1.0), ("offset", 0.0)):
        try:
            factors[key] = float(cells.get(key) or default)
        except ValueError:
            faults.append(Fault(f"line {number}: {key}", cells[key], "is no number", "Such as 0.1"))
    if len(factors) == 2:
        found[name] = Entry(cells["tag"], cells.get("unit", ""), factors["scale"], factors["offset"])
