"""Messages of one subscription that its client may ask for again (OPC 10000-4, 5.14.6), within a bound."""

_BYTES = 16 * 1024 * 1024


class Unacknowledged(dict[int, bytes]):
    """By their number, oldest first."""

    def __init__(self, most: int) -> None:
        """``most``: messages, whatever their size."""
        super().__init__()
        self._most = most
        self.size = 0
        """Of all of them [B]."""

    def keep(self, number: int, message: bytes) -> None:
        """One more; the oldest go where there are too many."""
        self[number] = message
        self.size += len(message)
        while len(self) > self._most or self.size > _BYTES:
            self.part_with_oldest()

    def part_with_oldest(self) -> None:
        """It can't be asked for again from now on."""
        self.acknowledge(next(iter(self)))

    def acknowledge(self, number: int) -> bool:
        """False where there is no such message."""
        message = self.pop(number, b"")
        self.size -= len(message)
        return bool(message)
