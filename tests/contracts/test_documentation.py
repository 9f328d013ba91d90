"""The documentation says what the code says."""

import ast
import re
from pathlib import Path

from plugin.diagnostics import Diagnostics
from plugin.reference import SECTIONS, metrics, reference, sql_views

DOCS = Path(__file__).parents[2] / "docs"


def test_the_configuration_page_is_what_the_sections_say():
    page = DOCS / "configuration.md"
    assert page.read_text(encoding="utf-8") == reference(), "write it anew: foretag config > docs/configuration.md"


def test_every_field_is_documented():
    silent = [
        f"{title} {name}"
        for title, section in SECTIONS.items()
        for name, field in section.model_fields.items()
        if not field.description and name not in {"name", "feature", "asset"}
    ]
    assert silent == []


def test_every_field_is_read():
    """By its name, somewhere: what a person writes has to make a difference."""
    modules = [path for room in ("plugin", "models") for path in (DOCS.parent / room).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    fields = {f"{title} {name}": name for title, section in SECTIONS.items() for name in section.model_fields}
    assert [field for field, name in fields.items() if name not in read] == []


def test_the_table_of_metrics_is_what_the_registry_holds():
    page = (DOCS / "diagnostics.md").read_text(encoding="utf-8")
    assert metrics() in page, "put in place of its table what this prints: foretag config --metrics"
    registered = {
        f"{family.name}_{family.type}" if family.type == "info" else f"{family.name}_total"
        if family.type == "counter" else family.name
        for family in Diagnostics().registry.collect() if family.name.startswith("foretag_")
    }  # fmt: skip
    assert registered == {metric.name for metric in Diagnostics().described}


def test_the_views_are_documented_column_by_column():
    page = (DOCS / "sql.md").read_text(encoding="utf-8")
    assert page.endswith(sql_views()), "put at its end what this prints: foretag config --views"


def test_the_alerts_speak_of_metrics_that_there_are():
    page = (DOCS / "diagnostics.md").read_text(encoding="utf-8")
    spoken = set(re.findall(r"foretag_[a-z_]+", page.partition("```yaml")[2]))
    assert spoken
    assert spoken <= {metric.name for metric in Diagnostics().described}
