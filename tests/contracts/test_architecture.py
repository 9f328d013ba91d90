"""The arrows between the rooms, as pyproject.toml draws them."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_import_follows_the_arrows():
    lint = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stdout + result.stderr


def test_every_package_of_the_wheel_is_under_a_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

    assert set(settings["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(
        settings["importlinter"]["root_packages"]
    )
