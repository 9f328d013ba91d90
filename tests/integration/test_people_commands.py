"""``foretag label``, ``lab`` and ``audit``: what people tell, and what is on record of what they did."""

import asyncio
import json
import stat
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner

from plugin import auditing, pki
from plugin.__main__ import app
from plugin.asking import beside
from plugin.auditing import REFUSED, WAITING, entry, leave, take_up, whoami
from plugin.config import Config, load
from plugin.domain import Audit, Flag, Outcome, Run, RunKind, Status
from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.memory import MemoryStore
from plugin.publish.config import UserConfig
from tests.certificates import make
from tests.postgres import Database

FILE = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"

[[assets]]
names = ["pump-{01..02}"]
node = "nsu=u;s={asset}.{feature}"
tags = { power = {} }
"""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass
class Desk:
    """An installation, and a person at its command line."""

    config: Config

    def __call__(self, *words: str, code: int = 0) -> str:
        runner = CliRunner(env={"COLUMNS": "250", "NO_COLOR": "1", "TZ": "UTC"})
        done = runner.invoke(app, [*words, "--config", str(self.config.path)])
        assert done.exit_code == code, done.output
        return " ".join(done.output.split()) if code else done.output

    def json(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self(*words, "--json"))
        return found

    def flags(self, *flags: Flag) -> None:
        async def write() -> None:
            async with beside(self.config) as store:
                run = await store.write_run(Run(0, "health", RunKind.SCORE, NOON))
                await store.write_outcome(Outcome(run, (), flags))

        asyncio.run(write())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "foretag.toml").write_text(FILE)
    return Desk(load(tmp_path / "foretag.toml"))


# --- labels ---


def test_a_failure_is_told_and_listed(desk: Desk) -> None:
    told = desk("label", "add", "failure", "pump-01", "--at", "2026-03-01T08:00+00:00", "--note", "bearing")
    assert told.startswith("failure of pump-01 at 2026-03-01")
    desk("label", "add", "work_order", "pump-02", "--reference", "WO-1", "--at", "2h", "--until", "1h")
    (first, second) = desk.json("label", "list")
    assert (first["start"], first["end"], first["note"]) == ("2026-03-01T08:00:00Z", None, "bearing")
    assert first["user"] == whoami()
    assert (second["kind"], second["asset"], second["reference"]) == ("work_order", "pump-02", "WO-1")
    assert [row["kind"] for row in desk.json("label", "list", "--asset", "pump-01")] == ["failure"]
    assert [row["kind"] for row in desk.json("label", "list", "--kind", "work_order", "--since", "3h")] == [
        "work_order"
    ]
    shown = desk("label", "list")
    assert "bearing" in shown
    assert "2 labels" in shown


def test_a_verdict_is_on_the_newest_raised_flag(desk: Desk) -> None:
    flag = Flag("health", "pump-01", 1, NOON, True, 2.0, 1.0, Status.GOOD, 1)
    later = Flag("health", "pump-01", 1, NOON + 2 * MINUTE, False, 0.5, 1.0, Status.GOOD, 1)
    desk.flags(flag, later)
    told = desk("label", "add", "verdict", "pump-01", "--verdict", "false_alarm", "--at", "2026-03-01T12:05+00:00")
    assert "verdict of pump-01 at 2026-03-01" in told
    (label,) = desk.json("label", "list")
    assert (label["model"], label["as_of"], label["run"], label["verdict"]) == (
        "health", "2026-03-01T12:00:00Z", 1, "false_alarm",
    )  # fmt: skip
    desk("label", "add", "verdict", "pump-01", "--verdict", "confirmed", "--at", "2026-03-01T12:05+00:00",
         "--replaces", label["id"])  # fmt: skip
    assert [row["verdict"] for row in desk.json("label", "list")] == ["confirmed"]
    (kept,) = desk.json("audit", "--action", "correct")
    assert (kept["before"]["verdict"], kept["subject"]) == ("false_alarm", f"label {label['id']}")
    nothing = desk("label", "add", "verdict", "pump-02", "--verdict", "confirmed", code=2)
    assert "has no raised flag" in nothing


def test_whose_flag_a_verdict_is_about_has_to_be_said_where_several_models_raised_one(desk: Desk) -> None:
    flag = Flag("health", "pump-01", 1, NOON, True, 2.0, 1.0, Status.GOOD, 1)
    desk.flags(flag, replace(flag, model="odd", as_of=NOON + MINUTE))
    words = "label", "add", "verdict", "pump-01", "--verdict", "confirmed", "--at", "2026-03-01T12:05+00:00"
    assert "--model = : is not said, and health, odd raised flags of pump-01" in desk(*words, code=2)
    desk(*words, "--model", "health")
    assert [row["model"] for row in desk.json("label", "list")] == ["health"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["failure", "pump-1"], "ASSET = pump-1: is no asset. Is it pump-01 or pump-02?"),
        (["failure", "pump-01", "--at", "yesterday"], "--at = yesterday: is no time"),
        (["failure", "pump-01", "--at", "2126-03-01"], "--at = 2126-03-01: is in the future. Write when it happened"),
        (["failure", "pump-01", "--at", "1h", "--until", "2h"], "--until = 2h: is not after --at"),
        (
            ["normal", "pump-01", "--at", "1h", "--until", "2126-03-01"],
            "--until = 2126-03-01: is in the future. Leave it",
        ),
        (["failure", "pump-01", "--verdict", "confirmed"], "goes with the kind verdict"),
        (["verdict", "pump-01"], "Verdicts are: confirmed, false_alarm, unclear"),
        (["failure", "pump-01", "--model", "health"], "--model = health: goes with the kind verdict"),
    ],
)
def test_a_label_that_can_not_be_is_refused(desk: Desk, words: list[str], told: str) -> None:
    assert told in desk("label", "add", *words, code=2)
    assert desk("label", "list").strip() == "0 labels"


# --- the laboratory ---


def test_a_csv_of_labels_is_told_once(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "kind;asset;at;until;reference\nfailure;pump-01;2026-03-01T12:00Z;;\n"
        "work_order;pump-01;2026-03-01T13:00Z;2026-03-01T15:00Z;4711\n",
    )
    assert "2 told, 2 of them new" in desk("label", "import", str(tmp_path / "labels.csv"))
    assert "2 told, 0 of them new" in desk("label", "import", str(tmp_path / "labels.csv"))
    found = [(row["kind"], row["asset"], row["reference"]) for row in desk.json("label", "list")]
    assert found == [("failure", "pump-01", ""), ("work_order", "pump-01", "4711")]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("broken,pump-01,2026-03-01T12:00Z,", "row 1, kind = broken: is no kind of label"),
        ("failure,pump-09,2026-03-01T12:00Z,", "is no asset"),
        ("failure,pump-01,,", "row 1, at = : is empty"),
        ("verdict,pump-01,2026-03-01T12:00Z,perhaps", "Verdicts are: confirmed, false_alarm, unclear"),
    ],
)
def test_a_csv_of_labels_with_a_fault_names_row_and_field(desk: Desk, tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "labels.csv").write_text(f"kind,asset,at,verdict\n{row}\n")
    said = desk("label", "import", str(tmp_path / "labels.csv"), code=2)
    assert told in said.replace("'", "")


def test_a_csv_of_labels_with_faults_names_all_and_stores_nothing(desk: Desk, tmp_path: Path) -> None:
    rows = ["failure,pump-01,2026-03-01T12:00Z", "broken,pump-01,2026-03-01T12:00Z", "failure,pump-01,"]
    (tmp_path / "labels.csv").write_text("\n".join(["kind,asset,at", *rows]))
    said = desk("label", "import", str(tmp_path / "labels.csv"), code=2).replace("'", "")
    assert "row 2, kind = broken" in said
    assert "row 3, at = : is empty" in said
    assert desk("label", "list").strip() == "0 labels"


def test_a_result_is_told_again_and_corrected(desk: Desk) -> None:
    words = ["lab", "add", "pump-01", "oil", "--taken", "2026-03-01T08:00+00:00", "--unit", "ppm"]
    assert desk(*words, "12.5").strip() == "1 told, 1 of them new or corrected."
    assert desk(*words, "12.5").strip() == "1 told, 0 of them new or corrected."
    assert desk(*words, "13.5").strip() == "1 told, 1 of them new or corrected."
    (row,) = desk.json("lab", "list", "--since", "2026-01-01")
    assert (row["asset"], row["quantity"], row["value"], row["unit"]) == ("pump-01", "oil", 13.5, "ppm")
    first, second = desk.json("audit")
    assert (first["action"], first["before"], first["after"]["value"]) == ("lab", {}, 12.5)
    assert (second["action"], second["before"]["value"], second["after"]["value"]) == ("correct", 12.5, 13.5)
    assert "12.5 → 13.5" in desk("audit")


def test_a_result_corrected_without_its_unit_keeps_it(desk: Desk) -> None:
    words = ["lab", "add", "pump-01", "oil", "--taken", "2026-03-01T08:00+00:00"]
    desk(*words, "12.5", "--unit", "ppm")
    assert desk(*words, "12.5").strip() == "1 told, 0 of them new or corrected."
    desk(*words, "13.5")
    (row,) = desk.json("lab", "list", "--since", "2026-01-01")
    assert (row["value"], row["unit"]) == (13.5, "ppm")


CSV = {
    ",": "asset,quantity,taken,value,note\npump-01,oil,2026-03-01T08:00Z,12.5,\npump-02,oil,2026-03-01T09:00Z,,lost\n",
    ";": "asset; quantity; taken; value; note\npump-01;oil;2026-03-01T08:00Z;12,5\n"
    "pump-02;oil;2026-03-01T09:00Z;;lost\n",
    "\t": "\ufeffasset\tquantity\ttaken\tvalue\tnote\npump-01\toil\t2026-03-01T08:00Z\t12.5\t\n"
    "pump-02\toil\t2026-03-01T09:00Z\t\tlost\n",
}


@pytest.mark.parametrize("text", CSV.values(), ids=["comma", "semicolon", "tab"])
def test_a_csv_of_results_is_told_once(desk: Desk, text: str) -> None:
    path = desk.config.path.with_name("lab.csv")
    path.write_text(text, encoding="utf-8")
    assert desk("lab", "add", "--csv", str(path)).strip() == "2 told, 2 of them new or corrected."
    assert desk("lab", "add", "--csv", str(path)).strip() == "2 told, 0 of them new or corrected."
    rows = desk.json("lab", "list", "--since", "2026-01-01", "--quantity", "oil")
    assert [(row["asset"], row["value"], row["note"]) for row in rows] == [
        ("pump-01", 12.5, ""),
        ("pump-02", None, "lost"),
    ]


def test_a_csv_with_faults_stores_nothing_and_names_them_all(desk: Desk) -> None:
    path = desk.config.path.with_name("lab.csv")
    rows = ["pump-01,oil,2026-03-01T08:00Z,12.5", "pump-9,oil,noon,1e999", "pump-01,,2999-01-01,x"]
    path.write_text("\n".join(["asset,quantity,taken,value", *rows]))
    told = desk("lab", "add", "--csv", str(path), code=2)
    quantity = "row 3, quantity = : is empty"
    for fault in ("row 2, asset = pump-9", "row 2, taken = noon", "row 2, value = 1e999", quantity,
                  "row 3, taken = 2999-01-01: is in the future", "row 3, value = x: is no number"):  # fmt: skip
        assert fault in told
    assert "6 fault(s)" in told
    assert not desk.config.data.exists(), "nothing is kept"
    path.write_text("asset,quantity,value,colour\n")
    told = desk("lab", "add", "--csv", str(path), code=2)
    assert "column = taken: is missing" in told
    assert "column = colour: is not known" in told
    path.write_text("asset,quantity,taken,value\n" + "nothing,oil,2026-03-01,1\n" * 30)
    assert "rows = 30: have 30 faults in all" in desk("lab", "add", "--csv", str(path), code=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "asset,quantity,taken,value\npump-01,oil,2026-03-01,1\npump-01,oil,2026-03-02,12,5\n",
            "row 2 = 5: is left over",
        ),
        ("asset,quantity,value,taken,value\npump-01,oil,1,2026-03-01,2\n", "column = value: is there twice"),
        ("asset,quantity,taken,value\npump-01,oil,2026-03-01,\x1b[2J\n", r"value = '\x1b[2J': is no number"),
        ("asset,quantity,taken,value,note\npump-01,oil,2026-03-01,1,ü\n", "Save it as UTF-8"),
    ],
    ids=["decimal comma", "twice", "steers a terminal", "latin"],
)
def test_a_csv_that_would_be_read_amiss_is_refused(desk: Desk, text: str, told: str) -> None:
    path = desk.config.path.with_name("lab.csv")
    path.write_bytes(text.encode("latin-1"))
    assert told in desk("lab", "add", "--csv", str(path), code=2)
    assert not desk.config.data.exists(), "nothing is kept"


def test_a_note_may_hold_the_mark_between_columns_and_ends_of_lines(desk: Desk) -> None:
    path = desk.config.path.with_name("lab.csv")
    path.write_text('asset,quantity,taken,value,note\npump-01,oil,2026-03-01,1,"one, two\nthree"\n')
    desk("lab", "add", "--csv", str(path))
    (row,) = desk.json("lab", "list", "--since", "2026-01-01")
    assert row["note"] == "one, two\nthree"


def test_one_result_and_a_file_of_them_are_not_told_at_once(desk: Desk) -> None:
    path = desk.config.path.with_name("lab.csv")
    path.write_text(CSV[","])
    told = desk("lab", "add", "pump-01", "--unit", "ppm", "--csv", str(path), code=2)
    assert "asset = pump-01: goes without --csv" in told
    assert "unit = ppm: goes without --csv" in told


def test_a_result_without_all_that_it_needs_is_refused(desk: Desk) -> None:
    told = desk("lab", "add", "pump-01", code=2)
    assert [name in told for name in ("quantity = : is missing", "value = : is missing", "taken = : is missing")] == [
        True
    ] * 3


# --- elsewhere ---


def test_what_people_tell_goes_into_postgresql_too(
    tmp_path: Path, migrated_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANT_PASSWORD", migrated_postgres.password)
    where = f'[historian]\nurl = "{migrated_postgres.url}"\npassword_env = "PLANT_PASSWORD"\n'
    (tmp_path / "foretag.toml").write_text(FILE + where)
    desk = Desk(load(tmp_path / "foretag.toml"))
    for value in ("1", "2"):
        desk("lab", "add", "pump-01", "oil", value, "--taken", "2026-03-01T08:00+00:00")
    desk("label", "add", "failure", "pump-02", "--at", "1h")
    made = make("plc")
    pki.refusal(desk.config.pki_folder, made.der, peer="plant at opc.tcp://plc1:4840")
    desk("trust", "add", pki.thumbprint(made.der)[:10])
    assert [row["action"] for row in desk.json("audit")] == ["lab", "correct", "label", "trust"]
    assert not (desk.config.data / WAITING).exists()
    assert [row["asset"] for row in desk.json("label", "list")] == ["pump-02"]


# --- the audit log ---


def test_trust_is_on_record_also_before_there_is_a_database(desk: Desk) -> None:
    folder = desk.config.pki_folder
    made = make("plc")
    pki.refusal(folder, made.der, peer="plant at opc.tcp://plc1:4840")
    mark = pki.thumbprint(made.der)
    desk("trust", "add", mark[:10])
    waiting = desk.config.data / WAITING
    assert stat.S_IMODE(waiting.stat().st_mode) == 0o600
    assert not (desk.config.data / "historian.db").exists(), "trusting makes no database"
    desk("label", "add", "normal", "pump-01")  # this one does
    (first,) = desk.json("audit", "--action", "trust")
    assert (first["action"], first["subject"], first["user"], first["origin"]) == ("trust", mark, whoami(), "command")
    assert first["after"]["place"] == "trusted"
    assert waiting.read_bytes() == b""
    desk("trust", "reject", mark[:10])
    second = desk.json("audit")[-1]
    assert (second["action"], second["before"]["place"], second["after"]["place"]) == (
        "distrust",
        "trusted",
        "rejected",
    )
    assert waiting.read_bytes() == b"", "it went into the database at once"
    assert desk.json("audit", "--action", "trust") == [first]
    assert [row["action"] for row in desk.json("audit", "--limit", "1")] == ["distrust"]
    assert desk.json("audit", "--since", "2999-01-01") == []
    assert "3 entries" in desk("audit")


@pytest.mark.parametrize("words", [("gaps",), ("audit",), ("label", "list"), ("lab", "list"), ("models", "list")])
def test_a_question_makes_no_database(desk: Desk, words: tuple[str, ...]) -> None:
    """Who asks may be another than the service's user."""
    assert "There is no database" in desk(*words, code=2)
    assert not desk.config.data.exists()


