"""What is locked: complete, as pyproject.toml wants it, and of no particular host."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

needs_uv = pytest.mark.skipif(not UV.exists(), reason="uv is not in this environment; `make test` installs it")


def _uv(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(UV), *arguments, "--offline", "--python", sys.executable]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_lock_of_uv_names_no_host():
    assert [line for line in (ROOT / "uv.lock").read_text().splitlines() if "://" in line] == []


def test_a_lock_of_npm_names_hashes_and_no_host():
    tracked = subprocess.run(
        ["git", "ls-files", "*package-lock.json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        packages = json.loads((ROOT / name).read_text())["packages"]
        installed = {path: package for path, package in packages.items() if path}
        assert installed
        assert [path for path, package in installed.items() if "://" in package.get("resolved", "")] == []
        # What lies in another package's archive is under that one's hash.
        unhashed = [path for path, package in installed.items() if not {"integrity", "inBundle"} & set(package)]
        assert unhashed == []


@needs_uv
def test_the_lock_satisfies_the_project():
    check = _uv("lock", "--check")

    assert check.returncode == 0, check.stderr


@needs_uv
def test_every_locked_package_is_exported_with_a_hash():
    export = _uv("export", "--frozen", "--no-emit-project", "--all-extras")

    assert export.returncode == 0, export.stderr
    packages = re.split(r"^(?=[a-z0-9][^\s=]*==)", export.stdout, flags=re.MULTILINE)[1:]
    assert packages
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


def test_a_lock_of_uv_loses_its_hosts_and_nothing_else(tmp_path):
    lock = tmp_path / "uv.lock"
    lock.write_text(
        'source = { registry = "https://index.test/simple" }\n'
        'sdist = { url = "https://files.test/a/b/thing-1.0.tar.gz", hash = "sha256:00", size = 1 }\n'
        '    { url = "https://files.test/c/thing-1.0-py3-none-any.whl", hash = "sha256:11" },\n'
    )

    subprocess.run([sys.executable, ROOT / ".ci/strip_lock.py", lock], check=True)

    assert lock.read_text() == (
        'source = { registry = "index" }\n'
        'sdist = { path = "thing-1.0.tar.gz", hash = "sha256:00", size = 1 }\n'
        '    { path = "thing-1.0-py3-none-any.whl", hash = "sha256:11" },\n'
    )


def test_a_source_that_cannot_be_stripped_stops(tmp_path):
    lock = tmp_path / "uv.lock"
    lock.write_text(text := 'source = { git = "https://code.test/thing?rev=1" }\n')

    stripped = subprocess.run([sys.executable, ROOT / ".ci/strip_lock.py", lock], capture_output=True, text=True)

    assert stripped.returncode != 0
    assert "code.test" in stripped.stderr
    assert lock.read_text() == text
