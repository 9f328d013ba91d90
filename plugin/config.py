"""The rooms' sections composed into one frozen :class:`Config`. The only reader of file and environment.

``foretag.toml`` holds the sections; tags come in bulk from CSV files and from asset templates. A wrong file raises one
ConfigError that lists every fault with field, value and remedy.
"""

import csv
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from plugin import lock
from plugin.acquire.config import SourceConfig
from plugin.domain import Asset, Tag
from plugin.errors import ConfigError, Fault
from plugin.exposition import DiagnosticsConfig
from plugin.fields import Section
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.retention import DEFAULT, RetentionConfig, class_of, fits
from plugin.historian.sqlite.connections import database_path
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.config import ModelConfig
from plugin.publish.config import PublishConfig, WriteBackConfig
from plugin.tag_sections import AssetsConfig, TagRow, expand

_SECRET = re.compile(r"pass|secret|token|credential|key", re.IGNORECASE)
_USER = re.compile(r"//[^/\s]*@")  # of a URL: a password may stand there


class RuntimeConfig(Section):
    """``[foretag]``: what belongs to no room."""

    data: Path = Path("data")
    """Folder for database, models, certificates and log; relative to the file."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where models run; ``auto`` takes a GPU or TPU where there is one."""
    third_party_kinds: tuple[str, ...] = ()
    """Model kinds of other packages that may be loaded (entry points ``foretag.model_kinds``); default none."""
    model_key: Path | None = None
    """Public key (Ed25519, PEM; relative to the file) that every model version must be signed by before it is used, see
    ``foretag models sign``; default: none has to be."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What goes into ``foretag.log`` in the data folder."""


class _File(Section):
    """The file as a whole."""

    foretag: RuntimeConfig = RuntimeConfig()
    historian: HistorianConfig = HistorianConfig()
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    tags: tuple[Path, ...] = ()
    """CSV files with the columns of :class:`TagRow`; relative to the file."""
    assets: tuple[AssetsConfig, ...] = ()
    models: tuple[ModelConfig, ...] = ()
    alarms: AlarmsConfig = AlarmsConfig()
    publish: PublishConfig = PublishConfig()
    write_back: WriteBackConfig = WriteBackConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()


