"""ClientHandles: by which number a server's messages name a tag.

As long as this process lives they are the handles of the tags. A subscription that the process before this one has left
goes on with the numbers that were given then, and new ones behind them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.items import Item

_NOBODY = 0xFFFF_FFFF  # no tag has this handle


class ClientHandles:
    """Of one subscription; ``given``: handles of tags by ClientHandle, from the process before this one, which had not
    yet given ``free`` and what follows."""

    def __init__(self, given: Mapping[int, int] | None = None, free: int = 0) -> None:
        self._names: dict[int, int] = {}
        self._tags: NDArray[np.uint32] | None = None
        if given is not None:
            self._names = {handle: client for client, handle in given.items()}
            self._tags = np.full(free, _NOBODY, np.uint32)
            self._tags[list(given)] = list(given.values())

    def name(self, items: Sequence[Item]) -> None:
        """Give items that are to be made their ClientHandles; a tag keeps its own."""
        tags = self._tags
        if tags is None:
            for item in items:
                item.client = item.handle
            return
        new = [item.handle for item in items if item.handle not in self._names]
        self._names.update(zip(new, range(len(tags), len(tags) + len(new)), strict=True))
        self._tags = np.append(tags, np.array(new, np.uint32))
        for item in items:
            item.client = self._names[item.handle]

    def tags(self, client: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Handles of tags from those of a message; the largest number where there is no tag."""
        if self._tags is None:
            return client
        found = np.full(len(client), _NOBODY, np.uint32)
        known = client < len(self._tags)
        found[known] = self._tags[client[known]]
        return found
