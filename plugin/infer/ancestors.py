"""Which version a training begins from, and what that one has seen: of it nothing may be held out, or learnt twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from models.adapting import Start
from plugin.domain import ModelVersion, to_micros
from plugin.errors import ModelError, TrainingDataError
from plugin.infer.config import ModelConfig
from plugin.infer.cutting import Stretch
from plugin.infer.registry import Registry

_SEEN = "seen_before"
"""In a version's provenance: by asset, until when those that it comes from had seen it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for."""

    label: str
    """Number of a version of the same model, or a version's name, such as ``rul-3``."""
    head_only: bool = False
    """Train the last layer alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Ancestor:
    """The version that a training begins from."""

    version: ModelVersion
    start: Start
    seen: Mapping[str, datetime]
    """By asset: until when it was learnt from, by the version or by those that it comes from in turn."""

    def unseen(self, config: ModelConfig, asset: str, found: Sequence[Stretch]) -> list[Stretch]:
        """What the version can't have learnt from. A run to failure is learnt from once it has ended."""
        if asset not in self.seen:
            return list(found)
        since, whole = to_micros(self.seen[asset]), config.training.learn == "failures"
        return [each for each in found if (each.end > since if whole else each.group[0] >= since)]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """For the version that comes of it."""
        seen = {asset: until.isoformat() for asset, until in sorted(self.seen.items())}
        return {"from": self.version.label, "head_only": self.start.head_only, _SEEN: seen}

    def nothing_left(self, config: ModelConfig) -> TrainingDataError:
        """Of what it has not seen."""
        until = max(self.seen.values()).isoformat(timespec="seconds")
        return TrainingDataError(
            f"model {config.name}: the history holds nothing to learn from that {self.version.label} has not seen "
            f"(until {until}); wait for more, or train from scratch"
        )


async def ancestor(wish: Wish, config: ModelConfig, registry: Registry) -> Ancestor:
    """ModelError where there is no such version, it can't be loaded, or the model is to be a light one."""
    model, number = _named(wish.label, config.name)
    if config.training.light != "no":
        raise ModelError(
            f"model {config.name}: training.light = {config.training.light!r}: a light model is trained from scratch; "
            'set it to "no" to begin from another version'
        )
    version = await registry.version(model, number)
    spec, params = await registry.load(version)
    return Ancestor(version, Start(spec, params, wish.head_only), _seen(version))


def _named(label: str, model: str) -> tuple[str, int]:
    name, _, number = label.rpartition("-")
    if not number.isdecimal() or not number.isascii():
        raise ModelError(
            f"from = {label!r}: no version; give a number that `foretag models list {model}` shows, or a name such as "
            f"{model}-3"
        )
    return name or model, int(number)


def seen_until(version: ModelVersion) -> datetime | None:
    """Until when anything was learnt from, by the version or by those that it comes from; None: it does not say."""
    told = version.provenance
    ends = [told["data_end"], *told.get(_SEEN, {}).values()] if "data_end" in told else []
    return max(map(datetime.fromisoformat, ends), default=None)


def _seen(version: ModelVersion) -> Mapping[str, datetime]:
    told = version.provenance
    if "data_end" not in told or "assets" not in told:
        raise ModelError(f"model {version.label} does not say what it was trained on: nothing can begin from it")
    seen = {asset: datetime.fromisoformat(until) for asset, until in told.get(_SEEN, {}).items()}
    end = datetime.fromisoformat(told["data_end"])
    return MappingProxyType(seen | {asset: max(end, seen.get(asset, end)) for asset in told["assets"]})
