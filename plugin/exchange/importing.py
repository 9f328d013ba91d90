"""The import of one file: read piece by piece, compared with the store, written, and noted how far it came.

    file ─pieces─> Reader ─samples─> sift ─new──────> Store.write
                      │                └──conflicts─> rejected, or Store.correct
                      └─rejects─> quarantine, with the position, in one transaction

Killed at any moment it goes on at the position that was noted last: what was written behind it is written again, which
changes nothing.
"""

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plugin.domain import Audit, Import, Micros, Reject, SampleBatch, Tag, to_micros
from plugin.errors import ExchangeError
from plugin.exchange.pieces import Piece
from plugin.exchange.plan import Plan, plan
from plugin.exchange.reading import Table, open_table
from plugin.exchange.roster import Entry, Roster
from plugin.exchange.sifting import Before, Sifted, sift
from plugin.exchange.statuses import codes_of, is_small
from plugin.exchange.taking import Reader, Taken, shown
from plugin.exchange.tally import Tally
from plugin.exchange.terms import Codes, Terms, fault
from plugin.exchange.times import Clock, check_format, detect, needs_zone
from plugin.exchange.values import Notation, decimal_of
from plugin.protocols import Delivery, Store
from plugin.zones import Zone

_DAY: Micros = 86_400_000_000
_FOUND = "found"
"""Among the options of an import: the oldest and the newest source time when it was begun [µs]."""
_UNREGISTERED = 2**29
"""Keys from here on are of tags that a dry run takes for registered."""
_NOTE_EVERY = 1.0
"""How often the position is noted at most [s]."""
_HEAD = 1000
"""Rows that formats are found out from."""

InThread = Callable[..., Awaitable[Any]]
Progress = Callable[[float, int], None]
"""Told how much of the file is read, 0..1, and how many rows are done."""
Rejected = Callable[[Sequence[Reject]], None]
"""Told of what could not be taken; where an import is taken up again, first of all that was before."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with one file."""

    path: Path
    terms: Terms = field(default_factory=Terms)
    mapping: dict[str, Entry] = field(default_factory=dict)
    create: bool = False
    """Names that are no tag become tags of the source ``import``; else their samples are left out."""
    correct: bool = False
    """Values that contradict what is stored are put in its place; else they are rejected."""
    dry: bool = False
    """Nothing is written."""
    limit: int = 100_000
    """Rejects at which it stops."""
    user: str = ""
    """Who asks for it."""
    configured: Sequence[Tag] = ()
    """Tags that a dry run takes for registered."""


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    record: Import
    tally: Tally
    tags: dict[int, Tag]
    plan: Plan
    found: dict[str, str]
    """How the file is read, for a person."""
    unknown: dict[str, int]
    """Samples that were left out, by name in the file."""
    created: Sequence[Tag]
    notes: Sequence[str]
    resumed: int = 0
    """Row after which it was taken up again; 0: from the first."""
    corrected: int = 0
    """Samples that were put in the place of others."""

    @property
    def in_vain(self) -> bool:
        """It has rows, and no sample of them is in the historian."""
        record = self.record
        return record.position > 0 and not (record.stored or record.duplicates or self.corrected)


async def bring(
    store: Store, order: Order, progress: Progress = lambda _share, _rows: None, rejected: Rejected = lambda _rows: None
) -> Outcome:
    """Import a file, or with ``order.dry`` see what would come of it. ConfigError, ExchangeError, StoreError."""
    # One thread has the file: nobody closes it while it is read.
    with ThreadPoolExecutor(1, "import") as thread:
        in_thread = partial(asyncio.get_running_loop().run_in_executor, thread)
        opened = await in_thread(_Opened.of, order)
        try:
            return await _Run(store, order, opened, in_thread, progress, rejected).go()
        finally:
            thread.submit(opened.close)


