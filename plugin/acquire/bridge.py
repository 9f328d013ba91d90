"""How long a cut may last before the server drops values: what it has granted, which may be less than was asked."""

from collections.abc import Iterable
from dataclasses import dataclass

from plugin.acquire.subscription import Subscription


@dataclass(frozen=True, slots=True)
class Bridge:
    """The shortest of all that has to outlast a cut."""

    seconds: float
    """[s]; 0: nothing was granted yet."""
    by: str
    """What ends first, for a person."""

    @classmethod
    def granted(cls, session: float, subscriptions: Iterable[Subscription]) -> "Bridge":
        """Of a session's timeout [s], its subscriptions' lifetimes and their items' queues."""
        found = [cls(session, "the session")] if session else []
        for subscription in subscriptions:
            if subscription.id and subscription.lifetime:
                found.append(cls(subscription.lifetime, "the subscriptions"))
            # an item without an interval reports at changes: how long its queue lasts, the plant decides
            queues = [item.queue * item.sampling / 1000 for item in subscription.items if item.id and item.sampling > 0]
            if queues:
                shortest = min(queues)
                alike = sum(queue <= shortest for queue in queues)
                found.append(cls(shortest, f"the queues of {alike} tag(s)"))
        return min(found, key=lambda bridge: bridge.seconds, default=cls(0.0, ""))
