"""The status that a value is shown with: what its run gave, made worse by what became of it since.

The first of these that holds (OPC 10000-8, 6.3; OPC 10000-4, 7.39):

===============================================  =======================================
the model is switched off                        BadOutOfService, no value
there is no model for this configuration         BadConfigurationError, no value
no run has given a value yet                     BadWaitingForInitialData, no value
its run gave no number                           Bad, as the run says; no value
it is past its time, whatever the scheduler does UncertainLastUsableValue
the source of its inputs is away                 UncertainNoCommunicationLastUsableValue
its run gave it as Uncertain: too few inputs     UncertainSubNormal
… or a value out of its range                    UncertainEngineeringUnitsExceeded
the model has drifted away from this asset       UncertainSubNormal
the plant is a simulated one                     UncertainSimulatedValue
===============================================  =======================================
"""

from datetime import datetime

from plugin.domain import HIGH_LIMITED, Quality, Status, quality

_LEFT_BEHIND = frozenset((Status.UNCERTAIN_LAST_USABLE_VALUE, Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE))
"""Of a value that was right when it was made, and is not renewed."""


class Shown:
    """What one value is shown with at present."""

    __slots__ = ("_given", "_simulated", "_stale", "cut_off", "drifting", "valid_until", "withheld")

    def __init__(self, *, simulated: bool = False) -> None:
        self._given: int = Status.BAD_WAITING_FOR_INITIAL_DATA
        self._simulated = simulated
        self._stale = False
        self.valid_until: datetime | None = None
        self.cut_off = False
        """The source of its inputs is away."""
        self.drifting = False
        self.withheld: Status | None = None
        """Bad, in place of any value."""

    @property
    def status(self) -> int:
        """As the table says."""
        if self.withheld is not None:
            return self.withheld
        if quality(self._given) is Quality.BAD:
            return self._given
        if self._stale:
            return Status.UNCERTAIN_LAST_USABLE_VALUE
        if self.cut_off:
            return Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
        return self._fresh()

    def _fresh(self) -> int:
        if quality(self._given) is not Quality.GOOD:
            return self._given
        if self.drifting:
            return Status.UNCERTAIN_SUB_NORMAL
        return Status.UNCERTAIN_SIMULATED_VALUE if self._simulated else self._given

    @property
    def usable(self) -> bool:
        """Neither Bad nor left behind."""
        status = self.status
        return quality(status) is not Quality.BAD and status & ~HIGH_LIMITED not in _LEFT_BEHIND

    def take(self, given: int, valid_until: datetime | None) -> int:
        """A new value, which is there whatever was withheld; returns the status that it is shown with."""
        self._given, self.valid_until, self._stale, self.withheld = given, valid_until, False, None
        untroubled = not (given or self.cut_off or self.drifting or self._simulated)
        return given if untroubled else self.status

    def withhold(self, status: Status | None) -> None:
        """No value from now on; None: until the next run."""
        self.withheld = status
        self._given, self.valid_until, self._stale = Status.BAD_WAITING_FOR_INITIAL_DATA, None, False

    def expire(self, now: datetime) -> bool:
        """True where it is past its time since now."""
        if self._stale or self.valid_until is None or now < self.valid_until or quality(self._given) is Quality.BAD:
            return False
        self._stale = True
        return self.withheld is None