class _Opened:
    """A file, how it is read, and its pieces from the first on. All of it blocks."""

    def __init__(self, order: Order, context: AbstractContextManager[Table], table: Table) -> None:
        self._context, self.table, terms = context, table, order.terms
        self.plan = plan(table.names, terms)
        pieces = table.pieces(self.plan.columns, self.plan.texts(every=terms.texts))
        head = next(pieces, None)
        if head is None or not len(head.rows):
            raise ExchangeError(f"{order.path.name} has a heading, and no rows")
        self.pieces: Iterator[Piece] = itertools.chain([head], pieces)
        self.reader, self.found = _reader(order, table, self.plan, head)
        self.id = _identity(order)

    @classmethod
    def of(cls, order: Order) -> "_Opened":
        """ConfigError, ExchangeError."""
        context = open_table(order.path, order.terms)
        table = context.__enter__()
        try:
            return cls(order, context, table)
        except BaseException:
            context.__exit__(None, None, None)
            raise

    def close(self) -> None:
        self._context.__exit__(None, None, None)


class _Run:
    def __init__(
        self, store: Store, order: Order, opened: _Opened, in_thread: InThread, progress: Progress, rejected: Rejected
    ) -> None:
        self._store, self._order, self._opened, self._in_thread = store, order, opened, in_thread
        self._progress, self._rejected = progress, rejected
        self._record = Import(opened.id, order.path.name, datetime.now(UTC), options=_options(order))
        self._tally = Tally()
        self._corrected = 0
        self._waiting: list[Reject] = []
        """Not yet in the quarantine."""
        self._noted = time.monotonic()

    async def go(self) -> Outcome:
        tags = {tag.name: tag for tag in await self._store.tags()}
        for number, tag in enumerate(self._order.configured):
            tags[tag.name] = replace(tag, id=tags[tag.name].id if tag.name in tags else _UNREGISTERED + number)
        roster = Roster(self._store, self._order.mapping, tags, self._order.create, self._order.dry)
        resumed, before = await self._begin(await self._store.latest([tag.id for tag in roster.tags.values()]))
        async for piece, taken in self._taken(roster, resumed):
            await self._keep(piece, taken, before)
        self._left_out(roster)
        await self._end()
        opened, by_key = self._opened, {tag.id: tag for tag in roster.tags.values()}
        return Outcome(
            self._record, self._tally, by_key, opened.plan, opened.found, dict(roster.unknown), roster.created,
            opened.table.notes, resumed, self._corrected,
        )  # fmt: skip

    async def _begin(self, newest: SampleBatch) -> tuple[int, Before]:
        """The row up to which it is done already, and what was stored when it was begun first."""
        oldest = await self._store.next_time(-(2**62))
        found = [0 if oldest is None else oldest, int(newest.source_time.max(initial=-(2**62)))]
        if self._order.dry:
            return 0, Before(None, newest.tag, *found)
        self._record = replace(self._record, options={**self._record.options, _FOUND: found})
        for begun in await self._store.imports(id=self._opened.id):
            if begun.finished is None:
                self._record = begun
                self._rejected(await self._store.rejects(begun.id))
        await self._store.write_import(self._record)
        before = Before(to_micros(self._record.started) - 1, newest.tag, *self._record.options[_FOUND])
        return self._record.position, before

    async def _taken(self, roster: Roster, done: int) -> AsyncIterator[tuple[Piece, Taken]]:
        """What is read while what was read before is written."""
        following = asyncio.create_task(self._next(roster, done))
        try:
            while (found := await following) is not None:
                following = asyncio.create_task(self._next(roster, done))
                yield found
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def _next(self, roster: Roster, done: int) -> tuple[Piece, Taken] | None:
        reader = self._opened.reader
        while (piece := await self._in_thread(next, self._opened.pieces, None)) is not None:
            if done and len(piece.rows):
                piece = piece.after(done)
            if not len(piece.rows) and not piece.rejects:
                continue
            piece = await self._in_thread(reader.cleaned, piece)
            await roster.learn(await self._in_thread(reader.tags, piece))
            now = time.time_ns() // 1000
            return piece, await self._in_thread(reader.take, piece, roster, now)
        return None

    async def _keep(self, piece: Piece, taken: Taken, before: Before) -> None:
        sifted = await sift(self._store, taken.samples, before)
        rejects = [*taken.rejects]
        rejects += [] if self._order.correct else self._conflicts(taken, sifted)
        self._tally.add(taken.samples, sifted)
        self._tally.reasons.update(reject.reason for reject in rejects)
        record = self._record
        stored = await self._write(taken.samples, sifted)
        await self._correct(taken.samples.take(sifted.conflict))
        self._waiting += rejects
        self._rejected(rejects)
        last = int(piece.rows[-1]) if len(piece.rows) else record.position
        self._record = replace(
            record,
            position=max(last, record.position),
            stored=record.stored + stored,
            duplicates=record.duplicates + len(taken.samples) - stored - int(sifted.conflict.sum()),
            quarantined=record.quarantined + len(rejects),
        )
        await self._note(always=False)
        self._progress(self._opened.table.share, self._record.position)
        if self._record.quarantined > self._order.limit:
            await self._note(always=True)
            reason, count = self._tally.reasons.most_common(1)[0]
            raise ExchangeError(
                f"{self._order.path.name}: {self._record.quarantined:,} cells can't be taken up to row "
                f"{self._record.position:,}, {count:,} times because one {reason}. Is the file read as it is meant? "
                "If it is, --max-rejects lets more pass, and the import goes on where it stopped"
            )

    async def _write(self, batch: SampleBatch, sifted: Sifted) -> int:
        """How many were stored."""
        if self._order.dry:
            return int(sifted.new.sum())
        written = await self._store.write([Delivery(batch.take(sifted.new))])
        return written.stored

    async def _correct(self, batch: SampleBatch) -> None:
        """What was there is kept as modified. Done again, where it was cut off, it is one correction."""
        if not (self._order.correct and len(batch)):
            return
        self._corrected += len(batch)
        if not self._order.dry:
            reason = f"import of {self._order.path.name}"
            await self._store.correct(batch, user=self._order.user, reason=reason)

    def _conflicts(self, taken: Taken, sifted: Sifted) -> Iterator[Reject]:
        names, batch = self._opened.table.names, taken.samples
        for place in np.flatnonzero(sifted.conflict).tolist():
            value = (
                batch.text[place] if batch.text is not None and batch.text[place] is not None else batch.value[place]
            )
            content = shown(value if batch.status[place] == 0 else f"{value} 0x{batch.status[place]:08X}")
            yield Reject(int(taken.rows[place]), names[taken.names[place]], content, _CONFLICT)

    def _left_out(self, roster: Roster) -> None:
        """A line for each name that is no tag, so that nothing is left out in silence."""
        lines = []
        for name, count in roster.unknown.items():
            entry = self._order.mapping.get(name)
            reason = "is left out by the mapping" if entry and not entry.tag else _NO_TAG
            lines += [Reject(0, shown(name), f"{count} samples", reason)] if count else []
        self._waiting += lines
        self._rejected(lines)

    async def _end(self) -> None:
        self._record = replace(self._record, finished=datetime.now(UTC))
        if self._order.dry:
            return
        await self._note(always=True)
        after = {name: getattr(self._record, name) for name in ("position", "stored", "duplicates", "quarantined")}
        after |= {"corrected": self._corrected, "id": self._record.id}
        name = self._order.path.name
        await self._store.write_audit(
            Audit(datetime.now(UTC), self._order.user, "command", "import", name, after=after)
        )

    async def _note(self, *, always: bool) -> None:
        if self._order.dry:
            self._waiting.clear()
        elif always or time.monotonic() > self._noted + _NOTE_EVERY:
            await self._store.write_import(self._record, self._waiting)
            self._waiting, self._noted = [], time.monotonic()


