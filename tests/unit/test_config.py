"""The configuration: what a person writes, and what is said when it is wrong."""

import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from plugin.config import load
from plugin.errors import ConfigError, Fault
from plugin.fields import format_duration, parse_duration, parse_moment
from plugin.tag_sections import expand

GOOD = """
tags = ["tags.csv"]

[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:4840/plant"

[[assets]]
names = ["engine-{01..03}"]
node = "nsu=urn:plant;s={asset}.{feature}"
[assets.tags]
cycle = { unit = "cycles", low = 0, high = 500 }
T24 = { node = "nsu=urn:plant;s={asset}/temp", sampling = "500ms" }

[[models]]
name = "rul"
kind = "rul_lstm"
assets = ["engine-*"]
features = ["cycle", "T24"]
roles = { age = "cycle" }
window = "5min"
step = "1s"
training = { learn = "failures" }
"""
CSV = "name,node,asset,feature,unit,low,high\nmill.power,nsu=urn:plant;s=P1,mill,power,kW,0,75.5\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(toml: str, csv: str = CSV) -> Path:
        (tmp_path / "tags.csv").write_text(csv)
        (tmp_path / "foretag.toml").write_text(toml)
        return tmp_path / "foretag.toml"

    return write


def faults(path: Path) -> dict[str, Fault]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return {fault.field: fault for fault in caught.value.faults}


def test_tags_come_from_csv_and_from_templates(write):
    config = load(write(GOOD))
    tags = {tag.name: tag for tag in config.tags}
    assert len(tags) == 7
    assert tags["mill.power"].high == 75.5
    assert tags["mill.power"].source == "plant"
    assert tags["engine-02.cycle"].node == "nsu=urn:plant;s=engine-02.cycle"
    assert tags["engine-02.T24"].node == "nsu=urn:plant;s=engine-02/temp"
    assert tags["engine-02.T24"].sampling == timedelta(milliseconds=500)


def test_blank_cells_of_a_csv_take_the_default(write):
    csv = "name,node,unit,low,high,deadband,sampling\nmill.power,nsu=urn:plant;s=P1,,,,,\n"
    tag = load(write(GOOD, csv)).tags[0]
    assert (tag.low, tag.deadband, tag.sampling, tag.source) == (None, 0.0, None, "plant")


def test_a_model_watches_assets_by_wildcard(write):
    config = load(write(GOOD))
    assert [asset.name for asset in config.watched(config.models[0], config.tags)] == [
        "engine-01", "engine-02", "engine-03",
    ]  # fmt: skip
    assert config.models[0].length == 300
    assert config.models[0].validity == 3 * config.models[0].schedule.every


def test_every_fault_is_listed_at_once_with_field_value_and_remedy(write):
    wrong = (
        GOOD.replace('window = "5min"', 'window = "five"')
        .replace('step = "1s"', "step = -1")
        .replace('name = "rul"', 'name = "RUL!"')
        .replace('kind = "rul_lstm"', 'kind = "rul_lstm"\ncolour = "red"')
    )
    found = faults(write(wrong))
    assert set(found) >= {"models[0].window", "models[0].step", "models[0].name", "models[0].colour"}
    assert found["models[0].window"].value == "'five'"
    assert "30s" in found["models[0].window"].problem
    assert "Remove it" in found["models[0].colour"].remedy


def test_references_between_sections_are_checked_together(write):
    wrong = GOOD.replace('assets = ["engine-*"]', 'assets = ["pump-*"]').replace(
        'roles = { age = "cycle" }', "roles = {}"
    )
    found = faults(write(wrong))
    assert "engine-01" in found["models.rul.assets"].remedy
    assert "age" in found["models.rul.roles"].problem


def test_a_missing_feature_names_the_asset_and_what_it_has(write):
    found = faults(write(GOOD.replace('features = ["cycle", "T24"]', 'features = ["cycle", "T24", "P30"]')))
    assert "engine-01" in found["models.rul.features"].problem
    assert "P30" in found["models.rul.features"].value
    assert "T24" in found["models.rul.features"].remedy


