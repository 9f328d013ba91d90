"""A workbook, written as it comes: numbers with all their digits, texts as texts, a new sheet when one is full.

Libraries write 16 digits of a number, as Excel shows 15; a PLC's reals need 17 to come back as they were.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa

from plugin.errors import ExchangeError
from plugin.exchange.columns import is_text, nulls
from plugin.exchange.terms import fault
from plugin.exchange.whole import Writer, iso, unfinished
from plugin.zones import Zone

ROWS = 1_048_576
"""Of a sheet, with its heading."""
_COLUMNS = 16_384
_LONGEST = 32_767
"""Characters of a cell."""
_MILLISECOND, _DAY = 1_000, 86_400_000_000
_DAY_0 = -25_569
_FIRST, _LAST = (61 + _DAY_0) * _DAY, (2_958_466 + _DAY_0) * _DAY
"""Excel knows the days from 1900-03-01 to 9999-12-31 [µs since 1970]."""
_SPECIAL = re.compile("[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_STYLES = (
    f'{_HEAD}<styleSheet xmlns="{_MAIN}"><numFmts count="1">'
    '<numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss.000"/></numFmts>'
    '<fonts count="2"><font/><font><b/></font></fonts><fills count="2">'
    '<fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="3"><xf/>'
    '<xf numFmtId="164" applyNumberFormat="1"/><xf fontId="1" applyFont="1"/></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
)  # fmt: skip


@contextmanager
def excel_writer(path: Path, names: Sequence[str], _kinds: Sequence[Any], zone: Zone) -> Iterator[Writer]:
    """Times become days of the zone's local time where that holds them exactly, else text in ISO 8601."""
    if len(names) > _COLUMNS:
        raise fault("--out", path.name, f"would have {len(names):,} columns, Excel has {_COLUMNS:,}", "Write .parquet")
    with (
        unfinished(path) as beside,
        zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive,
        closing(_Book(archive, names, zone)) as book,
    ):
        yield book
        book.end()


class _Book:
    def __init__(self, archive: zipfile.ZipFile, names: Sequence[str], zone: Zone) -> None:
        self._archive, self._zone = archive, zone
        self._heading = b"<row>" + "".join(_text_cell(name, ' s="2"') for name in names).encode() + b"</row>"
        self._sheets, self._rows = 0, 0
        self._sheet = self._begin()

    def _begin(self) -> BinaryIO:
        self._sheets += 1
        sheet: Any = self._archive.open(f"xl/worksheets/sheet{self._sheets}.xml", "w", force_zip64=True)
        pane = '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
        views = f'<sheetViews><sheetView workbookViewId="0">{pane}</sheetView></sheetViews>'
        columns = '<cols><col min="1" max="1" width="24" customWidth="1"/></cols>'
        sheet.write(f'{_HEAD}<worksheet xmlns="{_MAIN}">{views}{columns}<sheetData>'.encode() + self._heading)
        self._rows = 1
        return sheet  # type: ignore[no-any-return]

    def close(self) -> None:
        """The sheet, also one that is not whole: no archive is closed while one is open."""
        self._sheet.close()

    def _end_sheet(self) -> None:
        self._sheet.write(b"</sheetData></worksheet>")
        self._sheet.close()

    def write(self, columns: Sequence[Any]) -> None:
        """See :class:`plugin.exchange.whole.Writer`."""
        cells = [self._cells(column) for column in columns]
        for row in zip(*cells, strict=True):
            if self._rows == ROWS:
                self._end_sheet()
                self._sheet = self._begin()
            self._sheet.write(f"<row>{''.join(row)}</row>".encode())
            self._rows += 1

    def _cells(self, column: Any) -> list[str]:
        if pa.types.is_timestamp(column.type):
            return self._times(column)
        if is_text(column.type):
            return ["<c/>" if text is None else _text_cell(text) for text in column.to_pylist()]
        return [_number_cell(value) for value in column.to_pylist()]

    def _times(self, column: Any) -> list[str]:
        utc = column.cast(pa.int64()).fill_null(0).to_numpy()
        local, empty = self._zone.to_local(utc), nulls(column)
        fits = (utc % _MILLISECOND == 0) & (local >= _FIRST) & (local < _LAST)
        fits &= ~np.logical_or(*self._zone.doubtful(local))
        days = local / _DAY - _DAY_0
        texts = iso(column, self._zone).to_pylist() if not fits.all() else [""] * len(utc)
        return [
            "<c/>" if e else f'<c s="1"><v>{day!r}</v></c>' if f else _text_cell(text)
            for e, f, day, text in zip(empty.tolist(), fits.tolist(), days.tolist(), texts, strict=True)
        ]

    def end(self) -> None:
        """The parts that name the sheets."""
        self._end_sheet()
        numbers = range(1, self._sheets + 1)
        sheets = "".join(f'<sheet name="samples {n}" sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
        parts = "".join(_override(f"worksheets/sheet{n}", "worksheet") for n in numbers)
        links = "".join(_link(n, f"{_OFFICE}/worksheet", f"worksheets/sheet{n}.xml") for n in numbers)
        links += _link(self._sheets + 1, f"{_OFFICE}/styles", "styles.xml")
        book = f'{_HEAD}<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{sheets}</sheets></workbook>'
        types = (
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Default Extension="xml" ContentType="application/xml"/>'
            f"{_override('workbook', 'sheet.main')}{_override('styles', 'styles')}{parts}"
        )
        for name, content in {
            "[Content_Types].xml": f'{_HEAD}<Types xmlns="{_PACKAGE}/content-types">{types}</Types>',
            "_rels/.rels": _links(_link(1, f"{_OFFICE}/officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": book,
            "xl/_rels/workbook.xml.rels": _links(links),
            "xl/styles.xml": _STYLES,
        }.items():
            self._archive.writestr(name, content)


def _override(part: str, kind: str) -> str:
    return f'<Override PartName="/xl/{part}.xml" ContentType="{_SHEET_TYPE}.{kind}+xml"/>'


def _link(number: int, kind: str, target: str) -> str:
    return f'<Relationship Id="rId{number}" Type="{kind}" Target="{target}"/>'


def _links(links: str) -> str:
    return f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>'


def _text_cell(text: str, style: str = "") -> str:
    if len(text) > _LONGEST:
        raise ExchangeError(f"a text of {len(text):,} characters is longer than Excel's cells: write .csv or .parquet")
    coded = escape(_SPECIAL.sub(lambda found: f"_x{ord(found[0]):04X}_", text))
    return f'<c t="inlineStr"{style}><is><t xml:space="preserve">{coded}</t></is></c>'


def _number_cell(value: float | int | bool | None) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{value:d}</v></c>'
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        return _text_cell(repr(value))
    return f"<c><v>{value!r}</v></c>"
