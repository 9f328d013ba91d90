"""Every field of ``foretag.toml``, every metric, every SQL view, read off the code: what ``foretag config`` prints."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from plugin.acquire.config import HistoryConfig, SourceConfig, WatchdogConfig
from plugin.config import RuntimeConfig
from plugin.diagnostics import Diagnostics
from plugin.exposition import DiagnosticsConfig
from plugin.fields import ByteCount, format_duration
from plugin.historian.config import HistorianConfig, SpillConfig
from plugin.historian.keeping.retention import KeepConfig, RetentionConfig
from plugin.historian.schema.view import View
from plugin.historian.schema.views import views
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.config import (
    CleaningConfig,
    ExplainConfig,
    ModelConfig,
    PromotionConfig,
    RetrainingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from plugin.publish.config import PublishConfig, UserConfig, WriteBackConfig, WriteRule
from plugin.tag_sections import AssetsConfig, AssetTagConfig, TagRow

SECTIONS: dict[str, type[BaseModel]] = {
    "[foretag]": RuntimeConfig,
    "[historian]": HistorianConfig,
    "[historian.spill]": SpillConfig,
    "[[historian.retention]]": RetentionConfig,
    "[historian.keep]": KeepConfig,
    "[[sources]]": SourceConfig,
    "[sources.history]": HistoryConfig,
    "[sources.watchdog]": WatchdogConfig,
    "a line of a tag CSV": TagRow,
    "[[assets]]": AssetsConfig,
    "[assets.tags.<feature>]": AssetTagConfig,
    "[[models]]": ModelConfig,
    "[models.schedule]": ScheduleConfig,
    "[models.training]": TrainingConfig,
    "[models.promotion]": PromotionConfig,
    "[models.retraining]": RetrainingConfig,
    "[models.cleaning]": CleaningConfig,
    "[models.explain]": ExplainConfig,
    "[alarms]": AlarmsConfig,
    "[publish]": PublishConfig,
    "[[publish.users]]": UserConfig,
    "[write_back]": WriteBackConfig,
    "[[write_back.rules]]": WriteRule,
    "[diagnostics]": DiagnosticsConfig,
}
_INTRODUCTION = """\
# Configuration

`foretag.toml` holds these sections; `tags = ["tags.csv"]` at its top names the tag files. Durations are written with a
unit: `"500ms"`, `"30s"`, `"5min"`, `"24h"`, `"7d"`; sizes likewise: `"500MB"`, `"2GiB"`. An environment variable
`FORETAG__<SECTION>__<KEY>` overrides a key of `[foretag]`, `[historian]`, `[alarms]`, `[publish]`, `[write_back]` or
`[diagnostics]`. This page is what `foretag config` prints.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    return "\n".join(
        [_INTRODUCTION, *(line for title, section in SECTIONS.items() for line in _section(title, section))]
    )


def metrics() -> str:
    """The table of all metrics, as Markdown."""
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels) or '–'} | {each.text} |"
        for each in Diagnostics().described
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows, ""])


def sql_views() -> str:
    """What reports may query, column by column, as Markdown: alike in both databases."""
    return "\n".join(line for view in views("sqlite") for line in _view(view))


def _view(view: View) -> Iterator[str]:
    yield f"### `{view.name}`\n"
    yield f"{view.says}\n"
    yield "| column | meaning |"
    yield "|---|---|"
    pairs = {column.name.removesuffix("_us") for column in view.columns if column.name.endswith("_us")}
    names = [column.name for column in view.columns]
    for column in view.columns:
        if column.name in pairs:
            yield f"| `{column.name}`, `{column.name}_us` | {column.says} |"
        elif column.name.removesuffix("_us") not in names or not column.name.endswith("_us"):
            yield f"| `{column.name}` | {column.says} |"
    yield ""


def _section(title: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"## `{title}`\n" if title.startswith("[") else f"## {title.capitalize()}\n"
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for name, field in section.model_fields.items():
        yield f"| `{name}` | {_default(field)} | {_meaning(field)} |"
    yield ""


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return "see below"
    return f"`{_toml(default)}`" if default is not None else "none"


def _toml(value: Any) -> str:
    if isinstance(value, timedelta):
        return f'"{format_duration(value)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{}"
    return str(value) if isinstance(value, int | float) and not isinstance(value, ByteCount) else f'"{value}"'


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("``", "`").replace("|", "\\|")
    choices = _choices(field.annotation)
    if choices and not all(choice in text for choice in choices):
        text = f"{text} One of {', '.join(f'`{choice}`' for choice in choices)}.".strip()
    return text or "–"


def _choices(annotation: Any) -> tuple[str, ...]:
    if str(get_origin(annotation)) == "typing.Literal":
        return tuple(map(str, get_args(annotation)))
    return ()
