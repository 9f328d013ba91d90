"""The numbers of a subscription's messages: in order, each once, and nothing missing unnoticed (OPC 10000-4, 5.14.1.1).

Pure: no clock, no socket.
"""

from plugin.acquire.wire import Message

_LAST = 0xFFFF_FFFF  # the number after it is 1
_FAR = 0x7FFF_FFFF
_ABSURD = 10_000  # a hole of this size, or a message as late as _LATE, is a server that began to count anew
_LATE = 1_000


def following(number: int) -> int:
    """The number after this one."""
    return 1 if number >= _LAST else number + 1


def distance(begin: int, end: int) -> int:
    """Steps forward from one number to another, 0 to 2^32 - 2."""
    return (end - begin) % _LAST


class Sequence:
    """Takes messages in any order, gives them back in theirs."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """The newest number that was given out or given up."""
        self._promised = last
        self._waiting: dict[int, Message] = {}

    @property
    def expected(self) -> int:
        """The number that is due."""
        return following(self.last)

    def offer(self, message: Message) -> bool:
        """A message has come; False: its turn was before (it is late, or here again).

        A late one should be given out all the same: the store drops what it has, and no doubt loses a value.
        """
        if self._old(message.sequence):
            return False
        self._waiting[message.sequence] = message
        self._promise(message.sequence)
        return True

    def due(self) -> Message | None:
        """The message whose turn it is, if it is here. It stays due until :meth:`done`."""
        return self._waiting.get(self.expected)

    def done(self, number: int) -> None:
        """The due message is given out, or will never come."""
        self._waiting.pop(number, None)
        if number == self.expected:
            self.last = number
            if self._old(self._promised):
                self._promised = number

    def broken(self, number: int) -> bool:
        """Too far ahead or behind to belong to what we know: the server counts anew."""
        if self._old(number):
            return distance(number, self.last) > _LATE
        return distance(self.last, number) > _ABSURD

    def keep_alive(self, number: int) -> None:
        """The server says which number is next; so all before it should be here. (Some say the last one: harmless.)"""
        before = _LAST if number <= 1 else number - 1
        if number and not self._old(before) and distance(self.last, before) <= _ABSURD:
            self._promise(before)

    def missing(self) -> list[int]:
        """Numbers that exist and have not come."""
        found, number = [], self.last
        while number != self._promised:
            number = following(number)
            if number not in self._waiting:
                found.append(number)
        return found

    def restart(self, last: int) -> None:
        """Begin anew behind this number."""
        self.last = self._promised = last
        self._waiting.clear()

    def _old(self, number: int) -> bool:
        return distance(following(self.last), number) > _FAR

    def _promise(self, number: int) -> None:
        if distance(self._promised, number) <= _FAR:
            self._promised = number
