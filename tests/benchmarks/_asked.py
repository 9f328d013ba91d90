"""A process that is asked: to each line on its standard input it answers one line of JSON."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any

_ANSWER = 60.0
"""A process that is up answers in so long, also on a machine that is fought over [s]."""
_LAST = 2000
"""Bytes of what a dead process said that are told."""


class Asked:
    """RuntimeError, with what it said last, where it has ended."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, said: IO[bytes]) -> None:
        self._name = name
        self._process = process
        self._said = said

    async def told(self, limit: float) -> dict[str, Any]:
        """The next line that is meant for us (others have more to say); TimeoutError after so many seconds."""
        output = self._process.stdout
        assert output is not None
        async with asyncio.timeout(limit):
            while not (line := await output.readline()).startswith(b"{"):
                if not line:
                    raise RuntimeError(f"{self._name} ended with {await self._process.wait()}: {self._last_words()}")
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self) -> dict[str, Any]:
        """What it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self.told(_ANSWER)

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read()[-_LAST:].decode(errors="replace").strip() or "it said nothing"


@contextlib.asynccontextmanager
async def asked(*command: str) -> AsyncIterator[Asked]:
    """Killed at the end of the context."""
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=said)
        try:
            yield Asked(" ".join(command[1:]), process, said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
