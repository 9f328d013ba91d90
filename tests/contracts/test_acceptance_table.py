"""The table of the acceptance cases names a test for each, and every test that it names is there."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_CASES = 27


def _rows() -> dict[int, list[tuple[str, str]]]:
    table = (_ROOT / "tests" / "acceptance" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", table, re.MULTILINE)
    return {int(number): re.findall(r"`([\w/]+\.py)::(\w+)`", text) for number, text in rows}


def test_every_case_has_a_test() -> None:
    rows = _rows()
    assert sorted(rows) == list(range(1, _CASES + 1))
    assert not [number for number, tests in rows.items() if not tests]


def test_every_test_that_is_named_is_there() -> None:
    named = {test for tests in _rows().values() for test in tests}
    missing = [f"{file}::{name}" for file, name in sorted(named) if not _defines(file, name)]
    assert not missing


def _defines(file: str, name: str) -> bool:
    path = _ROOT / file
    found = rf"^(async )?def {name}\("
    return path.is_file() and bool(re.search(found, path.read_text(encoding="utf-8"), re.MULTILINE))
