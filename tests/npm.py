"""What tests need from npm: as a lock file has it, in the folder of that file, fetched once."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.alone import alone

_INSTALL_SECONDS = 300


class NoNpm(Exception):
    """It can't be had here; says why, and for what it is needed."""


def program(name: str, what: str) -> str:
    """Path of ``node`` or ``npm``. ``what``: who needs it."""
    found = shutil.which(name)
    if found is None:
        raise NoNpm(f"{what} needs Node.js 20 and npm")
    return found


def installed(home: Path, what: str) -> Path:
    """The packages of a folder, in its ``node_modules``. No script of theirs is run."""
    npm = program("npm", what)
    mark = hashlib.sha256((home / "package-lock.json").read_bytes()).hexdigest()
    there = home / "node_modules" / ".lock-sha256"
    with alone(home.name):
        if not there.exists() or there.read_text() != mark:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=home, timeout=_INSTALL_SECONDS, capture_output=True, text=True)
            if done.returncode:
                raise NoNpm(f"{what} can't be installed; npm ci failed:\n{done.stderr[-2000:]}")
            there.write_text(mark)
    return there.parent
