"""Defaults of known servers: below what the file says, above our own."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from plugin.acquire.config import SourceConfig
from plugin.acquire.items import ItemMaker
from plugin.acquire.profiles import PROFILES, recognise
from plugin.config import load
from plugin.domain import Tag
from plugin.errors import ConfigError


def source(**more: Any) -> SourceConfig:
    return SourceConfig(name="plc", endpoint="opc.tcp://plc:4840", **more)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_sets_what_the_file_leaves_open(name: str) -> None:
    ours, found = source(), source(profile=name)
    settings = PROFILES[name].settings()
    for field in SourceConfig.model_fields.keys() - {"profile"}:
        assert getattr(found, field) == settings.get(field, getattr(ours, field))
    for field in settings:
        assert getattr(found, field) != getattr(ours, field) or settings[field] == getattr(ours, field)


def test_what_the_file_says_wins() -> None:
    found = source(profile="s7-1200", batch=7, filters=True)
    assert (found.batch, found.filters, found.max_items) == (7, True, 1000)


@pytest.mark.parametrize("name", ["s7-300", "", 3, ["s7-1200"], None])
def test_an_unknown_profile_is_a_fault_of_its_field(name: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        source(profile=name)
    assert [error["loc"] for error in caught.value.errors()] == [("profile",)]


def test_no_filter_is_asked_of_a_server_that_knows_none() -> None:
    tag = Tag("t", "plc", "i=1", deadband=0.5)
    assert ItemMaker(source(profile="s7-1200"))._filter(tag) is None
    asked = ItemMaker(source())._filter(tag)
    assert asked is not None
    assert asked.DeadbandValue == 0.5


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (("Siemens AG", "SIMATIC S7-1200", ""), "s7-1200"),
        (("Siemens AG", "SIMATIC S7-1500", "https://www.siemens.com/s7-1500"), "s7-1500"),
        (("Siemens AG", "SIMATIC NET", ""), ""),
        (("Kepware", "KEPServerEX", "urn:kepware"), "kepware"),
        (("Inductive Automation", "Ignition OPC UA Server", ""), "ignition"),
        (("Prosys OPC Ltd", "SimulationServer", ""), "prosys"),
        (("Acme", "Model 1200", ""), ""),
        (("", "", ""), ""),
    ],
)
def test_a_server_is_recognised_by_what_it_says(told: tuple[str, ...], name: str) -> None:
    assert recognise(*told) == name


def test_more_tags_than_the_server_monitors_are_a_fault(tmp_path: Path) -> None:
    text = '[[sources]]\nname = "plc"\nendpoint = "opc.tcp://plc"\nsecurity_policy = "None"\nmax_items = 2\n{more}\n'
    lines = ["name,node", *(f"t{number},i={number}" for number in range(3))]
    (tmp_path / "tags.csv").write_text("\n".join(lines))
    file = tmp_path / "foretag.toml"
    file.write_text('tags = ["tags.csv"]\n' + text.format(more=""))
    with pytest.raises(ConfigError, match=r"sources\[0\].max_items = 2: is less than the 3 tags of plc"):
        load(file)
    file.write_text('tags = ["tags.csv"]\n' + text.format(more='mode = "poll"'))
    assert len(load(file).tags) == 3
