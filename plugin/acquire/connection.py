"""One connection to a server, and what a way of acquiring makes of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from asyncua.client.ua_session import UaSession

from plugin.acquire.items import Item
from plugin.acquire.server import ServerInfo
from plugin.domain import Micros


@dataclass(frozen=True, slots=True)
class Connection:
    """A session that is open, and how it was found."""

    services: UaSession
    info: ServerInfo
    since: Micros
    """When it was made [µs]."""
    first: bool
    """Of this process: what was missed before is our own downtime."""
    again: bool
    """The session outlived the cut, and all that the server holds in it."""
    restarted: bool
    """The server was started anew since the connection before."""


Review = Callable[[Sequence[Item], Micros], Awaitable[None]]
"""Told of items whose answer may have changed, and of the time since when it may have [µs]."""


class Way(Protocol):
    """How a source comes by its values; it outlasts the connections."""

    async def begin(self, connection: Connection) -> None:
        """Go on with a new connection: what was missed since the last one is a gap.

        Raises :class:`plugin.acquire.session.ServiceFault` where the server will not have it this way.
        """

    async def run(self, connection: Connection, review: Review) -> None:
        """Values arrive until the connection is lost: that is raised."""

    def failed(self) -> int:
        """Tags that were asked for, and that the server does not give."""