def test_csv_faults_name_line_and_column(write):
    csv = CSV + "bad,ns=2;s=x,,,,abc,\nmill.power,nsu=urn:plant;s=P2,,,,,\n"
    found = faults(write(GOOD, csv))
    assert "tags.csv line 3, column node" in found
    assert "tags.csv line 3, column low" in found
    assert "is there twice" in found["tags"].problem


def test_a_line_is_named_as_an_editor_counts_it_and_empty_ones_are_nothing(write):
    csv = CSV + "\n,,,,,,\nbad,ns=2;s=x,,,,abc,\n"
    assert {"tags.csv line 5, column node", "tags.csv line 5, column low"} == faults(write(GOOD, csv)).keys()


def test_columns_that_a_spreadsheet_leaves_behind_are_nothing(write):
    path = write(GOOD, "name,node,,\nmill.power,nsu=urn:plant;s=P1,,\n")
    assert "mill.power" in {tag.name for tag in load(path).tags}
    assert faults(write(GOOD, "name,node,\nmill.power,nsu=urn:plant;s=P1,5\n")), "but not what stands in one"


@pytest.mark.parametrize("heading", ["name;node;asset", "name,node,colour", "node,asset", ""])
def test_a_heading_that_is_not_a_tag_files_is_one_fault(write, heading):
    found = faults(write(GOOD, f"{heading}\n" + "a;nsu=u;s=a;b\n" * 50))
    assert found.keys() == {"tags.csv heading"}
    assert "name and node are needed" in found["tags.csv heading"].remedy


def test_a_file_with_a_byte_order_mark_is_read(write):
    path = write(GOOD)
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load(path).tags


def test_more_faults_than_a_screen_holds_are_counted(write):
    found = faults(write(GOOD, CSV + "".join(f"t{n},ns=2;s=x,,,,,\n" for n in range(150))))
    assert len(found) == 150
    text = str(ConfigError("file", [*found.values()]))
    assert len(text.splitlines()) == 102
    assert text.endswith("and 50 more")


def test_a_range_that_is_upside_down_is_a_fault(write):
    found = faults(write(GOOD, CSV.replace("0,75.5", "80,75.5")))
    assert found["tag mill.power: low"].value == "80.0"


def test_an_unknown_source_is_a_fault(write):
    csv = "name,node,source\na,nsu=urn:plant;s=a,plc9\n"
    assert "plant" in faults(write(GOOD, csv))["tag a: source"].remedy


@pytest.mark.parametrize("text", ["= nonsense", "[foretag]\n"])
def test_a_file_that_is_no_configuration_is_refused(write, text):
    assert faults(write(text))


def test_a_missing_file_says_how_to_make_one(tmp_path):
    assert "foretag init" in faults(tmp_path / "none.toml")["file"].remedy


def test_the_environment_overrides_a_section(write, monkeypatch):
    monkeypatch.setenv("FORETAG__FORETAG__DEVICE", "cpu")
    assert load(write(GOOD)).runtime.device == "cpu"


def test_expand_keeps_the_width_of_the_digits():
    assert expand("e-{08..10}") == ["e-08", "e-09", "e-10"]
    assert expand("l{1..2}-p{1..2}") == ["l1-p1", "l1-p2", "l2-p1", "l2-p2"]
    assert expand("plain") == ["plain"]


@pytest.mark.parametrize(
    ("names", "told"), [("e-{20..01}", "write {01..20}"), ("e-{1..1000}-{1..1000}", "1,000,000 names")]
)
def test_a_pattern_that_stands_for_nothing_or_for_too_much_is_a_fault(write, names, told):
    assert told in faults(write(GOOD.replace("engine-{01..03}", names)))["assets[0].names[0]"].problem