@dataclass(frozen=True, slots=True)
class Config:
    """All that the service needs to know, checked."""

    path: Path
    data: Path
    """Absolute."""
    runtime: RuntimeConfig
    historian: HistorianConfig
    sources: tuple[SourceConfig, ...]
    tags: tuple[Tag, ...]
    models: tuple[ModelConfig, ...]
    alarms: AlarmsConfig
    publish: PublishConfig
    write_back: WriteBackConfig
    diagnostics: DiagnosticsConfig

    @property
    def model_folder(self) -> Path:
        """Where artifacts lie."""
        return self.data / "models"

    @property
    def model_key(self) -> Path | None:
        """Public key that versions are signed by; None: they need not be."""
        key = self.runtime.model_key
        return None if key is None else (self.path.parent / key).resolve()

    @property
    def pki_folder(self) -> Path:
        """Own certificate and trust lists."""
        return self.data / "pki"

    @property
    def database(self) -> Path | None:
        """The SQLite file; None: it is PostgreSQL."""
        return None if self.historian.on_postgres else database_path(self.historian.located(self.data))

    @property
    def lock_files(self) -> list[Path]:
        """For one process alone: one in the data folder, and one beside a database file that lies elsewhere."""
        database = self.database
        if database is None:
            return [self.data / lock.NAME]
        beside = [] if database.parent == self.data else [database.with_name(f"{database.name}.lock")]
        return [self.data / lock.NAME, *beside]

    def model(self, name: str) -> ModelConfig:
        """A model by its name; ConfigError where there is none, as for a word of the command line."""
        found = next((model for model in self.models if model.name == name), None)
        if found is None:
            known = ", ".join(model.name for model in self.models) or "none"
            raise ConfigError(str(self.path), [Fault("MODEL", name, "is no model", f"Models are: {known}")])
        return found

    def watched(self, model: ModelConfig, tags: Iterable[Tag]) -> tuple[Asset, ...]:
        """The assets of a model, from tags that have their keys."""
        return tuple(asset for asset in Asset.gather(tags) if matches(asset.name, model.assets))

    def read_by_models(self, tags: Iterable[Tag]) -> set[int]:
        """Keys of those of the tags that a model reads again and again."""
        assets = [(model, asset) for model in self.models for asset in self.watched(model, tags)]
        return {asset.tags[feature].id for model, asset in assets for feature in model.features}


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the wildcard patterns fits."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def load(path: Path) -> Config:
    """Read and check a configuration; ConfigError lists every fault."""
    faults: list[Fault] = []
    file = _parse(path)
    rows = [*_csv_rows(path.parent, file.tags, faults), *_template_rows(file.assets, faults)]
    tags = _tags(file.sources, rows, faults)
    faults += _retention_faults(file.historian.retention, tags)
    tags = tuple(replace(tag, retention=class_of(tag.name, tag.retention, file.historian.retention)) for tag in tags)
    faults += [fault for number, source in enumerate(file.sources) for fault in _too_many(number, source, tags)]
    faults += _twins("sources", [source.name for source in file.sources])
    faults += _twins("models", [model.name for model in file.models])
    for model in file.models:
        faults += _model_faults(model, tags)
    faults += _write_back_faults(file)
    faults += [
        Fault("publish.mirror", _shown(pattern), "fits no tag", "Mend the pattern, or remove it")
        for pattern in file.publish.mirror
        if not any(fnmatchcase(tag.name, pattern) for tag in tags)
    ]
    if faults:
        raise ConfigError(str(path), faults)
    return Config(
        path=path,
        data=(path.parent / file.foretag.data).resolve(),
        runtime=file.foretag,
        historian=file.historian,
        sources=file.sources,
        tags=tags,
        models=file.models,
        alarms=file.alarms,
        publish=file.publish,
        write_back=file.write_back,
        diagnostics=file.diagnostics,
    )


def _parse(path: Path) -> _File:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors write a byte order mark
    except OSError as error:
        remedy = "Write one with `foretag init`, or name another with --config"
        raise ConfigError(str(path), [Fault("file", str(path), error.strerror or str(error), remedy)]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        remedy = "Mend the line that is named"
        raise ConfigError(str(path), [Fault("file", str(path), f"is no TOML: {error}", remedy)]) from error
    try:
        return _File.model_validate(_with_environment(document, os.environ))
    except ValidationError as error:
        raise ConfigError(str(path), [_fault(detail) for detail in _deepest(error.errors())]) from error


def _deepest(details: Sequence[Any]) -> list[Any]:
    """Without a list that is found too short because of the faults in its elements."""
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(other["loc"][: len(detail["loc"])] == detail["loc"] for other in details if other is not detail)
    ]


def _with_environment(document: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """``FORETAG__SECTION__KEY=value`` overrides a key of a plain section; lists of sections are the file's alone."""
    for name, value in environment.items():
        prefix, *keys = name.split("__")
        if prefix != "FORETAG" or len(keys) != 2:
            continue
        section = document.setdefault(keys[0].lower(), {})
        if isinstance(section, dict):
            section[keys[1].lower()] = value
    return document


def _fault(detail: Any) -> Fault:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    shown = "(missing)" if detail["type"] == "missing" else _harmless(field, detail["type"], detail["input"])
    problem = detail["msg"].removeprefix("Value error, ").rstrip(".")
    return Fault(
        field or "file", shown, problem, _REMEDIES.get(detail["type"], "See `foretag config` for the valid values")
    )


_REMEDIES = {
    "missing": "Add it",
    "extra_forbidden": "Remove it, or correct its spelling",
    "value_error": "Write it as said",
    "string_pattern_mismatch": "Write it to that pattern",
}


def _harmless(field: str, kind: str, value: Any) -> str:
    """The value, but no secret: a key that we don't know may be a misspelt ``password``."""
    if kind == "extra_forbidden" or _SECRET.search(field.rpartition(".")[2]):
        return "(not shown)"
    whole = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))
    return "(the section)" if whole else _shown(value)


