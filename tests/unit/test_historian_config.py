"""The section ``[historian]``."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from plugin.fields import parse_size
from plugin.historian.config import HistorianConfig, SpillConfig
from plugin.historian.spill import Spill


def test_the_default_lies_in_the_data_folder() -> None:
    assert HistorianConfig().located(Path("/srv/plant")) == "sqlite+aiosqlite:////srv/plant/historian.db"


def test_an_absolute_file_stays_where_it_is() -> None:
    config = HistorianConfig(url="sqlite:////mnt/ssd/plant.db")
    assert config.located(Path("/srv/plant")) == "sqlite+aiosqlite:////mnt/ssd/plant.db"


def test_durable_by_default() -> None:
    assert HistorianConfig().synchronous == "full"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+asyncpg://foretag:secret@db/plant", "not yet in this release"),
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
