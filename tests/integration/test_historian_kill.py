"""A process that is killed at any moment: what it confirmed is in the database, once, and the database opens.

A hundred lives on one folder. Each is a fork of a process that has everything loaded, so that it costs a tenth of a
second. The plant outlives them all: it gives again what was not confirmed, as a server does.
"""

import json
import subprocess
import sys
from pathlib import Path

LIVES = 100
PLANT = Path(__file__).with_name("historian_kill_plant.py")


def test_what_was_confirmed_survives_a_hundred_kills(tmp_path: Path) -> None:
    command = [sys.executable, str(PLANT), str(tmp_path), str(LIVES), "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert not done.returncode, done.stderr
    account = json.loads(done.stdout)
    assert account["faults"] == []
    assert account["killed"] == LIVES
    assert account["found in the spill"] > LIVES // 4
