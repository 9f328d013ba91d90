"""What was written into the plant, put on record: each write in the file, each change of its course in the audit log.

A thousand nodes written each second are too many rows for the database: the file ``audit.log`` has a line for every
write and every refusal, and the historian's audit log a row when writing to a node begins, when its result becomes
another, and when it ends, each with how often what happened since the row before. A value that a person approved has
a row of its own.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from plugin.domain import Audit
from plugin.errors import ForetagError
from plugin.publish.targets import Advice, Target

_log = logging.getLogger(__name__)
_audit = logging.getLogger("foretag.audit")

_APART = timedelta(minutes=1)
"""Between two rows of one node: one whose result changes with each run has a row a minute."""
_STOP_SECONDS = 5.0


class Record(Protocol):
    """Takes entries for the audit log."""

    async def __call__(self, *entries: Audit) -> None:
        """See :func:`plugin.auditing.keep`."""


async def unrecorded(*_: Audit) -> None:
    """Where there is no audit log."""


class _Course:
    """How the writing to one node goes."""

    def __init__(self) -> None:
        self.told = ""
        self.told_at: datetime | None = None
        self.counts: Counter[str] = Counter()


class WriteLog:
    """Of one source's write-back."""

    def __init__(self, source: str, record: Record, now: Callable[[], datetime]) -> None:
        self._source = source
        self._record = record
        self._now = now
        self._courses: dict[str, _Course] = {}
        self._waiting: list[Audit] = []
        self._news = asyncio.Event()

    def note(self, act: str, target: Target, advice: Advice | None, result: str, user: str = "foretag") -> None:
        """One write, refusal or decision."""
        value = advice.value if advice is not None else None
        _audit.info(
            "%s source=%s node=%s value=%s status=%s as_of=%s from=%s%s result=%s",
            act,
            self._source,
            target.node,
            value.number if value is not None else None,
            f"0x{value.status:08X}" if value is not None else None,
            value.source_time.isoformat() if value is not None else None,
            advice.origin if advice is not None else target.tag.name,
            f" approved_by={advice.approved}" if advice is not None and advice.approved else "",
            result,
        )
        course = self._courses.setdefault(target.node, _Course())
        course.counts[result] += 1
        by_person = bool(user != "foretag" or (advice is not None and advice.approved))
        due = course.told_at is None or self._now() - course.told_at >= _APART
        if by_person or (course.told != result and due):
            self._tell(course, act, target, advice, result, user)

    def end(self, targets: list[Target]) -> None:
        """Nothing is written from now on."""
        for target in targets:
            course = self._courses.pop(target.node, None)
            if course is not None:
                self._tell(course, "write ends", target, target.written, course.told, "foretag")

    def _tell(self, course: _Course, act: str, target: Target, advice: Advice | None, result: str, user: str) -> None:
        before = {"result": course.told} if course.told else {}
        after: dict[str, Any] = {"node": target.node, "result": result, "since": dict(course.counts)}
        if advice is not None:
            after |= {"value": advice.value.number, "status": advice.value.status, "from": advice.origin}
            after |= {"approved_by": advice.approved} if advice.approved else {}
        origin = "opcua" if user != "foretag" else "service"
        self._waiting.append(Audit(self._now(), user, origin, act, target.tag.name, before, after))
        course.told, course.told_at = result, self._now()
        course.counts.clear()
        self._news.set()

    async def keep(self) -> None:
        """Put on record what was noted, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._flush()

    async def close(self) -> None:
        """The rest, within a bounded time."""
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._flush()
        except TimeoutError:
            _log.warning("write-back: %d entries are in the file audit.log alone", len(self._waiting))

    async def _flush(self) -> None:
        while self._waiting:
            entries = tuple(self._waiting)
            try:
                await self._record(*entries)
            except ForetagError as error:
                _log.error("write-back: entries are in the file audit.log alone: %s", error)
            del self._waiting[: len(entries)]
