"""Where results go."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from plugin.domain import Outage, Outcome, OutputTag, Standing


class Sink(Protocol):
    """Where results go after they are stored."""

    @property
    def name(self) -> str:
        """Name in logs and diagnostics."""

    def open(self, tags: Sequence[OutputTag]) -> AbstractAsyncContextManager[None]:
        """Make ready for these outputs, and keep ready for as long as the context lasts."""

    async def extend(self, tags: Sequence[OutputTag]) -> None:
        """Make ready for more outputs, while it is open; those of before stay. Raises PublishError."""

    async def publish(self, outcome: Outcome) -> None:
        """Publish one run's results. Raises :class:`plugin.errors.PublishError`; the rows are stored already."""

    async def degrade(self, outage: Outage) -> None:
        """Show at once what can't be seen of the plant: what was published before and draws on it is in doubt.

        Called whenever that changes, each time with the whole of it; an outage of nothing takes the doubt away.
        """

    async def inform(self, standings: Sequence[Standing]) -> None:
        """Show how the models are doing. Called whenever that changes, each time with all of them."""
