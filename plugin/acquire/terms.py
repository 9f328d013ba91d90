"""What is asked of a server for a subscription: how often it reports, how soon it says that it lives, how long it
waits for us."""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from asyncua import ua

from plugin.acquire.config import SourceConfig

_VALUES = 5000  # in one message at most; a message per value would never catch up over a slow line
_LONGEST = 3600.0  # [s] whatever a server grants

_Parameters = TypeVar("_Parameters", ua.CreateSubscriptionParameters, ua.ModifySubscriptionParameters)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a server for a subscription."""

    interval: timedelta
    keep_alive: int
    """Publishing intervals."""
    lifetime: int
    """Publishing intervals."""
    values: int
    """In one message, at most."""

    @classmethod
    def of(cls, config: SourceConfig) -> "Terms":
        interval = config.publishing_interval
        alive = max(1, math.ceil(config.keep_alive / interval))
        lifetime = max(3 * alive, math.ceil(config.bridge / interval))
        return cls(interval, alive, lifetime, max(_VALUES, config.subscription_size))

    def asked(self, parameters: _Parameters) -> _Parameters:
        """In the words of CreateSubscription and of ModifySubscription."""
        parameters.RequestedPublishingInterval = self.interval.total_seconds() * 1000
        parameters.RequestedMaxKeepAliveCount = ua.UInt32(self.keep_alive)
        parameters.RequestedLifetimeCount = ua.UInt32(self.lifetime)
        parameters.MaxNotificationsPerPublish = ua.UInt32(self.values)
        return parameters

    def granted(self, answer: ua.CreateSubscriptionResult | ua.ModifySubscriptionResult) -> tuple[float, float]:
        """Longest silence and lifetime [s]; as asked for where the answer makes no sense."""
        interval = answer.RevisedPublishingInterval / 1000
        silence, lifetime = interval * answer.RevisedMaxKeepAliveCount, interval * answer.RevisedLifetimeCount
        asked = self.interval.total_seconds()
        return (
            min(silence, _LONGEST) if silence > 0 else asked * self.keep_alive,
            min(lifetime, _LONGEST) if lifetime > 0 else asked * self.lifetime,
        )

    def text(self) -> str:
        """For a comparison."""
        return f"{self.interval.total_seconds():g} {self.keep_alive} {self.lifetime} {self.values}"
