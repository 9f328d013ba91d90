"""Continuation points: opaque, of one session, limited in number and age (OPC 10000-4, 7.9; OPC 10000-11, 6.3)."""

import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

MOST = 1000
"""Of one session at a time, of HistoryRead."""
_SECONDS = 600.0
_WEIGHT = 1_000_000
"""Numbers that all of one session may remember."""


class _Kept(NamedTuple):
    time: float
    request: int
    weight: int
    node: Any
    rest: Any


class Points:
    """What a session may go on with."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        """``most``: how many there may be at a time."""
        self._clock = clock
        self._most = most
        self._kept: dict[bytes, _Kept] = {}
        self._request = 0

    def begin(self) -> None:
        """Another request: those of earlier ones, which nobody may ever come back to, make room for it."""
        self._request += 1

    def keep(self, node: Any, rest: Any, weight: int = 1) -> bytes | None:
        """What to say to go on; None: there are too many of this request already. ``weight``: numbers in ``rest``."""
        self._forget_old()
        while len(self._kept) >= self._most or weight + sum(kept.weight for kept in self._kept.values()) > _WEIGHT:
            oldest = next(iter(self._kept), None)
            if oldest is None or self._kept[oldest].request == self._request:
                return None
            del self._kept[oldest]
        token = secrets.token_bytes(16)
        self._kept[token] = _Kept(self._clock(), self._request, weight, node, rest)
        return token

    def find(self, node: Any, token: bytes) -> Any | None:
        """What is left to read; None: there is no such point of this node."""
        self._forget_old()
        kept = self._kept.get(token)
        return kept.rest if kept is not None and kept.node == node else None

    def release(self, token: bytes) -> None:
        """It was answered, or nobody wants it any more."""
        self._kept.pop(token, None)

    def take(self, node: Any, token: bytes) -> Any | None:
        """What is left to read, once; None: there is no such point of this node."""
        rest = self.find(node, token)
        if rest is not None:
            self.release(token)
        return rest

    def _forget_old(self) -> None:
        old = self._clock() - _SECONDS
        for token in [token for token, kept in self._kept.items() if kept.time <= old]:
            del self._kept[token]
