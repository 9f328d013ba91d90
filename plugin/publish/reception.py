"""What it costs to hear strangers out: a share of the loop's time, however many there are.

Before anybody knows who is there, a secure channel takes some private-key operations of RSA (1 ms each with a key of
2048 bits, 4 ms with 4096), a look at the trust list, and a password its decryption; messages that cause them can be
recorded once, and sent again as often as one likes. They have their turn here: one at a time, of the addresses in turn,
and together a fifth of the time, so that values of the plant, and clients that are known, are heard as before. A
connection alone takes half a millisecond: of one address there may be so many at once, and so many each second.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from plugin.publish.lockout import Throttle

_log = logging.getLogger(__name__)

_SHARE = 0.2
"""Of the time."""
_SAVED = 0.25
"""Of what was not used, at most [s]: some 40 clients that come back at once do not wait."""

_CONNECTIONS, _PER_SECOND = 200, 20
"""Of one address: at once, and from then on."""
_REMEMBERED = 4096
"""Addresses."""


class Reception:
    """``delayed`` is told of each turn that had to wait for more than its neighbours. ``clock`` gives seconds that
    never go back."""

    def __init__(
        self,
        delayed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._delayed = delayed
        self._clock = clock
        self._sleep = sleep
        self._left, self._seen = _SAVED, clock()
        self._turn = asyncio.Lock()
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._told = Throttle(clock)
        self._connections: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many came lately, and when the last one came."""

    def lets_in(self, address: str) -> bool:
        """Whether a further connection of that address is heard at all."""
        now = self._clock()
        many, last = self._connections.pop(address, (0.0, now))
        many = max(0.0, many - (now - last) * _PER_SECOND)
        heard = many < _CONNECTIONS
        self._connections[address] = many + heard, now
        if len(self._connections) > _REMEMBERED:
            self._connections.popitem(last=False)
        if not heard and (times := self._told.due(("connection", address))):
            _log.warning("OPC UA server: refused %d connection(s) of %s, for it makes too many", times, address)
        return heard

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """What is done until the context ends counts; the loop had its turn before."""
        line = self._lines.setdefault(address, asyncio.Lock())
        async with line, self._turn:  # of each address one alone stands in the common line
            await self._sleep(self._wait(address))
            begun = self._clock()
            try:
                yield
            finally:
                self._left -= self._clock() - begun

    def _wait(self, address: str) -> float:
        """For how long, until there is time again [s]."""
        now = self._clock()
        self._left = min(_SAVED, self._left + (now - self._seen) * _SHARE)
        self._seen = now
        if self._left > 0.0:
            return 0.0
        self._delayed()
        if times := self._told.due(("turn", address)):
            _log.warning("OPC UA server: %d handshake(s) of %s wait for their turn", times, address)
        return -self._left / _SHARE
