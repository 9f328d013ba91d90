"""What keeps a gateway that was replaced from writing: each of its transactions is checked against its term."""

import hashlib
from dataclasses import dataclass

from plugin.errors import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Fence:
    """A term of leading a shard, as :mod:`plugin.historian.leadership` gives it."""

    shard: str
    epoch: int

    @property
    def application(self) -> str:
        """``application_name`` of every session that writes under it: whoever leads next may end those that hang."""
        return f"foretag leader {shard_key(self.shard):x}"


STILL_LEADS = "SELECT 1 FROM leaders WHERE shard = $1 AND epoch = $2 FOR SHARE"
"""A row: the term lasts, and no other begins before this transaction has ended."""


class Replaced(StoreUnavailable):
    """Another gateway leads. What was to be written stays where it is: in the spill, or with the plant's servers."""

    def __init__(self, fence: Fence) -> None:
        super().__init__(f"another gateway leads shard {fence.shard!r} now, and this one writes nothing more")


def shard_key(shard: str) -> int:
    """Of the advisory lock of a shard: 64 bits, the same in every process and release."""
    return int.from_bytes(hashlib.sha256(f"foretag leader {shard}".encode()).digest()[:8], "big", signed=True)
