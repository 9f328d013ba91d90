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


def test_no_folder_of_code_escapes_the_contracts():
    """Without an ``__init__.py`` a folder is not in the graph of imports, and every contract is kept in vain."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    folders = {module.parent for package in packages for module in (ROOT / package).rglob("*.py")}

    assert folders
    assert [folder.relative_to(ROOT) for folder in folders if not (folder / "__init__.py").exists()] == []
