"""The section ``[historian]``."""

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from plugin.errors import StoreError
from plugin.fields import parse_size
from plugin.historian.config import HistorianConfig, SpillConfig
from plugin.historian.postgres.connections import Place
from plugin.historian.spilling.spill import Spill


def test_the_default_lies_in_the_data_folder() -> None:
    assert HistorianConfig().located(Path("/srv/plant")) == "sqlite+aiosqlite:////srv/plant/historian.db"


def test_an_absolute_file_stays_where_it_is() -> None:
    config = HistorianConfig(url="sqlite:////mnt/ssd/plant.db")
    assert config.located(Path("/srv/plant")) == "sqlite+aiosqlite:////mnt/ssd/plant.db"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+asyncpg://foretag:hunter2@db/plant", "holds a password"),
        ("postgresql+psycopg://foretag@db/plant", "a driver that foretag does not use"),
        ("postgresql://foretag@db/plant?sslmode=prefer", "verify-full, verify-ca, require, disable"),
        ("postgresql://foretag@db/plant?passfile=/hunter2", "says passfile"),
        ("postgresql://foretag@db", "needs user, host and database"),
        ("postgresql://db/plant", "needs user, host and database"),
        ("postgresql://foretag@/plant", "needs user, host and database"),
    ],
)
def test_a_url_of_postgresql_that_can_not_be_used_is_refused_with_the_remedy(url: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HistorianConfig(url=url)
    (fault,) = caught.value.errors()
    assert says in fault["msg"]
    assert "hunter2" not in fault["msg"]


def test_a_database_of_a_server_is_reached_with_the_password_from_where_it_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HISTORIAN", "p:s/w@d?")
    url = "postgresql://foretag@db.plant:5433/historian"
    config = HistorianConfig(url=url, password_env="HISTORIAN", ca_file=Path("ca.pem"))
    place = Place.of(config.located(tmp_path))
    assert (place.host, place.port, place.database, place.user) == ("db.plant", 5433, "historian", "foretag")
    assert (place.password, place.ca_file) == ("p:s/w@d?", tmp_path / "ca.pem")
    assert "p:s/w@d?" not in f"{place} {place!r}"
    assert Place.of(HistorianConfig(url=url).located(tmp_path)).password == ""
    monkeypatch.delenv("HISTORIAN")
    with pytest.raises(StoreError, match="no password for the database: environment variable HISTORIAN"):
        config.located(tmp_path)


def test_a_unix_socket_is_a_folder() -> None:
    config = HistorianConfig(url="postgresql+asyncpg://foretag@/historian?host=/run/postgresql")
    place = Place.of(config.located(Path("/srv/plant")))
    assert (place.host, place.port) == ("/run/postgresql", 5432)


@pytest.mark.parametrize(
    ("host", "mode", "verified", "named"),
    [
        ("localhost", "", None, None),
        ("127.0.0.2", "", None, None),
        ("[::1]", "", None, None),
        ("db.plant", "", True, True),
        ("127.0.0.1", "verify-full", True, True),
        ("db.plant", "verify-ca", True, False),
        ("db.plant", "require", False, False),
        ("db.plant", "disable", None, None),
    ],
)
def test_another_machine_proves_itself_unless_it_is_said_otherwise(
    host: str, mode: str, verified: bool | None, named: bool | None
) -> None:
    url = f"postgresql://foretag@{host}/plant" + (f"?sslmode={mode}" if mode else "")
    context = Place.of(HistorianConfig(url=url).located(Path("/srv"))).encryption()
    if verified is None:
        assert context is False
        return
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verified, named)


def test_a_ca_file_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    for content in (None, "no certificate"):
        if content:
            (tmp_path / "ca.pem").write_text(content)
        config = HistorianConfig(url="postgresql://foretag@db/plant", ca_file=Path("ca.pem"))
        with pytest.raises(StoreError, match=str(tmp_path / "ca.pem")):
            Place.of(config.located(tmp_path)).encryption()


def test_durable_by_default() -> None:
    assert HistorianConfig().synchronous == "full"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgres", "is no database URL"),
        ("mysql://root:secret@db/plant", "does not know"),
        ("sqlite+pysqlite:///x.db", "does not know"),
        ("sqlite+aiosqlite://", "names no file"),
        ("sqlite+aiosqlite:///:memory:", "names no file"),
        ("sqlite+aiosqlite:///file:x.db?uri=true", "names no file"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_the_remedy(url: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HistorianConfig(url=url)
    (fault,) = caught.value.errors()
    assert says in fault["msg"]
    assert "sqlite+aiosqlite:///historian.db" in fault["msg"]
    assert "secret" not in fault["msg"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"busy_timeout": timedelta(minutes=2)},
        {"busy_timeout": "soon"},
        {"synchronous": "off"},
        {"ring_samples": 0},
        {"ring_memory": 0},
        {"rows_per_commit": 0},
        {"queue": 0},
        {"spill": {"limit": "1MiB"}},
        {"spill": {"limit": "much"}},
        {"spill": {"limit": -1}},
        {"spill": {"keep": "all"}},
        {"spill": {"after": "2min"}},
        {"spill": {"reserve": "1 furlong"}},
        {"ring": 5},
        {"password_env": "P"},
        {"ca_file": "ca.pem"},
        {"url": "postgresql://me@db/plant", "password_env": "P", "password_file": "p"},
        {"url": "postgresql://me@db/plant", "password_env": "no-name"},
    ],
)
def test_what_is_out_of_bounds_or_unknown_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HistorianConfig.model_validate(wrong)


def test_every_field_is_documented() -> None:
    assert all(field.description for field in HistorianConfig.model_fields.values())


@pytest.mark.parametrize("text", ["0", "500B", "16MiB", "1GB", "1500MB", "2GiB", "3TiB"])
def test_a_size_is_written_as_it_is_read(text: str) -> None:
    assert parse_size(str(parse_size(text))) == parse_size(text)


def test_sizes_are_bytes() -> None:
    assert [parse_size(text) for text in ("2KB", "2KiB", "1.5MiB", 7, "0")] == [2000, 2048, 1_572_864, 7, 0]


def test_no_limit_is_no_spill(tmp_path: Path) -> None:
    assert Spill.configured(SpillConfig.model_validate({"limit": "0"}), tmp_path) is None
    spill = Spill.configured(SpillConfig.model_validate({"limit": "16MiB", "folder": "/mnt/other"}), tmp_path)
    assert spill is not None
    assert spill.folder == Path("/mnt/other")
