"""What the plant has: tags and assets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType


class Fill(StrEnum):
    """Between two samples: ``hold`` repeats the earlier one (OPC 10000-11, Stepped), ``linear`` draws a line."""

    HOLD = "hold"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class Tag:
    """A configured plant measurement."""

    name: str
    """Unique in one installation, such as ``engine-01.T24``."""
    source: str
    """Name of the source (plant server) that has it."""
    node: str
    """NodeId by namespace URI: ``nsu=urn:plant;s=Engine01.T24`` (an index moves when a server restarts)."""
    asset: str = ""
    feature: str = ""
    """Role of the tag in its asset: models name their inputs by it."""
    unit: str = ""
    low: float | None = None
    """Lower end of the range [unit]."""
    high: float | None = None
    deadband: float = 0.0
    """Absolute deadband at the source [unit]; 0: every change."""
    sampling: timedelta | None = None
    """Sampling interval asked of the server; None: the source's default."""
    id: int = 0
    """Key in the historian; 0 until :meth:`plugin.protocols.Store.register_tags` gives one."""
    fill: Fill = Fill.HOLD
    """What a model sees between two samples."""
    max_age: timedelta | None = None
    """How long a value stands for itself while no newer one arrives; None: as the model says."""
    uncertain: bool = True
    """Whether models use Uncertain values; Bad ones are never used."""
    compression: float = 0.0
    """Bound of the error [unit] by which closed partitions may differ (swinging door); 0: every sample is kept."""
    retention: str = ""
    """Class of retention; empty: the default."""
    element: str = ""
    """Part of the node's value: ``[3]`` or ``[1,2]`` of an array, ``.Status.Speed`` or ``.Motors[2].Current`` of a
    structure; empty: all of it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """The machine that a model watches: a name, and its tags by feature."""

    name: str
    tags: Mapping[str, Tag]

    @classmethod
    def gather(cls, tags: Iterable[Tag]) -> tuple["Asset", ...]:
        """Assets of the tags that name one, in order of first appearance."""
        found: dict[str, dict[str, Tag]] = {}
        for tag in tags:
            if tag.asset and tag.feature:
                found.setdefault(tag.asset, {})[tag.feature] = tag
        return tuple(cls(name, MappingProxyType(features)) for name, features in found.items())
