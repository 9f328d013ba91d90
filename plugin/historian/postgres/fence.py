"""What keeps a gateway that was replaced from writing: each of its transactions is checked against its term."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugin.domain import Tag
from plugin.errors import StoreError, StoreUnavailable


@dataclass(frozen=True, slots=True)
class Fence:
    """A term of leading a shard, as :mod:`plugin.historian.postgres.leadership` gives it."""

    shard: str
    epoch: int

    @property
    def application(self) -> str:
        """``application_name`` of every session that writes under it: whoever leads next may end those that hang."""
        return f"foretag leader {hashlib.sha256(self.shard.encode()).hexdigest()[:16]}"


STILL_LEADS = "SELECT 1 FROM leaders WHERE shard = $1 AND epoch = $2 FOR SHARE"
"""A row: the term lasts, and no other begins before this transaction has ended."""


class Replaced(StoreUnavailable):
    """Another gateway leads. What was to be written stays where it is: in the spill, or with the plant's servers."""

    def __init__(self, fence: Fence) -> None:
        super().__init__(f"another gateway leads shard {fence.shard!r} now, and this one writes nothing more")


def shard_key(shard: str) -> int:
    """Of the lock of a shard."""
    return lock_key(f"foretag leader {shard}")


def lock_key(what: str) -> int:
    """Of an advisory lock: 64 bits, the same in every process and release."""
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)


async def refuse_tags_of_others(connection: Any, shard: str, tags: Sequence[Tag]) -> None:
    """StoreError where the database knows a tag as that of a source that another shard acquires: they would mix.

    ``connection``: ``asyncpg.Connection``, outside a transaction.
    """
    ours = {tag.name: tag.source for tag in tags}
    for row in await connection.fetch(_TAGS_OF_OTHERS, shard, list(ours)):
        if ours[row["name"]] == row["source"] or not await leads(connection, row["shard"]):
            continue
        raise StoreError(
            f"tag {row['name']!r} belongs to shard {row['shard']!r}, whose source {row['source']!r} has it: give it "
            "another name, or stop the gateways of that shard until this one has taken it over"
        )


async def leads(connection: Any, shard: str) -> bool:
    """Whether a gateway leads a shard at this moment."""
    return not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", shard_key(shard))


_TAGS_OF_OTHERS = """
SELECT tags.name, source, shard FROM tags JOIN claims ON kind = 'source' AND claims.name = source
WHERE shard <> $1 AND tags.name = ANY($2::text[]) ORDER BY tags.name
"""
