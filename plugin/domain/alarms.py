"""Alarms, in the words of ISA-18.2 and with the fields of OPC 10000-9."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AlarmState(StrEnum):
    """Where an alarm stands (ISA-18.2, figure of the alarm's states)."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    """Active, and nobody has taken note yet."""
    ACKNOWLEDGED = "acknowledged"
    """Active, and somebody has."""
    RETURNED = "returned"
    """No longer active, and nobody has taken note yet."""
    SHELVED = "shelved"
    """Put aside by an operator until a time."""
    SUPPRESSED = "suppressed"
    """Put aside by the plant's design, such as of a unit that stands still."""
    OUT_OF_SERVICE = "out_of_service"
    """Put aside by maintenance."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """How one alarm stands, to be found again after a restart; what led to it are :class:`plugin.domain.Event`."""

    id: str
    """Of the condition (ConditionId); there is one row for it and each of its branches."""
    event_id: str
    """Of the last notification, as hexadecimal digits: what an operator's client acknowledges."""
    source: str
    """Asset, model or plant server that it is about."""
    condition_type: str
    """BrowseName of the OPC UA type, such as ``ExclusiveLevelAlarmType``."""
    condition_class: str
    """Such as ``ProcessConditionClassType``."""
    severity: int
    """1..1000."""
    time: datetime
    """Of the last change of state."""
    branch: str = ""
    """An earlier state that still waits to be acknowledged; empty: the current one."""
    model: str = ""
    """With ``version``: whose flag it follows; empty: none's."""
    version: int = 0
    enabled: bool = True
    active: bool = False
    acknowledged: bool = True
    confirmed: bool = True
    suppressed: bool = False
    shelved_until: datetime | None = None
    """None: not shelved."""
    retain: bool = False
    """Whether a client that refreshes is shown it."""
    quality: int = 0
    """StatusCode of the input."""
    message: str = ""
    comment: str = ""
    user: str = ""
    """Who acknowledged or commented last."""
    active_time: datetime | None = None
    """When it last became active."""
    acknowledged_time: datetime | None = None
    returned_time: datetime | None = None
    """When it last ceased to be active."""
    run: int = 0
    """Key of the run whose flag it follows; 0: none."""
    as_of: datetime | None = None
    """Of what that run said, when the alarm last became active: what a verdict is about."""
    level: int = 0
    """How far it has gone: 0 not active, 1 active or beyond the first limit, 2 beyond the second."""
    last_severity: int = 0
    """Before the last change of severity; 0: there was none."""
    one_shot: bool = False
    """Shelved until it has returned to normal, or ``shelved_until``, whichever comes first."""
    gathered: bool = False
    """Put aside because its asset has raised many: they are shown as one case."""
    repeats: int = 0
    """How often it was raised again because it stayed active for long."""

    @property
    def put_aside(self) -> bool:
        """SuppressedOrShelved: it is not to be announced (OPC 10000-9, 5.8.2)."""
        return self.suppressed or self.gathered or self.shelved_until is not None

    @property
    def state(self) -> AlarmState:
        """What an operator sees; what is put aside shows as that, whatever is beneath."""
        if not self.enabled:
            return AlarmState.OUT_OF_SERVICE
        if self.shelved_until is not None:
            return AlarmState.SHELVED
        if self.suppressed or self.gathered:
            return AlarmState.SUPPRESSED
        if self.active:
            return AlarmState.ACKNOWLEDGED if self.acknowledged else AlarmState.UNACKNOWLEDGED
        return AlarmState.NORMAL if self.acknowledged else AlarmState.RETURNED
