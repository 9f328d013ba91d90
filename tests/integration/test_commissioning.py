"""``foretag init`` and ``foretag check`` against a real server, and the commands' answers to what is wrong."""

import csv
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from rich.console import Console
from typer.testing import CliRunner

from opcua_sim.options import Options, Security
from opcua_sim.server import serve
from plugin.__main__ import app
from plugin.commissioning import Search, browse_source, check_tags, write_first_config
from plugin.config import load
from plugin.errors import ConfigError, SourceRefused, SourceUnreachable
from tests.integration.acquire_plant import Plant

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant():
    async with serve(Options(port=0, engines=2, history_runs=0)) as plant:
        yield plant


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=200)


def _foretag(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: it sets up logging for the whole of it."""
    return subprocess.run([sys.executable, "-m", "plugin", *words], capture_output=True, text=True, timeout=60)


async def _init(plant, folder: Path, console: Console, *, agree: bool = True, force: bool = False) -> None:
    await write_first_config(
        plant.endpoint, folder, root="Plant/Fleet", force=force, confirm=lambda question: agree, console=console
    )


async def test_init_writes_a_configuration_that_check_finds_good(plant, tmp_path, console):
    await _init(plant, tmp_path, console)
    with (tmp_path / "tags.csv").open() as lines:
        rows = {row["name"]: row for row in csv.DictReader(lines)}
    assert rows["engine-01.Nf"]["unit"] == "rpm"
    assert float(rows["engine-01.Nf"]["low"]) < float(rows["engine-01.Nf"]["high"])
    assert rows["engine-02.T24"]["asset"] == "engine-02"
    assert not [name for name in rows if "gas-turbine" in name or "EURange" in name]
    config = load(tmp_path / "foretag.toml")
    measured = [tag for tag in config.tags if "advisory" not in tag.asset]
    assert len(measured) == 2 * 26
    await check_tags(config, console)
    assert "rpm" in console.export_text()


async def test_check_shows_every_tag_though_one_is_unknown_and_one_server_is_dead(plant, tmp_path, console):
    (tmp_path / "foretag.toml").write_text(f"""
tags = ["tags.csv"]
[[sources]]
name = "dead"
endpoint = "opc.tcp://127.0.0.1:1/x"
security_policy = "None"
timeout = "1s"
[[sources]]
name = "plant"
endpoint = "{plant.endpoint}"
security_policy = "None"
""")
    (tmp_path / "tags.csv").write_text(
        "name,node,source\nspeed,nsu=urn:opcua-sim:plant;s=engine-01.Nf,plant\n"
        "ghost,nsu=urn:opcua-sim:plant;s=nobody,plant\nlost,nsu=urn:nowhere;s=x,plant\nfar,nsu=urn:x;s=y,dead\n"
    )
    assert not await check_tags(load(tmp_path / "foretag.toml"), console)
    text = console.export_text()
    assert "Good" in text
    assert text.count("BadNodeIdUnknown") == 2
    assert "dead" in text


async def test_init_asks_before_it_goes_without_security(plant, tmp_path, console):
    with pytest.raises(SourceRefused, match="offers no security"):
        await _init(plant, tmp_path, console, agree=False)
    assert not (tmp_path / "foretag.toml").exists()


async def test_init_trusts_a_certificate_only_when_a_person_agrees(tmp_path, console):
    options = Options(port=0, engines=1, gas_turbine=False, state=tmp_path / "state", security=Security.SIGN_ENCRYPT)
    async with serve(options) as plant:
        with pytest.raises(SourceRefused, match="not trusted"):
            await _init(plant, tmp_path / "us", console, agree=False)
        with pytest.raises((SourceRefused, SourceUnreachable)):  # the plant does not know us yet
            await _init(plant, tmp_path / "us", console)
        (ours,) = (tmp_path / "us" / "data" / "pki" / "own").glob("*.der")
        trusted = tmp_path / "state" / "pki" / "trusted"
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / "foretag.der").write_bytes(ours.read_bytes())
        await _init(plant, tmp_path / "us", console)
        config = load(tmp_path / "us" / "foretag.toml")
        assert config.sources[0].security_policy.value == "Basic256Sha256"
        assert config.sources[0].security_mode.value == "SignAndEncrypt"
        await check_tags(config, console)
    assert "Good" in console.export_text()


async def test_browse_shows_what_fits_and_writes_a_tag_list(plant, tmp_path, console):
    await _init(plant, tmp_path, console)
    config = load(tmp_path / "foretag.toml")
    fitting = Search(under="Plant/Fleet/engine-01", match="*/T2?", types=("Double", "Float"))
    await browse_source(config, fitting, None, console, force=False)
    shown = console.export_text()
    assert "engine-01.T24" in shown
    assert "engine-02" not in shown.replace("engine-02 ", "")
    more = tmp_path / "more.csv"
    await browse_source(config, fitting, more, console, force=False)
    with more.open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["feature"] for row in rows} == {"T24"}
    assert rows[0]["node"] == "nsu=urn:opcua-sim:plant;s=engine-01.T24"
    with pytest.raises(ConfigError, match="--force"):
        await browse_source(config, fitting, more, console, force=False)
    await browse_source(config, Search(under="Plant/Fleet/engine-0"), more, console, force=True)
    assert len(more.read_text().splitlines()) == 1  # half a name is no path
    with pytest.raises(ConfigError, match="is no source"):
        await browse_source(config, Search(source="nobody"), None, console, force=False)


async def test_check_names_the_profile_that_suits_the_server(tmp_path, console):
    known = Plant(1)
    await known.start()
    await known.server.set_build_info("urn:x", "Prosys OPC Ltd", "SimulationServer", "5", "1", datetime.now(UTC))
    source = f'[[sources]]\nname = "p"\nendpoint = "opc.tcp://127.0.0.1:{known.port}/plant"\nsecurity_policy = "None"\n'
    (tmp_path / "tags.csv").write_text("name,node\nt0,nsu=urn:test:plant;s=t0\n")
    for more, said in (("", 1), ('profile = "prosys"\n', 0)):
        (tmp_path / "foretag.toml").write_text('tags = ["tags.csv"]\n' + source + more)
        assert await check_tags(load(tmp_path / "foretag.toml"), console)
        assert console.export_text().count('set profile = "prosys"') == said
    await known.stop()


async def test_init_overwrites_nothing(plant, tmp_path, console):
    (tmp_path / "foretag.toml").write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        await _init(plant, tmp_path, console)
    assert (tmp_path / "foretag.toml").read_text() == "mine"
    await _init(plant, tmp_path, console, force=True)
    assert load(tmp_path / "foretag.toml").tags


async def test_a_wrong_file_ends_the_command_with_all_its_faults_and_no_traceback(tmp_path):
    (tmp_path / "foretag.toml").write_text('[[sources]]\nname = "p"\nendpoint = "http://x"\n[[models]]\nname = "M"\n')
    result = CliRunner().invoke(app, ["run", "--config", str(tmp_path / "foretag.toml")])
    assert result.exit_code == 2
    assert "sources[0].endpoint" in result.stderr
    assert "models[0].kind" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["run", "status", "train rul"])
async def test_a_database_of_another_revision_is_refused_with_the_command_that_mends_it(tmp_path, command):
    (tmp_path / "foretag.toml").write_text(
        'tags = ["tags.csv"]\n[[sources]]\nname = "p"\nendpoint = "opc.tcp://127.0.0.1:1"\nsecurity_policy = "None"\n'
        '[[models]]\nname = "rul"\nkind = "pca_anomaly"\nassets = ["a"]\nfeatures = ["b", "c"]\nwindow = "10s"\n'
        'step = "1s"\ntraining = { learn = "normal" }\n'
    )
    (tmp_path / "tags.csv").write_text("name,node,asset,feature\nt,nsu=u;s=t,a,b\nu,nsu=u;s=u,a,c\n")
    config = ["--config", str(tmp_path / "foretag.toml")]
    assert _foretag("migrate", *config).returncode == 0
    assert _foretag("migrate", "--revision", "base", *config).returncode == 0
    result = _foretag(*command.split(), *config)
    assert result.returncode == 2
    assert "foretag migrate" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [("crystal_ball", "{}", "Kinds are: anomaly, "), ("pca_anomaly", "{ smoth = 3 }", "has no option smoth")],
)
async def test_a_model_that_can_not_be_is_refused_before_anything_runs(tmp_path, kind, options, said):
    (tmp_path / "foretag.toml").write_text(
        '[[sources]]\nname = "p"\nendpoint = "opc.tcp://127.0.0.1:1"\nsecurity_policy = "None"\n[[assets]]\n'
        'names = ["m"]\nnode = "nsu=u;s={feature}"\ntags = { a = {}, b = {} }\n[[models]]\nname = "odd"\n'
        f'kind = "{kind}"\nassets = ["m"]\nfeatures = ["a", "b"]\nwindow = "10s"\nstep = "1s"\noptions = {options}\n'
        'training = { learn = "normal" }\n[publish]\nenabled = false\n'
    )
    result = _foretag("run", "--no-table", "--config", str(tmp_path / "foretag.toml"))
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
