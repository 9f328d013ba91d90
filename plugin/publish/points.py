"""Continuation points: opaque, of one session, limited in number and age (OPC 10000-4, 7.9; OPC 10000-11, 6.3)."""

import secrets
import time
from collections.abc import Callable
from typing import Any

MOST = 1000
"""Of one session at a time, of HistoryRead."""
_SECONDS = 600.0


class Points:
    """What a session may go on with."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        """``most``: how many there may be at a time."""
        self._clock = clock
        self._most = most
        self._kept: dict[bytes, tuple[float, Any, Any]] = {}

    def keep(self, node: Any, rest: Any) -> bytes | None:
        """What to say to go on; None: there are too many already."""
        self._forget_old()
        if len(self._kept) >= self._most:
            return None
        token = secrets.token_bytes(16)
        self._kept[token] = self._clock(), node, rest
        return token

    def take(self, node: Any, token: bytes) -> Any | None:
        """What is left to read, once; None: there is no such point of this node."""
        self._forget_old()
        kept = self._kept.get(token)
        if kept is None or kept[1] != node:
            return None
        del self._kept[token]
        return kept[2]

    def _forget_old(self) -> None:
        old = self._clock() - _SECONDS
        for token in [token for token, kept in self._kept.items() if kept[0] <= old]:
            del self._kept[token]
