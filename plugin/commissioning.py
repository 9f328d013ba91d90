"""Meeting a plant: ``foretag init`` writes the first configuration, ``check`` tries one out, ``browse`` finds more."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import urlparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plugin import pki
from plugin.acquire.browse import Endpoint, Reading, browse, build_info, endpoints, read_once
from plugin.acquire.config import Mode, Policy, SourceConfig
from plugin.acquire.profiles import PROFILES, recognise
from plugin.auditing import entry, leave
from plugin.config import Config
from plugin.domain import Quality, Tag, quality
from plugin.errors import ConfigError, Fault, SourceError, SourceRefused

_INTEGERS = {f"{sign}{bits}" for sign in ("Int", "UInt") for bits in (16, 32, 64)} | {
    "SByte",
    "Byte",
    "Integer",
    "UInteger",
}
_NUMBERS = _INTEGERS | {"Boolean", "Float", "Double", "Number", "Duration"}
_STRONGEST = (Policy.AES256_SHA256_RSA_PSS, Policy.AES128_SHA256_RSA_OAEP, Policy.BASIC256SHA256)
_COLUMNS = ("name", "node", "source", "asset", "feature", "unit", "low", "high", "deadband", "sampling")
_STYLES = {Quality.GOOD: "green", Quality.UNCERTAIN: "yellow", Quality.BAD: "bold red"}

Confirm = Callable[[str], bool]


async def write_first_config(
    endpoint: str, folder: Path, *, root: str, force: bool, confirm: Confirm, console: Console
) -> None:
    """Connect as safely as the server allows, browse below ``root`` (a browse path), write configuration and tags."""
    file, tag_file = folder / "foretag.toml", folder / "tags.csv"
    _refuse_to_overwrite([file, tag_file], force)
    section = await _agree_on_security(endpoint, folder / "data" / "pki", confirm, console)
    found = await browse(section, folder / "data" / "pki", under=root.strip("/"))
    usable = [reading for reading in found if reading.type in _NUMBERS]
    console.print(f"{len(found)} variables below {root or 'Objects'}, {len(usable)} of them numbers", markup=False)
    _write(file, _first_file(section))
    _write(tag_file, _tag_lines(usable, section.name))
    console.print(f"Wrote {file} and {tag_file}. Look at both, then: foretag check --config {file}", markup=False)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _first_file(section: SourceConfig) -> str:
    template = Template(files("plugin").joinpath("first.toml").read_text(encoding="utf-8"))
    return template.substitute(
        name=section.name,
        endpoint=section.endpoint,
        policy=section.security_policy.value,
        mode=section.security_mode.value,
        check="" if section.check_hostname else "\ncheck_hostname = false     # its certificate names another host",
    )


def _refuse_to_overwrite(paths: Iterable[Path], force: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not force:
        names = ", ".join(map(str, there))
        raise ConfigError("init", [Fault("folder", names, "is there already", "Use --force, or another --folder")])


async def _agree_on_security(url: str, pki_folder: Path, confirm: Confirm, console: Console) -> SourceConfig:
    """The strongest way in that the server offers, its certificate trusted by a person."""
    offered = await endpoints(url)
    console.print(_endpoint_table(offered))
    for policy in _STRONGEST:
        for mode in (Mode.SIGN_AND_ENCRYPT, Mode.SIGN):
            match = next((o for o in offered if _same(o, policy, mode)), None)
            if match is not None:
                named = _have_trusted(match, url, pki_folder, confirm)
                return SourceConfig(
                    name="plant", endpoint=url, security_policy=policy, security_mode=mode, check_hostname=named
                )
    question = (
        "The server offers no security: whoever is on the network can read and forge values. Use it all the same?"
    )
    if not confirm(question):
        raise SourceRefused(
            f"{url} offers no security; set up a certificate on the server and run `foretag init` again"
        )
    return SourceConfig(name="plant", endpoint=url, security_policy=Policy.NONE)


def _same(offer: Endpoint, policy: Policy, mode: Mode) -> bool:
    return offer.policy.replace("_", "") == policy.value and offer.mode.replace("_", "") == mode.value


def _have_trusted(offer: Endpoint, url: str, pki_folder: Path, confirm: Confirm) -> bool:
    """Whether the certificate, which a person trusts by now, names the endpoint's host."""
    before = pki.refusal(pki_folder, offer.certificate, peer=url)
    if before is not None and before.reason is pki.Reason.UNTRUSTED:
        _decide(offer, pki_folder, confirm)
    refusal = pki.refusal(pki_folder, offer.certificate, peer=url, host=urlparse(url).hostname)
    if refusal is None:
        return True
    question = f"{refusal.message}. Connect all the same, and check its name no more?"
    if refusal.reason is not pki.Reason.HOST or not confirm(question):
        raise SourceRefused(refusal.message)
    return False


