"""A second OPC UA stack (node-opcua, as a client): our servers are not judged by the library they are made of."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.npm import NoNpm, installed, program

_HOME = Path(__file__).parent / "node_opcua"
_RUN_SECONDS = 120


@dataclass(frozen=True)
class SecondStack:
    """``client.mjs`` as a function; see there for its commands."""

    node: str
    pki: Path
    """Folder of the client's own trust list and default certificate."""

    async def __call__(
        self,
        endpoint: str,
        *command: str,
        certificate: Path | None = None,
        key: Path | None = None,
        user: tuple[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """The objects that it printed; the last one is ``{"error": …}`` where it failed. ``user``: name, password."""
        secured = ["--certificate", str(certificate), "--key", str(key)] if certificate else []
        secured += ["--user", user[0], "--password", user[1]] if user else []
        process = await asyncio.create_subprocess_exec(
            self.node,
            str(_HOME / "client.mjs"),
            endpoint,
            "--pki",
            str(self.pki),
            *secured,
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_RUN_SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]


@pytest.fixture(scope="session")
def second_stack(tmp_path_factory: pytest.TempPathFactory) -> SecondStack:
    """Installed by the lock file, once. Skips where Node.js is missing, but never on the build server."""
    try:
        node = program("node", "the second OPC UA stack")
        installed(_HOME, "the second OPC UA stack")
    except NoNpm as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    return SecondStack(node, tmp_path_factory.mktemp("node-opcua"))
