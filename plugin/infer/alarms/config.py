"""The section ``[alarms]``: when operators are called, how loudly, and how often."""

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from plugin.fields import Duration, Section
from plugin.infer.alarms.condition import Rules


class AlarmsConfig(Section):
    """Alarms of what models predict, and of what they rely on (ISA-18.2, OPC 10000-9)."""

    enabled: bool = True
    """False: there are no alarms and no nodes of them."""
    on_delay: Duration = timedelta(0)
    """How long something is wrong before the alarm is raised; anomalies have delays of their own, in ``[[models]]``."""
    off_delay: Duration = timedelta(0)
    """How long all is well before the alarm returns to normal."""
    source_delay: Duration = timedelta(seconds=30)
    """As ``on_delay``, of a plant server that is away and of tags that are silent, late or flat."""
    dead_band: float = Field(default=0.02, ge=0.0, lt=0.5)
    """Of the range of a remaining life: how far it has to rise above a limit before it counts as returned."""
    realarm: Duration = timedelta(0)
    """An alarm that stays active for so long is raised again; 0: never."""
    confirm: bool = False
    """Operators confirm what was done, after they acknowledged."""
    longest_shelf: Duration = Field(default=timedelta(hours=8), gt=timedelta(0))
    """How long an alarm may be shelved."""
    notice: int = Field(default=300, ge=1, le=1000)
    """Severity, 1 to 1000, of what is the business of maintenance: drift of a model, a fault of an instrument."""
    warning: int = Field(default=500, ge=1, le=1000)
    """Severity of the first limit."""
    urgent: int = Field(default=800, ge=1, le=1000)
    """Severity of the second limit, of a source that is away, and of the case of an asset."""
    urgent_score: float = Field(default=2.0, gt=1.0)
    """An anomaly is urgent where its score is over so many times the threshold."""
    deviation: tuple[float, float] = (2.0, 4.0)
    """A measurement is an alarm, and an urgent one, so many half-widths of the interval away from what was expected."""
    normal_states: tuple[str, ...] = ("normal", "healthy", "ok", "good")
    """Names of states that are no alarm, in any case of letters; a model that knows none of them has its first one."""
    flood: int = Field(default=5, ge=1)
    """An asset that raises more alarms than so many within ``flood_window`` shows the rest as one: its case."""
    flood_window: Duration = Field(default=timedelta(minutes=10), gt=timedelta(0))
    """See ``flood``."""
    advice: dict[str, str] = Field(default_factory=dict)
    """By model: what operators are told to do, such as ``rul = "Plan a washing of the compressor"``."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.notice <= self.warning <= self.urgent:
            raise ValueError("notice, warning and urgent are not in order; the more urgent, the higher the severity")
        if not 0.0 < self.deviation[0] < self.deviation[1]:
            raise ValueError("deviation is not in order; write the smaller limit first, both above 0")
        return self

    @property
    def rules(self) -> Rules:
        """Of conditions that follow a model."""
        return Rules(self.on_delay, self.off_delay, self.realarm, self.confirm, self.longest_shelf)

    @property
    def source_rules(self) -> Rules:
        """Of conditions that follow a source."""
        return Rules(self.source_delay, self.off_delay, self.realarm, self.confirm, self.longest_shelf)