def test_whoever_acts_as_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    name = whoami()
    assert name.startswith("anna as ")
    monkeypatch.setenv("SUDO_USER", name.removeprefix("anna as "))
    assert " as " not in whoami()


class Away(MemoryStore):
    """A database that can't be written."""

    async def write_audit(self, *entries: Audit) -> None:
        raise StoreUnavailable("away")


async def test_what_can_not_be_logged_waits_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    first, second = (entry(action, "x", before={}, after={"é": [1, None]}) for action in ("reload", "trust"))
    await auditing.keep(Away(), folder, first)
    leave(folder, second)
    with pytest.raises(StoreUnavailable):
        await take_up(Away(), folder)
    with (folder / WAITING).open("ab") as file:
        file.write(b"{torn\n")
    store = MemoryStore()
    for _ in range(2):
        await take_up(store, folder)
    assert await store.audit() == (second, first)
    assert "can't be read" in caplog.text
    assert (folder / WAITING).read_bytes() == b""
    assert (folder / REFUSED).read_bytes() == b"{torn\n"


async def test_an_entry_that_the_log_refuses_holds_up_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    folder = desk.config.data
    strange, sound = (entry("reload", subject, before={}, after={}) for subject in ("\ud800", "foretag.toml"))
    async with beside(desk.config) as store:
        leave(folder, strange)
        with pytest.raises(StoreError):
            await take_up(store, folder)  # the only one: it might be the database's fault
        assert not (folder / REFUSED).exists()
        leave(folder, sound, strange)
        await take_up(store, folder)
        assert [each.subject for each in await store.audit(action="reload")] == ["foretag.toml"]
        assert (folder / REFUSED).read_bytes().count(b"ud800") == 2
        assert "2 of 3 entries for the audit log can't be in it" in caplog.text
        assert (folder / WAITING).read_bytes() == b""


