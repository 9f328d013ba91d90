"""Databases made, brought up and down, and refused."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from plugin.errors import StoreError, StoreRevisionError
from plugin.historian import schema
from plugin.historian.migrate import check_revision, migrate, prepare
from plugin.historian.schema.plant import clocks

_BEFORE = "9305a33"
"""The last commit whose newest revision is 0003."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plant" / "historian.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def definitions(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.split()) for name, sql in rows}


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def revisions() -> list[str]:
    scripts = ScriptDirectory("migrations")
    return [script.revision for script in reversed([*scripts.walk_revisions()])]


def test_a_new_database_has_the_schema_of_the_models(
    url: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the migrations are found from anywhere
    prepare(url)
    check_revision(url)
    modelled = tmp_path / "modelled.db"
    engine = create_engine(f"sqlite:///{modelled}")
    schema.metadata.create_all(engine)
    engine.dispose()
    migrated = definitions(path)
    assert migrated.pop("alembic_version")
    assert migrated == definitions(modelled)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_samples_are_kept_in_the_order_of_time_without_a_second_key(url: str, path: Path) -> None:
    prepare(url)
    assert definitions(path)["samples"].endswith("PRIMARY KEY (source_time, tag_id, ordinal) ) WITHOUT ROWID")


def test_every_step_goes_down_and_up_again(url: str, path: Path) -> None:
    for revision in revisions():
        migrate(url, revision)
        above = definitions(path)
        migrate(url, "-1" if revision != revisions()[0] else "base")
        assert definitions(path) != above
        migrate(url, revision)
        assert definitions(path) == above
    check_revision(url)
    migrate(url, "base")
    assert [*definitions(path)] == ["alembic_version"]


def test_rows_outlive_the_way_up_and_down(url: str, path: Path) -> None:
    migrate(url, "0001")
    execute(
        path,
        "INSERT INTO tags (name, source, node, feature, unit, deadband) VALUES ('t', 'plant', 'i=1', 'f', 'K', 0.5)",
        "INSERT INTO samples VALUES (10, 1, 0, 2.5, 0, 11, 12)",
    )

    def kept(columns: str = "*") -> tuple[list[Any], list[Any]]:
        with closing(sqlite3.connect(path)) as database:
            tags = database.execute("SELECT name, node, unit, deadband FROM tags").fetchall()
            return tags, database.execute(f"SELECT {columns} FROM samples").fetchall()  # noqa: S608

    before = kept()
    migrate(url)
    assert kept(f"source_time, tag_id, ordinal, value, status, {clocks('samples')}") == before
    assert kept("server_delay, received_delay")[1] == [(1, 1)]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT element FROM tags").fetchall() == [("",)]
    execute(path, "INSERT INTO sample_texts VALUES (10, 1, 0, 'text')", "UPDATE tags SET element = '[1]'")
    migrate(url, "0001")
    assert kept() == before


def test_gaps_and_runs_outlive_the_way_up_and_down(url: str, path: Path) -> None:
    migrate(url, "0002")
    execute(
        path,
        "INSERT INTO gaps VALUES ('g', 'plant', NULL, 10, 20, 'sequence', 25, 'filled', 3, 'cable')",
        "INSERT INTO runs VALUES (1, 'rul', 'score', 10, 11, 12, 'done', 2, 20, '', '{}')",
    )

    def rows(table: str) -> list[Any]:
        with closing(sqlite3.connect(path)) as database:
            return database.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608

    gaps, runs = rows("gaps"), rows("runs")
    migrate(url)
    assert rows("gaps") == [(*gaps[0], 25)], "known as it is since it was found"
    assert rows("runs") == [(*runs[0], "{}")]
    execute(path, "INSERT INTO gap_history VALUES (30, 'g', 25, 10, 20, 'open', 0, '')")
    migrate(url, "0002")
    assert (rows("gaps"), rows("runs")) == (gaps, runs)


def test_samples_that_are_there_are_counted_and_the_newest_of_each_tag_found(url: str, path: Path) -> None:
    migrate(url, "0003")
    rows = [(10, 1, 0), (10, 2, 0), (20, 1, 0), (20, 1, 1), (15, 2, 0)]
    execute(path, *(f"INSERT INTO samples VALUES ({','.join(map(str, row))}, 2.5, 0, 11, 12)" for row in rows))  # noqa: S608
    migrate(url)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(
            "SELECT source_time, tag_id, ordinal FROM latest_samples ORDER BY tag_id"
        ).fetchall() == [
            (20, 1, 1),
            (15, 2, 0),
        ]
        books = dict(database.execute("SELECT * FROM bookkeeping WHERE name <> 'works_from'"))
        assert books == {"samples": 5, "latest_since": 20}


def test_migrating_what_is_up_to_date_keeps_everything(url: str, path: Path) -> None:
    prepare(url)
    execute(path, "INSERT INTO checkpoints VALUES ('key', 'text')")
    migrate(url)
    prepare(url)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM checkpoints").fetchall() == [("key", "text")]


def test_a_step_that_fails_half_way_leaves_nothing(url: str, path: Path) -> None:
    migrate(url, "base")
    execute(path, "CREATE TABLE tags (id INTEGER)")
    before = definitions(path)
    with pytest.raises(StoreError, match="tags"):
        migrate(url)
    assert definitions(path) == before
    execute(path, "DROP TABLE tags")
    migrate(url)
    check_revision(url)


def test_an_older_database_is_refused_with_the_command_that_mends_it(url: str) -> None:
    migrate(url, "base")
    for refuse in (check_revision, prepare):
        with pytest.raises(StoreRevisionError, match="foretag migrate"):
            refuse(url)


def test_a_newer_database_is_refused_and_left_alone(url: str, path: Path) -> None:
    prepare(url)
    execute(path, "UPDATE alembic_version SET version_num = 'future'")
    before = path.read_bytes()
    for refuse in (check_revision, prepare, migrate):
        with pytest.raises(StoreRevisionError, match="future"):
            refuse(url)
    assert path.read_bytes() == before


def test_a_newer_database_to_which_things_were_only_added_is_good_enough(url: str, path: Path) -> None:
    prepare(url)
    execute(path, "UPDATE alembic_version SET version_num = '0099'")
    check_revision(url)
    execute(path, "UPDATE bookkeeping SET value = 5 WHERE name = 'works_from'")
    with pytest.raises(StoreRevisionError, match="0099, which this release does not know"):
        check_revision(url)


def test_the_release_before_refuses_what_it_could_only_see_in_part(url: str, path: Path, tmp_path: Path) -> None:
    """The real code of the release with revision 0003, on a database of this one."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    found = subprocess.run([*git, "cat-file", "-e", f"{_BEFORE}^{{commit}}"], capture_output=True)
    if found.returncode:
        pytest.skip("the history of the repository is not here")
    code = tmp_path / "before"
    code.mkdir()
    files = subprocess.run([*git, "archive", _BEFORE, "plugin", "migrations"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(code)], input=files, check=True)
    prepare(url)
    before = path.read_bytes()
    script = (
        "import asyncio, plugin\nfrom plugin.historian.sql import SqlStore\n"
        f"assert plugin.__file__.startswith({str(code)!r})\nasyncio.run(SqlStore({url!r}).open())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=code, capture_output=True, text=True)
    assert done.returncode
    head = revisions()[-1]
    assert f"has schema revision {head}, which this release does not know (0003 is its newest)" in done.stderr
    assert path.read_bytes() == before


def test_a_database_that_is_not_there_is_not_made_by_looking(url: str, path: Path) -> None:
    with pytest.raises(StoreRevisionError, match="foretag migrate"):
        check_revision(url)
    assert not path.exists()


def test_a_file_that_is_no_database_is_refused_and_left_alone(url: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("tag;value\n" * 500)
    for refuse in (check_revision, prepare, migrate):
        with pytest.raises(StoreError, match="is no SQLite database"):
            refuse(url)
    assert path.read_text() == "tag;value\n" * 500


def test_the_database_of_another_program_is_refused_and_left_alone(url: str, path: Path) -> None:
    path.parent.mkdir()
    execute(path, "CREATE TABLE cookies (name TEXT)")
    for refuse in (check_revision, prepare, migrate):
        with pytest.raises(StoreError, match="another program"):
            refuse(url)
    assert [*definitions(path)] == ["cookies"]


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"])
def test_a_database_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="names no file"):
        prepare(url)
