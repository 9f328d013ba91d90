"""What a view is, and the words that two databases say differently."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["sqlite", "postgresql"]

_US = "The same, in µs since 1970-01-01 UTC"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view."""

    name: str
    sql: str
    says: str


@dataclass(frozen=True, slots=True)
class View:
    """One view."""

    name: str
    says: str
    columns: Sequence[Column]
    source: str
    """What follows FROM."""

    @property
    def create(self) -> str:
        """The statement."""
        columns = ",\n  ".join(f"{column.sql} AS {column.name}" for column in self.columns)
        return f"CREATE VIEW {self.name} AS SELECT\n  {columns}\nFROM {self.source}"


class Words:
    """What the two databases say differently."""

    def __init__(self, dialect: Dialect) -> None:
        self.sqlite = dialect == "sqlite"

    def time(self, stamp: str) -> str:
        """Readable; exact to the microsecond, from 1601 to 9999."""
        if not self.sqlite:
            seconds, rest = f"{stamp} / 1000000 * interval '1 second'", f"{stamp} % 1000000 * interval '1 microsecond'"
            return f"(timestamptz '1970-01-01 00:00:00Z' + {seconds} + {rest})"
        rest = f"({stamp} % 1000000 + 1000000) % 1000000"
        whole = f"strftime('%Y-%m-%dT%H:%M:%S', ({stamp} - {rest}) / 1000000, 'unixepoch')"
        return f"{whole} || printf('.%06dZ', {rest})"

    def times(self, name: str, stamp: str, says: str) -> tuple[Column, Column]:
        """Readable, and as the table has it."""
        return Column(name, self.time(stamp), says), Column(f"{name}_us", stamp, _US)

    def role(self, role: str) -> str:
        """Feature that plays a role in a model, by ``model_versions.spec``."""
        return f"json_extract(spec, '$.roles.{role}')" if self.sqlite else f"spec #>> '{{roles,{role}}}'"

    @property
    def infinity(self) -> str:
        """The number."""
        return "9e999" if self.sqlite else "'Infinity'::float8"

    def power(self, exponent: str) -> str:
        """2 to the power of -1074 to 971, exactly."""
        return f"(SELECT power FROM powers WHERE exponent = {exponent})"  # noqa: S608  an expression of ours

    def least(self, first: str, second: str) -> str:
        """The lesser of two numbers."""
        return f"{'min' if self.sqlite else 'least'}({first}, {second})"

    def greatest(self, first: str, second: str) -> str:
        """The greater of two numbers."""
        return f"{'max' if self.sqlite else 'greatest'}({first}, {second})"


def quality(status: str, name: str = "quality") -> Column:
    text = f"CASE {status} >> 30 WHEN 0 THEN 'Good' WHEN 1 THEN 'Uncertain' ELSE 'Bad' END"
    return Column(name, text, "`Good`, `Uncertain` or `Bad`: the severity of the status")


def span(micros: str, unit: float) -> str:
    return f"CAST({micros} AS DOUBLE PRECISION) / {unit:.1f}"
