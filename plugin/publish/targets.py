"""What a rule of the write-back allows: which nodes, which values, how fast, and when a write is tried again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase

from plugin.domain import Flag, OutputTag, Prediction, Quality, Status, quality
from plugin.publish.config import WriteBackConfig, WriteRule
from plugin.publish.plant_values import Demand, Node, Value, as_stored, fits

_PASSING = frozenset(
    {
        "ReadBackDiffers", "BadTimeout", "BadCommunicationError", "BadNoCommunication", "BadDeviceFailure",
        "BadNotConnected", "BadResourceUnavailable", "BadOutOfService", "BadServerHalted", "BadTooManyOperations",
        "BadWaitingForInitialData", "BadUnexpectedError", "BadInternalError",
    }
)  # fmt: skip
"""What may be well a moment later; a node that may not be written, or not with this value, stays so."""
_FIRST_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Advice:
    """One value for one node, and where it comes from."""

    value: Value
    valid_until: datetime | None
    origin: str
    """For the audit: model, version and run."""
    approved: str = ""
    """By whom, where the rule asks for it."""

    def stale(self, now: datetime) -> bool:
        """Too old to be written."""
        return self.valid_until is not None and self.valid_until <= now

    def doubted(self, status: int, source_time: datetime | None = None) -> "Advice":
        """The same number with another status."""
        return replace(
            self, value=replace(self.value, status=status, source_time=source_time or self.value.source_time)
        )


@dataclass(slots=True, eq=False)
class Target:
    """One node that may be written, and what waits for it."""

    rule: WriteRule
    tag: OutputTag
    node: str
    demand: Demand
    advised: Advice | None = None
    """Waits for an operator's approval."""
    pending: Advice | None = None
    written: Advice | None = None
    """The last that was written, until it has grown stale."""
    reference: tuple[float, datetime] | None = None
    """The last number that was written, and when: what the rate of change is counted from."""
    not_before: float = 0.0
    """Time of the loop before which nothing may be written [s]: minimum interval, or the pause before another try."""
    failed: str = field(default="")
    """Why the pending value could not be written yet."""
    tries: int = 0

    @property
    def marks(self) -> bool:
        """What was written before may be made Uncertain without anybody's word."""
        return self.rule.uncertain != "skip" and not self.rule.approval

    def mark(self, status: int, source_time: datetime | None = None) -> Advice | None:
        """What makes the written value Uncertain; None where that may not be."""
        if self.written is None or not self.marks or quality(self.written.value.status) is not Quality.GOOD:
            return None
        return replace(self.written.doubted(status, source_time), valid_until=None)

    def try_again(self, result: str, now: float) -> bool:
        """Whether the pending value stays for another try."""
        if result not in _PASSING or self.tries >= self.rule.retries:
            return False
        pause = max(self.rule.minimum_interval.total_seconds(), _FIRST_PAUSE * 2.0**self.tries)
        self.tries, self.failed, self.not_before = self.tries + 1, result, now + pause
        return True


def targets(config: WriteBackConfig, source: str, tags: Sequence[OutputTag]) -> Iterator[Target]:
    """Of all rules, whether or not anything is written at present."""
    for rule in config.rules:
        for tag in tags:
            named = rule.source == source and rule.model == tag.model and rule.output == tag.output
            if named and fnmatchcase(tag.asset, rule.assets):
                node = rule.node.format(asset=tag.asset, model=tag.model, output=tag.output)
                yield Target(rule, tag, node, Demand(node, tag.flag if rule.create else None, rule.tolerance))


def of_prediction(prediction: Prediction) -> Advice | None:
    """What it would write; None: it has no number."""
    if prediction.value is None:
        return None
    origin = f"{prediction.tag.name} version={prediction.version} run={prediction.run}"
    return Advice(Value(prediction.value, prediction.status, prediction.as_of), prediction.valid_until, origin)


def of_flag(flag: Flag, valid_until: datetime | None) -> Advice:
    """1 where it is raised."""
    origin = f"{flag.asset}.{flag.model} version={flag.version} run={flag.run}"
    return Advice(Value(float(flag.raised), flag.status, flag.as_of), valid_until, origin)


def refusal(rule: WriteRule, advice: Advice | None) -> str:
    """Why a value may not be written; empty where it may."""
    if advice is None or quality(advice.value.status) is Quality.BAD:
        return "bad"
    if not rule.low <= advice.value.number <= rule.high:
        return "out_of_range"
    uncertain = quality(advice.value.status) is Quality.UNCERTAIN
    return "uncertain" if uncertain and rule.uncertain != "write" else ""


def unfit(target: Target, advice: Advice, node: Node, now: datetime) -> str:
    """Why it may not be written to the node that was found; empty where it may."""
    if _too_fast(target, advice, node, now):
        return "rate"
    return "out_of_range" if _rounded_out(target, advice, node) else ""


def _too_fast(target: Target, advice: Advice, node: Node, now: datetime) -> bool:
    """More change than the rule's rate allows since the last write; before the first, since the plant's own value."""
    known = target.reference or node.present
    if target.rule.rate is None or known is None:
        return False
    number, since = known
    allowed = target.rule.rate * max((now - since).total_seconds(), 0.0) / 60.0
    return abs(advice.value.number - number) > allowed


def _rounded_out(target: Target, advice: Advice, node: Node) -> bool:
    """The number is within the rule's range, and the integer that the node would hold is not."""
    number = advice.value.number
    if not fits(node.kind, number):
        return False
    held = as_stored(node.kind, number)
    return isinstance(held, int) and not target.rule.low <= held <= target.rule.high


CUT_OFF = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
STALE = Status.UNCERTAIN_LAST_USABLE_VALUE