def test_a_user_is_made_from_a_password_that_is_asked_for_and_not_shown():
    runner = CliRunner(env={"NO_COLOR": "1"})
    made = runner.invoke(app, ["user", "anna", "--role", "operator"], input="correct horse\ncorrect horse\n")
    assert made.exit_code == 0
    (section,) = tomllib.loads(made.stdout)["publish"]["users"]
    user = UserConfig(**section)
    assert (user.name, user.role) == ("anna", "operator")
    assert PasswordHasher().verify(str(user.password_hash), "correct horse")
    assert "correct" not in made.output
    short = runner.invoke(app, ["user", "anna"], input="short\nshort\n")
    assert short.exit_code == 2
    assert "at least 10 characters" in short.output


@pytest.mark.parametrize("name", ["zo\u00eb \U0001f477", 'a "quote" and a \\'])
def test_the_section_of_any_user_name_is_toml(name: str) -> None:
    made = CliRunner().invoke(app, ["user", name], input="correct horse\ncorrect horse\n")
    (section,) = tomllib.loads(made.stdout)["publish"]["users"]
    assert UserConfig(**section).name == name


@pytest.mark.parametrize("name", ["", " anna", "a" * 65, "an\x7fna", "an\nna"])
def test_a_user_name_that_the_configuration_would_refuse_is_refused(name: str) -> None:
    made = CliRunner().invoke(app, ["user", name], input="correct horse\ncorrect horse\n")
    assert made.exit_code == 2
    assert "is no user name" in " ".join(made.output.split())