_NO_TAG = "is no tag; --create makes one of it, --map says which it is"
_CONFLICT = "differs from what is stored at that time; --correct puts it in its place"


def _reader(order: Order, table: Table, plan: Plan, head: Piece) -> tuple[Reader, dict[str, str]]:
    """How the cells are read, from what is said and from the first of them; and in words."""
    terms = order.terms
    zone = Zone.named(terms.zone) if terms.zone else None
    clock = _clock(terms, zone, head.columns[plan.time])
    if table.from_1904 and clock.format == "excel":
        raise fault(
            "--format", "excel", "is of days from 1900, and this workbook counts them from 1904",
            "Show that column as dates in the workbook, and save it",
        )  # fmt: skip
    server = clock
    if plan.server_time is not None:
        server = _clock(replace(terms, format=""), zone, head.columns[plan.server_time])
    values = [
        head.columns[column] for column in ([plan.value] if plan.value is not None else [v for v, _ in plan.values])
    ]
    decimal = terms.decimal or ("." if table.commas else _decimal(values))
    notation = Notation(decimal, terms.thousands, terms.texts)
    codes = _codes(terms, plan, head)
    latest = 2**62 if terms.future else time.time_ns() // 1000 + _DAY
    escaped = order.path.suffix.lower() not in {".parquet", ".pq"}
    reader = Reader(table.names, plan, clock, server, notation, codes, escaped, latest)
    found = {
        "layout": plan.layout.value,
        "time": table.names[plan.time],
        "format": clock.format,
        "zone": terms.zone or "UTC",
    }
    found |= {
        role: table.names[place]
        for role in ("tag", "value", "status", "server_time", "text")
        if (place := getattr(plan, role)) is not None
    }
    found |= {"decimal": decimal} | ({"codes": codes.value} if codes else {})
    return reader, found


