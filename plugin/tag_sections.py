"""How tags are told: a line of a CSV, or an asset template in the file."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from plugin.acquire.elements import parse
from plugin.domain import Fill
from plugin.fields import Duration, Section

_NODE = re.compile(r"(nsu=[^;]+;)?[isgb]=.+")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def _node(text: str) -> str:
    if not _NODE.fullmatch(text):
        raise ValueError('is no node id; write it by namespace URI, such as "nsu=urn:plant;s=Engine01.T24"')
    return text


def _element(text: str) -> str:
    parse(text)
    return text


Element = Annotated[str, AfterValidator(_element)]


class TagConfig(Section):
    """What may be said of any tag."""

    unit: str = ""
    """Engineering unit, for people and for results in the same unit."""
    low: float | None = None
    """Lower end of the range [unit]; `foretag init` fills in the server's EURange."""
    high: float | None = None
    """Upper end of the range [unit]; `foretag init` fills in the server's EURange."""
    deadband: float | None = Field(default=None, ge=0)
    """Absolute deadband [unit]; default 0."""
    sampling: Duration | None = None
    """Sampling interval; default: the source's."""
    fill: Fill = Fill.HOLD
    """What a model sees between two samples: ``hold`` (the earlier value) or ``linear`` (the line between them)."""
    max_age: Duration | None = None
    """How long a value stands for itself while no newer one arrives; default: the model's ``hold``."""
    uncertain: bool = True
    """Whether models use Uncertain values; Bad ones are never used."""
    compression: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How far closed partitions may be off [unit]: samples that a straight line passes within this bound are left out
    (swinging door), and counted; 0 keeps every sample. This holds for the line alone: such a tag wants ``fill =
    "linear"``, and a ``max_age`` that outlasts a line, which passes 512 samples at most. What a model has read can then
    no longer be computed again."""
    retention: str = ""
    """Class of retention, one of ``historian.retention``; default: the class whose patterns fit its name."""


class TagRow(TagConfig):
    """One line of a tag CSV, or one tag of an asset template."""

    name: str = Field(min_length=1, max_length=200)
    """Unique in the installation."""
    node: Annotated[str, AfterValidator(_node)]
    """NodeId by namespace URI (an index moves when a server restarts)."""
    source: str = ""
    """Name of a source; may be left out where there is one only."""
    asset: str = ""
    """Name of the machine that it belongs to; models watch assets."""
    feature: str = ""
    """Role in its asset; models name their inputs by it."""
    element: Element = ""
    """Part of the node's value: ``[3]`` or ``[1,2]`` of an array, ``.Status.Speed`` or ``.Motors[2].Current`` of a
    structure; empty: all of it, but a name such as ``pressure[3]`` takes that element of an array."""


class AssetTagConfig(TagConfig):
    """What an asset template says of one feature."""

    node: str = ""
    """Overrides the template's ``node`` for this feature."""
    element: Element = ""
    """Part of the node's value, as in a tag CSV; several features may be parts of one node."""


_MOST_NAMES = 100_000


def _pattern(text: str) -> str:
    names = 1
    for first, last in _RANGE.findall(text):
        names *= int(last) - int(first) + 1
        if int(last) < int(first):
            raise ValueError(f"{text} counts down; write {{{last}..{first}}}")
    if names > _MOST_NAMES:
        raise ValueError(f"{text} stands for {names:,} names; {_MOST_NAMES:,} are the most")
    return text


class AssetsConfig(Section):
    """``[[assets]]``: a template; one tag per name and feature, called ``<asset>.<feature>``."""

    names: tuple[Annotated[str, AfterValidator(_pattern)], ...] = Field(min_length=1)
    """Names of assets; ``engine-{01..20}`` stands for twenty."""
    node: Annotated[str, AfterValidator(_node)]
    """NodeId with ``{asset}`` and ``{feature}`` in it."""
    source: str = ""
    """Name of a source; may be left out where there is one only."""
    tags: dict[str, AssetTagConfig]
    """By feature: what differs from the template; ``{}`` where nothing does."""


def expand(pattern: str) -> list[str]:
    """``engine-{01..03}`` → ``engine-01``, ``engine-02``, ``engine-03``; the digits keep their width."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match[1], match[2]
    return [
        tail
        for number in range(int(first), int(last) + 1)
        for tail in expand(pattern.replace(match[0], str(number).zfill(len(first)), 1))
    ]
