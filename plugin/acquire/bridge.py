"""How long a cut may last before the server drops values: what it has granted, which may be less than was asked."""

import logging
from collections.abc import Iterable, Iterator

from prometheus_client import Gauge

from plugin.acquire.config import SourceConfig
from plugin.acquire.subscription import Subscription

_log = logging.getLogger(__name__)

_MUCH_LESS = 0.5  # of what was asked for


class Bridge:
    """Of one source: the shortest of all that has to outlast a cut."""

    def __init__(self, config: SourceConfig, gauge: Gauge) -> None:
        self._source = config.name
        self._wanted = config.bridge.total_seconds()
        self._gauge = gauge
        self._said = ""

    def measure(self, session: float, subscriptions: Iterable[Subscription]) -> None:
        """After subscriptions were made or taken up; ``session``: its timeout [s]. Too short a bridge is said once."""
        seconds, by = min(_granted(session, subscriptions), default=(0.0, ""))
        self._gauge.set(seconds)
        if by != self._said and seconds < _MUCH_LESS * self._wanted:
            _log.warning(
                "%s: a cut longer than %.3g s may lose values, bridge = %g s was asked for: %s last no longer",
                self._source, seconds, self._wanted, by,
            )  # fmt: skip
            self._said = by


def _granted(session: float, subscriptions: Iterable[Subscription]) -> Iterator[tuple[float, str]]:
    """Seconds that each lasts, and what it is, for a person."""
    if session:
        yield session, "the session and all in it"
    for subscription in subscriptions:
        if subscription.id and subscription.lifetime:
            yield subscription.lifetime, "the subscriptions"
        # an item without an interval reports at changes: how long its queue lasts, the plant decides
        queues = [item.queue * item.sampling / 1000 for item in subscription.items if item.id and item.sampling > 0]
        if queues:
            shortest = min(queues)
            alike = sum(queue <= shortest for queue in queues)
            yield shortest, f"the queues of {alike} tag(s)"
