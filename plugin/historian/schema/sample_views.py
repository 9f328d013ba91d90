"""Every sample, also those in chunks, which plain SQL decodes: :mod:`plugin.historian.closed.chunks` writes them.

``data`` holds planes of bytes, one behind the other: the lowest bytes of all times of the chunk, …, the highest, then
those of the values, and so on. Byte k of the i-th code of a column stands at the column's begin + k * samples + i.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from plugin.historian.schema.plant_views import STATUS, TAG
from plugin.historian.schema.view import Column, View, Words, quality

_COLUMNS = ("time", "value", "status", "server", "received", "ordinal")
_MOST = {"time": 5, "value": 8, "status": 4, "server": 8, "received": 8, "ordinal": 4}
"""Bytes of a code at most; a chunk lasts a day, which is less than 2^40 µs."""
_USUAL = 3
"""Up to so many bytes SQL looks at nothing else."""
_BYTES = "".join(f"{byte:02X}" for byte in range(256))


def samples(sql: Words) -> View:
    """Hot rows and chunks."""
    columns = (
        *(Column(column.name, f"s.{column.name}", column.says) for column in TAG),
        Column("time", _once(sql, "s.source_time", sql.time("n")), "When the source took the value"),
        Column("time_us", "s.source_time", "The same, in µs since 1970-01-01 UTC"),
        Column("value", "s.value", "The number; NULL: none (Bad, or a text)"),
        Column("text", _TEXT, "What the number can't say; NULL: nothing"),
        STATUS,
        Column("quality", _once(sql, "s.status", quality("n").sql), quality("n").says),
        Column("server_time_us", "s.source_time + s.server", "When the server had it [µs]"),
        Column("received_time_us", "s.source_time + s.server + s.received", "When we had it [µs]"),
        Column("ordinal", "s.ordinal", "0, 1, … for different values that carry one time, in order of arrival"),
        Column(
            "block_start_us", "s.block_start", "First time of the samples that it is stored with, within a day [µs]"
        ),
        Column("block_end_us", "s.block_end", "Last time of the samples that it is stored with [µs]"),
    )
    return View("v_samples", "Every sample.", columns, f"(\n{_hot()}\n  UNION ALL\n{_closed(sql)}\n) AS s")


def reopen(connection: Connection) -> None:
    """Write what chunks hold as rows of ``samples`` again; the chunks stay, and must go before anybody reads."""
    sql = Words("sqlite" if connection.dialect.name == "sqlite" else "postgresql")
    of = _decoded(sql)
    if not sql.sqlite:
        connection.exec_driver_sql("SET LOCAL jit = off")  # expressions so long take seconds to compile
    columns = (of["source_time"], "c.tag_id", of["ordinal"], of["value"], of["status"])
    connection.exec_driver_sql(
        "INSERT INTO samples (source_time, tag_id, ordinal, value, status, server_delay, received_delay)\n"
        f"SELECT {', '.join(columns)}, {of['server']}, {of['received']} FROM {_samples_of_chunks(sql)}"
    )


_EVEN = "time_width = 0 AND step > 0"
CLOSED = "closed_samples"
"""A view for other views alone: what is closed, by the keys of its tables."""


def closed(sql: Words) -> str:
    """The statement that makes it."""
    decoded = ", ".join(f"{_decoded(sql)[name]} AS {name}" for name in ("source_time", "ordinal", "value", "status"))
    plain = "c.tag_id, c.first_time, c.time_base, c.time_unit, c.time_width, c.step, p.place"
    return f"CREATE VIEW {CLOSED} AS SELECT {plain}, {decoded} FROM {_samples_of_chunks(sql)}"


def last_told(tag: str, begin: str, end: str) -> str:
    """Number that a tag told last in ``[begin, end)``, by the samples that are kept; NULL: none. Of its chunks those
    alone are decoded that lie there, so it may stand in a row of a view."""
    columns = "source_time, ordinal, value, status"
    there = f"tag_id = {tag} AND source_time >= {begin} AND source_time < {end} AND value IS NOT NULL"
    first = f"SELECT max(first_time) FROM sample_chunks WHERE tag_id = {tag} AND first_time <= {begin}"
    # Where all are a step apart, it is known where in the chunk they are.
    places = (
        f"place >= CASE WHEN {_EVEN} THEN ({begin} - first_time - time_base) / step ELSE 0 END AND place <= "
        f"CASE WHEN {_EVEN} THEN ({end} - first_time - time_base + time_unit) / step ELSE 512 END"
    )
    return f"""(
        SELECT n.value FROM (
          SELECT {columns} FROM samples WHERE {there}
          UNION ALL
          SELECT {columns} FROM {CLOSED}
          WHERE first_time >= coalesce(({first}), {begin}) AND first_time < {end} AND {places} AND {there}
        ) AS n
        WHERE n.status >> 30 < 2 ORDER BY n.source_time DESC, n.ordinal DESC LIMIT 1
      )"""


_TEXT = """(SELECT x.text FROM sample_texts AS x
    WHERE x.source_time = s.source_time AND x.tag_id = s.tag_id AND x.ordinal = s.ordinal)"""
# SQLite takes a union apart, and leaves out what nobody asks for, where the columns of its halves have the same types.
_TYPES = {
    "source_time": "BIGINT",
    "ordinal": "INTEGER",
    "value": "DOUBLE PRECISION",
    "status": "BIGINT",
    "server": "BIGINT",
    "received": "BIGINT",
}


def _half(of: Mapping[str, str], source: str) -> str:
    """One of them; what is no plain column has to be told its type."""
    tag = {column.name: column.sql for column in TAG}
    names = {name: of[name] if of[name][1] == "." else f"CAST({of[name]} AS {_TYPES[name]})" for name in of}
    columns = [f"{expression} AS {name}" for name, expression in {**tag, **names}.items()]
    return f"  SELECT {', '.join(columns)}\n  FROM {source}"


def _hot() -> str:
    of = {"tag_id": "h.tag_id", "block_start": "h.source_time", "block_end": "h.source_time"}
    of |= {name: f"h.{name}" for name in ("source_time", "ordinal", "value", "status")}
    of |= {"server": "h.server_delay", "received": "h.received_delay"}
    return _half(of, "samples AS h JOIN tags AS t ON t.id = h.tag_id")


def _closed(sql: Words) -> str:
    of = {"tag_id": "c.tag_id", "block_start": "c.first_time", "block_end": "c.last_time", **_decoded(sql)}
    return _half(of, f"{_samples_of_chunks(sql)} JOIN tags AS t ON t.id = c.tag_id")


def _samples_of_chunks(sql: Words) -> str:
    if sql.sqlite:
        return "sample_chunks AS c JOIN places AS p ON p.place < c.samples"
    # Large data lie beside the table, and would be fetched for each byte: here once for each chunk.
    data = "SELECT c.data || ''::bytea AS data OFFSET 0"
    places = f"SELECT flat.data, generate_series(0, c.samples - 1) AS place FROM ({data}) AS flat"
    return f"sample_chunks AS c CROSS JOIN LATERAL ({places}) AS p"


def _decoded(sql: Words) -> dict[str, str]:
    """Columns of a sample over a row ``c`` of ``sample_chunks`` and a place ``p`` in it; times as differences."""
    code = {name: _code(sql, name) for name in _COLUMNS}
    pace = "p.place * c.step / c.time_unit"
    return {
        "source_time": f"(c.first_time + c.time_base + c.time_unit * ({pace} + {code['time']}))",
        "ordinal": f"(c.ordinal_base + {code['ordinal']})",
        "value": _value(sql, code["value"]),
        "status": f"(c.status_base + {code['status']})",
        "server": f"(c.server_base + c.server_unit * {code['server']})",
        "received": f"(c.received_base + c.received_unit * {code['received']})",
    }


def _code(sql: Words, name: str) -> str:
    """Code of a column. Of 8 bytes it is the number that has the same bits, and may be negative."""
    width, most = f"c.{name}_width", _MOST[name]
    begin = " + ".join(f"c.{before}_width" for before in _COLUMNS[: _COLUMNS.index(name)]) or "0"
    byte = [f"({_byte(sql, f'({begin} + {k}) * c.samples + p.place')} << {8 * k})" for k in range(most)]
    usual = " ".join(f"WHEN {size} THEN {' + '.join(byte[:size])}" for size in range(1, min(most, _USUAL) + 1))
    rare = " + ".join(f"CASE WHEN {width} > {k} THEN {byte[k]} ELSE 0 END" for k in range(_USUAL, most))
    otherwise = f" ELSE {' + '.join([*byte[:_USUAL], rare])}" if rare else ""
    return f"CASE {width} WHEN 0 THEN 0 {usual}{otherwise} END"


def _byte(sql: Words, place: str) -> str:
    if sql.sqlite:
        return f"instr(X'{_BYTES}', substr(c.data, {place} + 1, 1)) - 1"
    return f"get_byte(p.data, {place})::bigint"


def _value(sql: Words, code: str) -> str:
    number = f"c.value_base + nullif({code}, CASE WHEN c.nulls > 0 THEN 0 END)"
    return f"""CASE c.ieee WHEN 0 THEN ({number}) / c.scale
    WHEN 32 THEN {_float(sql, number, 8, 23)} ELSE {_float(sql, number, 11, 52)} END"""


def _float(sql: Words, number: str, exponent_bits: int, fraction_bits: int) -> str:
    """What IEEE 754 says of the bits of a whole number."""
    greatest, whole = 2**exponent_bits - 1, 2**fraction_bits
    bias = 2 ** (exponent_bits - 1) - 1 + fraction_bits
    fraction, exponent = f"(n & {whole - 1})", f"(n >> {fraction_bits} & {greatest})"
    size = f"""CASE {exponent} WHEN {greatest} THEN {sql.infinity}
      WHEN 0 THEN {fraction} * {sql.power(str(1 - bias))}
      ELSE ({fraction} + {whole}) * {sql.power(f"{exponent} - {bias}")} END"""
    return _once(sql, number, f"CASE WHEN n < 0 THEN -1.0 ELSE 1.0 END * {size}")


def _once(sql: Words, number: str, expression: str) -> str:
    """An expression of ``n``, which is reckoned once however often it stands there."""
    fence = "" if sql.sqlite else " OFFSET 0"
    return f"(SELECT {expression} FROM (SELECT {number} AS n{fence}) AS once)"
