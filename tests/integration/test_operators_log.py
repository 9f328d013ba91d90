"""What an operator reads while connections break in every way: a line of ours for each thing, and no traceback."""

import asyncio
import signal
import struct
import sys
from collections import Counter
from pathlib import Path

from asyncua import ua

from tests.acceptance.proxy import Fault, Proxy
from tests.acceptance.scripted import URI, Server
from tests.integration.acquire_plant import until
from tests.integration.secured_plant import ours, secured, server_certificate

FILE = """
tags = ["tags.csv"]
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:{plant}/"
security_policy = "None"
publishing_interval = "50ms"
sampling_interval = "50ms"
keep_alive = "300ms"
timeout = "1s"
reconnect_max = "300ms"
history = {{ enabled = false }}
[[sources]]
name = "locked"
endpoint = "opc.tcp://127.0.0.1:{locked}/"
security_policy = "Basic256Sha256"
timeout = "5s"
history = {{ enabled = false }}
[publish]
enabled = false
[diagnostics]
listen = ""
"""


def configured(folder: Path, plant: int, locked: int) -> Path:
    rows = [("plant", number) for number in range(3)] + [("locked", 0)]
    lines = [f"{source}.t{number},{source},nsu={URI};s=t{number}" for source, number in rows]
    (folder / "tags.csv").write_text("\n".join(["name,source,node", *lines]))
    (folder / "foretag.toml").write_text(FILE.format(plant=plant, locked=locked))
    return folder / "foretag.toml"


def rubbish() -> bytes:
    return b"MSGF" + struct.pack("<I", 32) + b"\xff" * 24


def farewell() -> bytes:
    reason = b"maintenance"
    body = struct.pack("<Ii", ua.StatusCodes.BadServerHalted, len(reason)) + reason
    return b"ERRF" + struct.pack("<I", 8 + len(body)) + body


async def misfortunes(server: Server, proxy: Proxy, log: Path) -> None:
    """One after the other, each when the connection stands again."""
    stands = 1

    async def again() -> None:
        nonlocal stands
        stands += 1
        await until(lambda: log.read_text().count("plant: connected;") >= stands, 30)

    for fault in Fault:
        await proxy.outage(fault, 2.5)
        await again()
    await server.stop()
    await server.start()
    await again()
    for message in (rubbish(), farewell()):
        for connection in list(server.connections):
            connection.writer.write(message)
        await again()


async def test_over_cuts_a_restart_and_a_refused_certificate_the_log_is_ours_and_short(tmp_path: Path) -> None:
    identity = server_certificate()
    ours(tmp_path / "data", identity)
    async with Server(3) as server, Proxy(server.port) as proxy, secured(identity) as plant:
        plant.refused.add("*")
        path, log = configured(tmp_path, proxy.port, plant.port), tmp_path / "data" / "foretag.log"
        command = (sys.executable, "-m", "plugin", "run", "--config", str(path), "--no-table")
        null = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, stdout=null, stderr=null)
        try:
            await until(lambda: log.exists() and "plant: connected;" in log.read_text(), 90)
            await until(lambda: "locked: " in log.read_text())
            await misfortunes(server, proxy, log)
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = log.read_text()
    assert process.returncode == 0
    assert "Traceback" not in text
    assert "asyncua" not in text
    lines = [line.split(maxsplit=3) for line in text.splitlines()]
    assert {line[2] for line in lines} <= {"INFO", "WARNING", "ERROR"}
    said = Counter(line[3] for line in lines if "locked: " in line[3])
    assert list(said.values()) == [1], said
    assert len(lines) < 50, "a few lines for each misfortune"
