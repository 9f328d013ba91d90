"""The documentation says what the code says."""

from pathlib import Path

from plugin.reference import SECTIONS, reference

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
