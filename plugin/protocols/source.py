"""Where samples come from."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plugin.domain import Gap, Micros, Remark, SampleBatch


def _nothing() -> None:
    """The confirmation of a delivery that needs none."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a source hands over in one piece, to be committed in one transaction."""

    samples: SampleBatch
    gaps: tuple[Gap, ...] = ()
    """Gaps that were opened or changed, each to be written with these samples."""
    checkpoint: Mapping[str, str] = field(default_factory=dict)
    """Key → text, to be stored with these samples and given back at the next start (see ``Store.checkpoints``)."""
    remarks: tuple[Remark, ...] = ()
    """What is odd about these samples."""
    confirm: Callable[[], None] = _nothing
    """To be called once, when it is on disk, in the database or in the spill: only then does the source acknowledge to
    the plant's server."""
    patient: bool = False
    """Confirmed only when it is in the database itself, where a reader finds it: history, which can wait."""


@dataclass(frozen=True, slots=True)
class HistoryProgress:
    """How far the reading of the past has come."""

    source: str
    done: int
    """Tags whose history is complete or known to be unreadable."""
    total: int
    samples: int
    finished: bool
    """Read, and committed: who reads the store now misses nothing of it."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a source is at this moment."""

    state: str
    """One word, such as ``running``."""
    connected: bool
    """Live values are expected to arrive."""
    away_since: Micros | None
    """The source's last word by its own clock [µs], where its values don't arrive or can't be relied on at present; 0
    where it was never heard. None: it is there, and a value that does not change may be held."""
    trouble: str = ""
    """What is not well, for a person; empty: nothing is known of."""
    heard: Micros = 0
    """When it was last heard, by its clock [µs]; 0: never."""
    ahead: Micros | None = None
    """How far its clock is ahead of ours [µs]; None: not known."""
    service_level: int | None = None
    """What the server says of itself, 0 to 255 (OPC 10000-4, 6.6.2.4.2); None: not known."""
    tags: int = 0
    monitored: int = 0
    """Tags that the server reports; it refuses the others."""
    silent: Sequence[str] = ()
    """Names of tags that have not reported for longer than is expected of them."""
    late: Sequence[str] = ()
    """Names of tags whose values are old when they arrive."""
    flat: Sequence[str] = ()
    """Names of tags whose value has not changed for longer than it should stay."""


class Source(Protocol):
    """Samples of one plant server."""

    @property
    def name(self) -> str:
        """Name in the configuration."""

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Live samples and history, for as long as it is iterated; lost connections are its own business.

        A slow consumer slows the source down (nothing is dropped here); closing the iterator closes the session.
        Iterated anew, it gives again what was not confirmed.
        """

    def history_progress(self) -> HistoryProgress:
        """How far the reading of the past has come; cheap, callable at any time."""

    def health(self) -> Health:
        """How it is at this moment; cheap, callable at any time."""