def _shown(value: Any, limit: int = 80) -> str:
    text = _USER.sub("//…@", repr(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _csv_rows(folder: Path, files: Sequence[Path], faults: list[Fault]) -> Iterator[TagRow]:
    for file in files:
        try:
            with (folder / file).open(newline="", encoding="utf-8-sig") as lines:
                rows = csv.DictReader(lines)
                if not (wrong := [*_heading_faults(str(file), rows.fieldnames or ())]):
                    for row in filter(lambda row: any(row.values()), rows):  # spreadsheets leave empty ones behind
                        yield from _row(f"{file} line {rows.line_num}", {k: v for k, v in row.items() if v}, faults)
                faults += wrong
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            faults.append(
                Fault("tags", str(file), f"can't be read: {error}", "Mend the path, or the file (CSV, UTF-8)")
            )


def _heading_faults(file: str, heading: Sequence[str]) -> Iterator[Fault]:
    """Once, and not with each line."""
    strangers = [name for name in heading if name and name not in TagRow.model_fields]
    if strangers or not {"name", "node"} <= set(heading):
        remedy = f"Part columns by commas; name and node are needed, and there may be {', '.join(TagRow.model_fields)}"
        yield Fault(f"{file} heading", _shown([*heading]), "is not that of a tag file", remedy)


def _row(origin: str, row: Mapping[Any, Any], faults: list[Fault]) -> Iterator[TagRow]:
    if None in row:
        faults.append(
            Fault(origin, _shown(row[None]), "has more cells than the header", "Quote cells that hold a comma")
        )
        return
    try:
        yield TagRow.model_validate(row)
    except ValidationError as error:
        for detail in error.errors():
            fault = _fault(detail)
            faults.append(Fault(f"{origin}, column {fault.field}", fault.value, fault.problem, fault.remedy))


def _template_rows(templates: Sequence[AssetsConfig], faults: list[Fault]) -> Iterator[TagRow]:
    for number, template in enumerate(templates):
        for asset in (name for pattern in template.names for name in expand(pattern)):
            for feature, tag in template.tags.items():
                node = (tag.node or template.node).replace("{asset}", asset).replace("{feature}", feature)
                row = tag.model_dump(exclude={"node"}, exclude_none=True) | {
                    "name": f"{asset}.{feature}", "node": node, "source": template.source, "asset": asset,
                    "feature": feature,
                }  # fmt: skip
                yield from _row(f"assets[{number}]", row, faults)


def _tags(sources: Sequence[SourceConfig], rows: Sequence[TagRow], faults: list[Fault]) -> tuple[Tag, ...]:
    names = [source.name for source in sources]
    default = names[0] if len(names) == 1 else ""
    found = []
    for row in rows:
        source = row.source or default
        if source not in names:
            faults.append(Fault(f"tag {row.name}: source", _shown(row.source), "is no source", f"Name one of {names}"))
        if row.low is not None and row.high is not None and row.low >= row.high:
            faults.append(Fault(f"tag {row.name}: low", str(row.low), f"is not below high = {row.high}", "Swap them"))
        found.append(
            Tag(
                name=row.name, source=source, node=row.node, asset=row.asset, feature=row.feature, unit=row.unit,
                low=row.low, high=row.high, deadband=row.deadband or 0.0, sampling=row.sampling,
                fill=row.fill, max_age=row.max_age, uncertain=row.uncertain, compression=row.compression,
                retention=row.retention, element=row.element,
            )
        )  # fmt: skip
    faults += _twins("tags", [tag.name for tag in found])
    faults += _twins(
        "tags: asset and feature", [f"{tag.asset}/{tag.feature}" for tag in found if tag.asset and tag.feature]
    )
    if not found:
        faults.append(Fault("tags", "(none)", "there is no tag at all", "List a tag CSV under tags, or add [[assets]]"))
    return tuple(found)


def _retention_faults(classes: Sequence[RetentionConfig], tags: Sequence[Tag]) -> Iterator[Fault]:
    names = [each.name for each in classes]
    yield from _twins("historian.retention", names)
    known = list(dict.fromkeys([*names, DEFAULT]))
    for tag in tags:
        if tag.retention and tag.retention not in known:
            yield Fault(
                f"tag {tag.name}: retention", _shown(tag.retention), "is no class of retention", f"Name one of {known}"
            )
    for number, each in enumerate(classes):
        for pattern in each.tags:
            if not any(fits(pattern, tag.name) for tag in tags):
                remedy = "Mend the pattern or remove it: what is stored stays in its class, which needs no pattern"
                yield Fault(f"historian.retention[{number}].tags", _shown(pattern), "fits no tag", remedy)


def _too_many(number: int, source: SourceConfig, tags: Sequence[Tag]) -> Iterator[Fault]:
    count = sum(tag.source == source.name for tag in tags)
    if 0 < source.max_items < count and source.mode != "poll":
        yield Fault(
            f"sources[{number}].max_items", str(source.max_items), f"is less than the {count} tags of {source.name}",
            'Remove tags, poll the server (mode = "poll"), or set max_items to what it really monitors',
        )  # fmt: skip


def _twins(field: str, names: Sequence[str]) -> list[Fault]:
    seen: set[str] = set()
    twins = dict.fromkeys(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return [Fault(field, repr(name), "is there twice", "Give each its own name") for name in twins]


def _model_faults(model: ModelConfig, tags: Sequence[Tag]) -> Iterator[Fault]:
    where = f"models.{model.name}"
    watched = [asset for asset in Asset.gather(tags) if matches(asset.name, model.assets)]
    if not watched:
        known = sorted({tag.asset for tag in tags if tag.asset})[:10]
        yield Fault(f"{where}.assets", _shown(model.assets), "fits no asset", f"Assets are {known}")
    lacking: dict[tuple[str, ...], list[Asset]] = {}
    for asset in watched:
        missing = tuple(feature for feature in model.features if feature not in asset.tags)
        if missing:
            lacking.setdefault(missing, []).append(asset)
    for missing, assets in lacking.items():
        names = _shown([asset.name for asset in assets])
        remedy = f"Add the tags, or choose from {_shown(sorted(assets[0].tags), 300)}"
        yield Fault(f"{where}.features", _shown(missing), f"is missing in {names}", remedy)
    if model.training.learn == "laboratory" and "lab" not in model.roles:
        yield Fault(
            f"{where}.roles", _shown(model.roles), "learning from the laboratory needs the role lab", 'Add lab = "…"'
        )
    if model.training.learn == "failures" and "age" not in model.roles:
        yield Fault(f"{where}.roles", _shown(model.roles), "learning from failures needs the role age", 'Add age = "…"')


_APPROVE = "operator", "engineer", "administrator"


def _write_back_faults(file: _File) -> Iterator[Fault]:
    sources = [source.name for source in file.sources]
    models = [model.name for model in file.models]
    for number, rule in enumerate(file.write_back.rules):
        if rule.source not in sources:
            yield Fault(f"write_back.rules[{number}].source", rule.source, "is no source", f"Name one of {sources}")
        if rule.model not in models:
            yield Fault(f"write_back.rules[{number}].model", rule.model, "is no model", f"Name one of {models}")
        if rule.approval and not (file.publish.enabled and any(user.role in _APPROVE for user in file.publish.users)):
            remedy = "Enable [publish], and give it a [[publish.users]] with the role operator (foretag user)"
            yield Fault(f"write_back.rules[{number}].approval", "true", "has nobody who could approve", remedy)