def test_a_date_without_a_zone_is_this_machines_and_is_told_in_utc(monkeypatch):
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    try:
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        found = parse_moment("2026-03-01T08:00", now)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert f"{found:%H:%M %z}" == "07:00 +0000"
    assert parse_moment("2h", now) == now - timedelta(hours=2)


@pytest.mark.parametrize("text", ["500ms", "1s", "90s", "5min", "24h", "7d", "250us"])
def test_durations_are_read_and_written(text):
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("value", ["5", "-1s", "1 week", "", True, -1, None])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "plant"', 'name = "plant"\npassword = "hunter2"'),
        ('name = "plant"', 'name = "plant"\npw = "hunter2"'),
        ('name = "plant"', 'name = "plant"\nlogin = { user = "me", password = "hunter2" }'),
        ('name = "plant"', 'name = "plant"\nuser = "me"\npassword_env = "hunter2!"'),
        ('name = "plant"', 'name = "plant"\nuser = "me"\npassword_credential = "hunter2/x"'),
        ('name = "plant"', 'name = "plant"\nuser = "hunter2"'),
        ("opc.tcp://127.0.0.1:4840/plant", "opc.tcp://me:hunter2@127.0.0.1:4840/plant"),
        ("[[sources]]", '[historian]\nurl = "postgresql://me:hunter2@db/historian"\n\n[[sources]]'),
        ("[[sources]]", '[publish]\nendpoint = "opc.tcp://me:hunter2@host:4841"\n\n[[sources]]'),
        ("[[sources]]", "password = hunter2\n[[sources]]"),
        ("[[sources]]", 'password = "hunter2\n[[sources]]'),
    ],
)
def test_a_secret_that_stands_where_it_should_not_is_not_told(write, old, new):
    with pytest.raises(ConfigError) as caught:
        load(write(GOOD.replace(old, new, 1)))
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told
    assert caught.value.faults[0].field
    assert caught.value.faults[0].remedy


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ('user = "me"', "one of password_env, password_file and password_credential"),
        ('password_env = "P"', "one of password_env"),
        ('user = "me"\npassword_env = "P"\npassword_credential = "p"', "one of password_env"),
        ('user = "me"\npassword_env = "P"\nsecurity_mode = "Sign"', "SignAndEncrypt"),
        ('user = "me"\npassword_env = "P"\nsecurity_policy = "None"', "never goes over"),
        ('user_certificate = "me.der"', "together"),
        ('user_certificate = "me.der"\nuser_key = "me.key"\nsecurity_policy = "None"', "secured connection"),
        ('user_certificate = "me.der"\nuser_key = "me.key"\nuser = "me"\npassword_env = "P"', "either"),
    ],
)
def test_a_user_is_said_once_and_completely(write, places, text):
    (fault,) = faults(write(GOOD.replace('name = "plant"', f'name = "plant"\n{places}', 1))).values()
    assert text in fault.problem


def test_elements_come_from_csv_and_from_templates(write):
    toml = GOOD.replace('T24 = { node = "nsu=urn:plant;s={asset}/temp"', 'T24 = { element = ".Inlet[2]"')
    csv = 'name,node,element\nmill.power,nsu=urn:plant;s=P1,"[1,2]"\n'
    found = {tag.name: tag.element for tag in load(write(toml, csv)).tags}
    assert found["mill.power"] == "[1,2]"
    assert found["engine-02.T24"] == ".Inlet[2]"
    assert found["engine-02.cycle"] == ""
    (fault,) = faults(write(GOOD, csv.replace('"[1,2]"', "Speed"))).values()
    assert (fault.field, fault.value) == ("tags.csv line 2, column element", "'Speed'")
    assert "[3]" in fault.problem


def test_a_mirror_of_no_tag_is_a_fault(write):
    (fault,) = faults(write(GOOD + '[publish]\nmirror = ["engine-*", "mil"]\n')).values()
    assert (fault.field, fault.value, fault.problem) == ("publish.mirror", "'mil'", "fits no tag")