def _clock(terms: Terms, zone: Zone | None, cells: Any) -> Clock:
    if terms.format:
        check_format(terms.format)
    format = terms.format or detect(cells.slice(0, _HEAD))  # noqa: A001 - as the option is called
    if zone is None and needs_zone(cells, format):
        example = next((cell for cell in cells.to_pylist() if cell is not None), "")
        raise fault(
            "--zone", "(not said)", f"the times, such as {example}, name no time zone",
            'Say which they are in, such as --zone "Europe/Berlin", or --zone UTC',
        )  # fmt: skip
    return Clock(format, zone, terms.ambiguous)


def _decimal(columns: Sequence[Any]) -> str:
    marks = [decimal_of(cells.slice(0, _HEAD)) for cells in columns[:50]]
    return "," if "," in marks else "."


def _codes(terms: Terms, plan: Plan, head: Piece) -> Codes | None:
    if terms.codes:
        return terms.codes
    columns = [plan.status] if plan.status is not None else [status for _, status in plan.values if status is not None]
    texts = {str(cell) for column in columns for cell in head.columns[column].unique().to_pylist() if cell is not None}
    codes = codes_of(texts)
    small = sorted(text for text in texts if is_small(text))
    if codes is None and small:
        raise fault(
            "--codes", "(not said)", f"statuses such as {small[0]} are Good by one way to count, and Bad by the other",
            "Say opcua where 0 is Good (StatusCodes), classic where 192 is (OPC DA)",
        )  # fmt: skip
    return codes


def _options(order: Order) -> dict[str, Any]:
    terms = {name: value for name, value in asdict(order.terms).items() if value not in {"", 0, None}}
    mapping = {name: [each.tag, each.unit, each.scale, each.offset] for name, each in order.mapping.items()}
    return {**terms, "mapping": mapping, "create": order.create, "correct": order.correct}


def _identity(order: Order) -> str:
    """SHA-256 of the file and of all that is said of it: another order begins anew."""
    with order.path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps([content, _options(order)], sort_keys=True).encode()).hexdigest()
