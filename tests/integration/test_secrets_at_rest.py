"""What a run leaves behind: no secret in it, and nothing that others may read."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from asyncua.server.user_managers import User, UserManager, UserRole

from tests.certificates import make
from tests.integration.acquire_plant import URI, until
from tests.integration.secured_plant import ours, secured, server_certificate

PASSWORD = "correct horse battery staple"
FILE = """
tags = ["tags.csv"]
[foretag]
device = "cpu"
log_level = "debug"
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:{port}/plant"
user = "reader"
password_credential = "plant-password"
publishing_interval = "50ms"
sampling_interval = "50ms"
[publish]
enabled = false
[diagnostics]
listen = ""
"""


class Reader(UserManager):
    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        return User(role=UserRole.User) if (username, password) == ("reader", PASSWORD) else None


async def test_a_run_with_a_password_from_systemd(tmp_path: Path) -> None:
    credentials, home = tmp_path / "credentials", tmp_path / "home"
    for folder in (credentials, home):
        folder.mkdir()
    (credentials / "plant-password").write_text(PASSWORD)
    (credentials / "plant-password").chmod(0o400)
    identity = server_certificate()
    pki_folder = ours(home / "data", identity)
    for path in (home / "data", pki_folder, pki_folder / "own"):
        path.chmod(0o755)
    async with secured(identity, tags=1, users=Reader()) as plant:
        (home / "foretag.toml").write_text(FILE.format(port=plant.port))
        (home / "tags.csv").write_text(f"name,node\nt0,nsu={URI};s=t0\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "plugin", "run", "--no-table", "--config", home / "foretag.toml",
            "--report", home / "report.json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "CREDENTIALS_DIRECTORY": str(credentials)}, umask=0,
        )  # fmt: skip
        try:
            subscriptions = plant.server.iserver.subscription_service.subscriptions
            await until(lambda: subscriptions or process.returncode is not None, 60)
            process.send_signal(signal.SIGTERM)
            output, _ = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, output.decode()
    written = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert {"foretag.log", "report.json", "historian.db"} <= {path.name for path in written}
    key = re.sub(r"\s|-----[^-]+-----", "", make("own").key_pem.decode())[100:140].encode()
    for path, content in {**written, Path("output"): output}.items():
        assert PASSWORD.encode() not in content, path
        assert path.name == "own.key" or key not in content.replace(b"\n", b""), path
    by_others = {path.relative_to(home): oct(path.stat().st_mode) for path in (home / "data").rglob("*")
                 if path.stat().st_mode & 0o077}  # fmt: skip
    assert by_others == {}