def _decide(offer: Endpoint, pki_folder: Path, confirm: Confirm) -> None:
    """Raises SourceRefused where a person does not trust it."""
    question = f"The server {offer.application_uri} shows a certificate with thumbprint {offer.thumbprint}. Trust it?"
    if not confirm(question):
        raise SourceRefused(f"{offer.url}: its certificate is not trusted; compare the thumbprint on the server itself")
    pki.trust(pki_folder, offer.certificate)
    trusted = {"place": pki.Place.TRUSTED.value, "name": offer.application_uri}
    leave(pki_folder.parent, entry("trust", offer.thumbprint, before={}, after=trusted))


def _table(*columns: str, title: str) -> Table:
    """On a narrow screen its cells go on in the next line: names and thumbprints are there to be compared."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _endpoint_table(offered: Sequence[Endpoint]) -> Table:
    table = _table("policy", "mode", "users", "certificate", title="The server offers")
    for offer in offered:
        table.add_row(offer.policy, offer.mode, ", ".join(offer.users), offer.thumbprint or "none")
    return table


def _tag_lines(readings: Sequence[Reading], source: str) -> str:
    """One line per variable: its asset is the object above it, its feature its own name; every tag's name is unique."""
    paths = [reading.path.split("/") for reading in readings]
    shared = Counter(tuple(path[-2:]) for path in paths)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for reading, path in zip(readings, paths, strict=True):
        twice = shared[tuple(path[-2:])] > 1
        asset = ".".join(path[:-1] if twice else path[-2:-1])
        name = f"{asset}.{path[-1]}" if asset else path[-1]
        low, high = ("", "") if reading.low == reading.high else (reading.low, reading.high)
        writer.writerow([name, reading.node, source, asset, path[-1], reading.unit, low, high, "", ""])
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class Search:
    """Which variables ``foretag browse`` looks for."""

    source: str = ""
    """Name in the configuration; empty: the only one."""
    under: str = ""
    """Browse path, such as ``Plant/Line1``."""
    match: str = "*"
    """Wildcards that the browse path fits, such as ``*/T2?``."""
    types: tuple[str, ...] = ()
    """Names of data types, such as ``Double``; empty: all."""


async def browse_source(
    config: Config, search: Search, csv_file: Path | None, console: Console, *, force: bool
) -> None:
    """Show the variables of a source that fit, or write them as a tag CSV."""
    section = _chosen(config, search.source)
    if csv_file is not None:
        _refuse_to_overwrite([csv_file], force)
    found = await browse(
        section, config.pki_folder, config.publish.application_uri, under=search.under.strip("/"), match=search.match
    )
    fitting = [reading for reading in found if not search.types or reading.type in search.types]
    if csv_file is not None:
        _write(csv_file, _tag_lines(fitting, section.name))
        console.print(f"Wrote {len(fitting)} tags to {csv_file}", markup=False)
        return
    known = {tag.node: tag.name for tag in config.tags if tag.source == section.name}
    table = _table("path", "node", "type", "unit", "value", "status", "tag", title=f"{len(fitting)} variables")
    for reading in fitting:
        tag = Tag(known.get(reading.node, ""), section.name, reading.node)
        _, *cells = _row(tag, reading)
        table.add_row(Text(reading.path), *cells, Text(tag.name))
    console.print(table)


def _chosen(config: Config, name: str) -> SourceConfig:
    names = [section.name for section in config.sources]
    if not name and len(names) == 1:
        return config.sources[0]
    if name not in names:
        raise ConfigError("browse", [Fault("source", repr(name), "is no source", f"Name one of {names} with --source")])
    return config.sources[names.index(name)]


async def _hint(config: Config, section: SourceConfig, console: Console) -> None:
    """Name the profile that suits a server that has none."""
    if section.profile != "default":
        return
    try:
        told = await build_info(section, config.pki_folder, config.publish.application_uri)
    except SourceError:
        return
    if name := recognise(*told):
        text = f'{section.name}: this looks like {PROFILES[name].title}; set profile = "{name}" in its [[sources]]'
        console.print(Text(text, "yellow"))


async def check_tags(config: Config, console: Console) -> bool:
    """Read each tag once and show what came; True where every one is Good. A dead server does not stop the others."""
    table = _table("tag", "node", "type", "unit", "value", "status", title=str(config.path))
    good = True
    for section in config.sources:
        tags = [tag for tag in config.tags if tag.source == section.name]
        try:
            readings = await read_once(section, tags, config.pki_folder, config.publish.application_uri)
        except SourceError as error:
            good = False
            console.print(Text(f"{section.name}: {error}", "bold red"))
            continue
        await _hint(config, section, console)
        for tag, reading in zip(tags, readings, strict=True):
            good &= reading.good
            table.add_row(*_row(tag, reading))
    if table.row_count:
        console.print(table)
    return good


def _row(tag: Tag, reading: Reading) -> tuple[Text, ...]:
    unit = tag.unit or reading.unit
    note = f" (the server says {reading.unit})" if tag.unit and reading.unit and tag.unit != reading.unit else ""
    value = (
        ""
        if reading.value is None
        else f"{reading.value:g}"
        if isinstance(reading.value, float)
        else str(reading.value)
    )
    status = Text(reading.status_name, _STYLES[quality(reading.status)])
    return Text(tag.name), Text(tag.node), Text(reading.type), Text(unit + note), Text(value), status
