"""All conditions of the plant. Each change is stored, with the events that tell of it, before anybody hears of it."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import NAMESPACE_OID, uuid5

from plugin.diagnostics import Diagnostics
from plugin.domain import Alarm, Label, LabelKind, Verdict
from plugin.errors import StoreError
from plugin.infer.alarms import acts, inputs
from plugin.infer.alarms.acts import By, Refusal, Refused
from plugin.infer.alarms.cases import Floods, case
from plugin.infer.alarms.catalogue import case_of
from plugin.infer.alarms.condition import Condition, ConditionClass, ConditionType
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.findings import Found, with_advice
from plugin.infer.alarms.load import Load, Meter
from plugin.infer.alarms.state import State, Step, first
from plugin.infer.alarms.told import Notice, event
from plugin.protocols import Store

_log = logging.getLogger(__name__)

Announce = Callable[[Sequence[Notice]], None]
"""Publishes notifications that are stored; does not fail. Without any: there are more conditions than before."""


def _now() -> datetime:
    return datetime.now(UTC)


class Room:
    """The control room: what stands, what is found, and what operators do about it."""

    def __init__(
        self, config: AlarmsConfig, store: Store, diagnostics: Diagnostics, clock: Callable[[], datetime] = _now
    ) -> None:
        self._store = store
        self._diagnostics = diagnostics
        self._clock = clock
        self._states: dict[str, State] = {}
        self._timed: set[str] = set()
        """Those that have something to do when time passes."""
        self._shown: dict[str, None] = {}
        """Those that have something to show."""
        self._of_asset: defaultdict[str, list[str]] = defaultdict(list)
        self._changing = asyncio.Lock()
        self._announce: list[Announce] = []
        self._floods = Floods(config.flood, config.flood_window)
        self._meter = Meter(clock())

    @property
    def states(self) -> Mapping[str, State]:
        """By key of the condition."""
        return MappingProxyType(self._states)

    @property
    def load(self) -> Load:
        """How much operators are called for."""
        return self._meter.load(self._clock())

    def reset_load(self) -> None:
        """Count it anew from now on."""
        self._meter.reset(self._clock())

    def listen(self, announce: Announce) -> None:
        """From now on it is told of each notification, in their order."""
        self._announce.append(announce)

    def retained(self) -> list[Notice]:
        """What a client that refreshes is shown, as it was told last: same EventId, same time."""
        shown = [self._states[key] for key in self._shown]
        return [Notice(state.condition, alarm) for state in shown for alarm in state.retained]

    async def furnish(self, conditions: Iterable[Condition], *, all_there_are: bool = True) -> None:
        """Make conditions, each as it was left; ``all_there_are``: what others are stored is shown no more."""
        new = {each.id: each for each in conditions if each.id not in self._states}
        stored: defaultdict[str, list[Alarm]] = defaultdict(list)
        for alarm in await self._store.alarms():
            stored[alarm.id].append(alarm)
        async with self._changing:
            now = self._clock()
            for key, condition in new.items():
                self._states[key] = _restored(condition, stored.get(key, ()), now)
                self._file(key, now)
                if condition.asset:
                    self._of_asset[condition.asset].append(key)
            if all_there_are:
                await self._retire([alarms for key, alarms in stored.items() if key not in self._states], now)
        for announce in self._announce:
            announce(())

    async def take(self, found: Iterable[Found]) -> None:
        """What was found of some conditions. Raises StoreError, with nothing changed."""
        async with self._changing:
            now, round_ = self._clock(), _Round(self._states)
            for key, seen in found:
                state = round_.states.get(key)
                if state is not None and _is_news(state, seen):
                    self._see(round_, inputs.see, state, with_advice(state.condition, seen), now)
            self._settle_cases(round_, now)
            await self._commit(round_, now)

    async def pass_time(self) -> None:
        """What is due by the clock alone: shelves that end, alarms that are raised again."""
        async with self._changing:
            now, round_ = self._clock(), _Round(self._states)
            for key in self._timed:
                round_.put(inputs.pass_time(self._states[key], now))
            self._settle_cases(round_, now)
            await self._commit(round_, now)
        self._measure()

    async def act(self, key: str, act: Callable[[State, datetime], Step]) -> None:
        """What an operator does. Raises Refused, with nothing changed, also where it can't be stored."""
        async with self._changing:
            now, round_ = self._clock(), _Round(self._states)
            round_.put(act(self._known(key), now))
            try:
                await self._commit(round_, now)
            except StoreError as error:
                _log.warning("an operator's act on %s could not be stored: %s", key, error)
                raise Refused(Refusal.NOT_STORED) from error

    async def judge(self, key: str, event_id: str, verdict: Verdict, comment: str, user: str) -> Label:
        """An operator's word on what a model raised: a label, and a comment. Given twice, the later one counts."""
        state, now = self._known(key), self._clock()
        alarm = state.find(event_id)
        if alarm is None:
            raise Refused(Refusal.UNKNOWN_EVENT)
        if not alarm.model or alarm.as_of is None:
            raise Refused(Refusal.ARGUMENT)
        label = Label(
            id=str(uuid5(NAMESPACE_OID, f"{key} {alarm.run}")), kind=LabelKind.VERDICT, asset=state.condition.asset,
            start=alarm.as_of, created=now, verdict=verdict, model=alarm.model, as_of=alarm.as_of, run=alarm.run,
            note=comment, user=user,
        )  # fmt: skip
        text = f"{verdict.value.replace('_', ' ')}: {comment}" if comment else verdict.value.replace("_", " ")
        await self.act(key, lambda state, now: acts.comment(state, event_id, By(user, now, text)))
        try:
            await self._store.write_labels([label], origin="opcua")
        except StoreError as error:
            raise Refused(Refusal.NOT_STORED) from error
        return label

    # --- one round of changes ---------------------------------------------------------------------------------------

    def _known(self, key: str) -> State:
        state = self._states.get(key)
        if state is None:
            raise Refused(Refusal.UNKNOWN_CONDITION)
        return state

    def _see(self, round_: "_Round", see: Callable[..., Step], state: State, seen: inputs.Seen, now: datetime) -> None:
        """An alarm too many of its asset goes into the asset's case: it is told as suppressed."""
        step, asset = see(state, seen, now), state.condition.asset
        if step.raised and asset and state.condition.id != case_of(asset):
            if self._floods.full(asset, now):
                aside = replace(state, current=replace(state.current, gathered=True))
                step = see(aside, seen, now)
            else:
                self._floods.count(asset, now)
        round_.put(step)

    def _settle_cases(self, round_: "_Round", now: datetime) -> None:
        """Open, keep or close the cases of the assets that changed; a closed one lets its alarms go."""
        for asset in {round_.states[key].condition.asset for key in round_.changed} - {""}:
            key = case_of(asset)
            if key not in round_.states:
                continue
            members = [round_.states[each] for each in self._of_asset[asset] if each != key]
            seen = case(members)
            state = round_.states[key]
            if not seen.level:
                for member in members:
                    round_.put(inputs.gather(member, False, now))
            if seen.level != state.current.level:
                round_.put(inputs.see(state, with_advice(state.condition, seen), now))

    async def _commit(self, round_: "_Round", now: datetime) -> None:
        if round_.told:
            alarms = {(alarm.id, alarm.branch): alarm for alarm in round_.told}
            notices = [Notice(round_.states[alarm.id].condition, alarm) for alarm in round_.told]
            await self._store.write_alarms(list(alarms.values()), [event(notice, now) for notice in notices])
        else:
            notices = []
        for key in round_.changed:
            self._states[key] = round_.states[key]
            self._file(key, now)
        for key in round_.raised:
            self._meter.count(now)
            self._diagnostics.alarms_raised.labels(self._states[key].condition.classed.value).inc()
        if notices:
            self._measure()
            for announce in self._announce:
                announce(notices)

    def _file(self, key: str, now: datetime) -> None:
        state = self._states[key]
        self._meter.follow(state.current, now, state.branches)
        (self._timed.add if inputs.due(state) is not None else self._timed.discard)(key)
        if state.retained:
            self._shown[key] = None
        else:
            self._shown.pop(key, None)

    async def _retire(self, strangers: Iterable[Sequence[Alarm]], now: datetime) -> None:
        """Alarms that were stored and are configured no more: they would stand in the reports for ever."""
        told: list[Alarm] = []
        for alarms in strangers:
            current = next((alarm for alarm in alarms if not alarm.branch), alarms[0])
            branches = tuple(alarm for alarm in alarms if alarm.branch)
            told += inputs.retire(State(_stranger(current), current, branches), now).told
        if told:
            notices = [Notice(_stranger(alarm), alarm) for alarm in told]
            await self._store.write_alarms(told, [event(notice, now) for notice in notices])

    def _measure(self) -> None:
        load, shown = self.load, [notice.alarm for notice in self.retained()]
        self._diagnostics.alarms_active.set(sum(alarm.active for alarm in shown))
        self._diagnostics.alarms_unacknowledged.set(sum(not alarm.acknowledged for alarm in shown))
        self._diagnostics.alarm_rate.set(load.current)
        self._diagnostics.alarm_rate_average.set(load.average)
        self._diagnostics.alarm_rate_maximum.set(load.maximum)


class _Round:
    """Changes that are stored in one transaction."""

    def __init__(self, states: Mapping[str, State]) -> None:
        self.states = dict(states)
        self.changed: dict[str, None] = {}
        self.told: list[Alarm] = []
        self.raised: list[str] = []

    def put(self, step: Step) -> None:
        key = step.state.condition.id
        self.states[key] = step.state
        self.changed[key] = None
        self.told += step.told
        if step.raised:
            self.raised.append(key)


def _is_news(state: State, seen: inputs.Seen) -> bool:
    current = state.current
    return state.pending is not None or (current.level, current.quality) != (seen.level, seen.quality)


def _restored(condition: Condition, alarms: Sequence[Alarm], now: datetime) -> State:
    current = next((alarm for alarm in alarms if not alarm.branch), None)
    if current is None:
        return first(condition, now)
    return State(condition, current, tuple(alarm for alarm in alarms if alarm.branch and alarm.retain))


def _stranger(alarm: Alarm) -> Condition:
    return Condition(alarm.id, alarm.id, ConditionType.SYSTEM, ConditionClass.SYSTEM, alarm.source, (alarm.severity,))
