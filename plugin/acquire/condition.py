"""What a server says of itself while it is connected: its state, its ServiceLevel, its clock.

Asked by a small Read now and then. No answer is no reason to doubt a server: its notifications say whether it lives.
"""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import SourceConfig
from plugin.acquire.session import translated
from plugin.acquire.wire import now_micros
from plugin.domain import Micros, to_micros
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_LEAST_PAUSE = 0.5  # [s]
_HEALTHY = 200  # ServiceLevel from which a server calls itself healthy (OPC 10000-4, 6.6.2.4.2)
_UNFIT = frozenset((ua.ServerState.Failed, ua.ServerState.NoConfiguration, ua.ServerState.Suspended))
"""States in which a server has no values to give (OPC 10000-5, 12.6)."""
_CLOCK_IS_OFF = 5_000_000  # [µs]
_CLOCK_IS_RIGHT = 2_000_000


class Condition:
    """Of one server, over many connections."""

    def __init__(self, config: SourceConfig) -> None:
        self.service_level: int | None = None
        self.ahead: Micros | None = None
        """How far its clock is ahead of ours."""
        self.heard: Micros = 0
        """Its clock, when it last answered."""
        self.unfit_since: Micros | None = None
        """When it was first seen to say that its values can't be relied on, by its clock; None: it doesn't say so."""
        self.trouble = ""
        """What it says, where that is not that all is well."""
        self._name = config.name
        self._least = config.watchdog.service_level
        self._pause = max(config.keep_alive.total_seconds(), _LEAST_PAUSE)
        self._clock_is_off = False

    async def watch(self, services: UaSession) -> None:
        """For as long as the connection lasts."""
        try:
            while True:
                with contextlib.suppress(SourceUnreachable):
                    self._take(*await _ask(services))
                await asyncio.sleep(self._pause)
        finally:
            self.service_level, self.unfit_since, self.trouble = None, None, ""

    def _take(self, state: object, level: object, clock: object) -> None:
        now = now_micros()
        if isinstance(clock, datetime):
            self.heard = to_micros(clock if clock.tzinfo else clock.replace(tzinfo=UTC))
            self.ahead = self.heard - now
            self._compare_clocks(self.ahead)
        self.service_level = level if isinstance(level, int) else None
        said = _state(state)
        trouble = [f"the server says that it is {said.name}"] if said not in {None, ua.ServerState.Running} else []
        if self.service_level is not None and self.service_level < _HEALTHY:
            trouble.append(f"its ServiceLevel is {self.service_level}")
        unfit = said in _UNFIT or (self.service_level is not None and self.service_level < self._least)
        if unfit:
            trouble.append("its values are not relied on")
        self.unfit_since = (self.unfit_since or self.heard or now) if unfit else None
        self._tell("; ".join(trouble))

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _log.warning("%s: %s", self._name, trouble)
        elif self.trouble and not trouble:
            _log.info("%s: the server says that all is well", self._name)
        self.trouble = trouble

    def _compare_clocks(self, ahead: Micros) -> None:
        """Source times are what models and operators go by: a clock that is off is worth one line."""
        if abs(ahead) > _CLOCK_IS_OFF and not self._clock_is_off:
            direction = "ahead of" if ahead > 0 else "behind"
            _log.warning("%s: the server's clock is %.0f s %s ours", self._name, abs(ahead) / 1e6, direction)
            self._clock_is_off = True
        elif abs(ahead) < _CLOCK_IS_RIGHT:
            self._clock_is_off = False


async def _ask(services: UaSession) -> tuple[object, object, object]:
    """State, ServiceLevel and clock; None for what the server does not have."""
    ids = ua.ObjectIds
    wanted = ids.Server_ServerStatus_State, ids.Server_ServiceLevel, ids.Server_ServerStatus_CurrentTime
    with translated("read the server's state"):
        found = await services.read_attributes([ua.NodeId(ua.Int32(one)) for one in wanted], ua.AttributeIds.Value)
    state, level, clock = (each.Value.Value if each.Value else None for each in found)
    return state, level, clock


def _state(said: object) -> ua.ServerState | None:
    try:
        return ua.ServerState(said) if isinstance(said, int) else None
    except ValueError:
        return None
