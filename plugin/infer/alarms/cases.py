"""An asset that raises many alarms at once is one case: what comes after the first few is gathered in it. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from plugin.infer.alarms.catalogue import case_of
from plugin.infer.alarms.inputs import Seen
from plugin.infer.alarms.state import State

_NAMED = 5


class Floods:
    """Which assets have raised more alarms than ``most`` within ``window``."""

    def __init__(self, most: int, window: timedelta) -> None:
        self._most, self._window = most, window
        self._raised: dict[str, deque[datetime]] = {}

    def full(self, asset: str, now: datetime) -> bool:
        """One more is too many."""
        times = self._raised.get(asset, deque())
        while times and times[0] <= now - self._window:
            times.popleft()
        return len(times) >= self._most

    def count(self, asset: str, now: datetime) -> None:
        """One more was announced."""
        self._raised.setdefault(asset, deque(maxlen=self._most)).append(now)


def members(states: Mapping[str, State], asset: str) -> list[State]:
    """The conditions of an asset, but for its case."""
    return [each for each in states.values() if each.condition.asset == asset and each.condition.id != case_of(asset)]


def case(states: Iterable[State]) -> Seen:
    """How the case of an asset stands, from its conditions: it lasts until all that it gathered is normal again."""
    gathered = [state for state in states if state.current.gathered]
    active = [state.current for state in gathered if state.current.active]
    if not active:
        return Seen(0)
    names = ", ".join(state.condition.name for state in gathered[:_NAMED])
    more = f" and {len(gathered) - _NAMED} more" if len(gathered) > _NAMED else ""
    return Seen(1, f"Many alarms at once, of which are shown as this one: {names}{more}.")
