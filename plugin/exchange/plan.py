"""Which column of a file is what."""

from collections.abc import Sequence
from dataclasses import dataclass

from plugin.errors import ConfigError, Fault
from plugin.exchange.terms import Layout, Terms

_KNOWN = {
    "time": (
        "time", "timestamp", "date time", "date/time", "datetime", "source time", "sourcetimestamp", "zeit",
        "zeitstempel", "datum", "datum/zeit", "date", "ts",
    ),
    "tag": (
        "tag", "tagname", "tag name", "name", "point", "pointname", "point name", "signal", "variable", "messstelle",
    ),
    "value": ("value", "wert", "val", "pv", "messwert"),
    "status": (
        "status", "statuscode", "status code", "opcquality", "opc quality", "quality", "qualitydetail", "qualität",
    ),
    "server_time": ("server time", "servertime", "servertimestamp"),
    "text": ("text", "vvalue", "string", "string value"),
}  # fmt: skip
"""What PI, Wonderware and we ourselves call them, by role; the first that is found counts."""
_SUFFIXES = ("status", "quality")


@dataclass(frozen=True, slots=True)
class Plan:
    """Places in the heading."""

    layout: Layout
    time: int
    tag: int | None = None
    """None, and so the four below, where the layout is wide, or there is none."""
    value: int | None = None
    status: int | None = None
    server_time: int | None = None
    text: int | None = None
    values: tuple[tuple[int, int | None], ...] = ()
    """Wide: the column of each tag, and that of its statuses where there is one."""

    @property
    def columns(self) -> tuple[int, ...]:
        """All that are to be read."""
        single = (self.time, self.tag, self.value, self.status, self.server_time, self.text)
        pairs = (column for pair in self.values for column in pair)
        return tuple(sorted({column for column in (*single, *pairs) if column is not None}))

    def texts(self, *, every: bool) -> set[int]:
        """Columns that may hold texts; ``every``: wherever a value stands."""
        values = {self.value, *(value for value, _ in self.values)} if every else set()
        return {column for column in {self.text, *values} if column is not None}


def plan(names: Sequence[str], terms: Terms) -> Plan:
    """From the heading and what is said of it; ConfigError where that is not enough."""
    faults: list[Fault] = []
    found = {role: _find(role, getattr(terms, role), names, faults) for role in _KNOWN}
    if faults:
        raise ConfigError("the command", faults)
    time, tag, value = found["time"], found["tag"], found["value"]
    if time is None:
        raise _missing("time", names)
    layout = terms.layout or (Layout.LONG if tag is not None and value is not None else Layout.WIDE)
    if layout is Layout.WIDE:
        return Plan(layout, time, values=_wide(names, time))
    for role in ("tag", "value"):
        if found[role] is None:
            raise _missing(role, names)
    return Plan(layout, time, tag, value, found["status"], found["server_time"], found["text"])


def _find(role: str, wanted: str, names: Sequence[str], faults: list[Fault]) -> int | None:
    if wanted:
        if wanted in names:
            return names.index(wanted)
        faults.append(Fault(f"--{role.replace('_', '-')}", wanted, "is no column", _columns(names)))
        return None
    plain = [name.casefold().replace("_", " ") for name in names]
    return next((plain.index(name) for name in _KNOWN[role] if name in plain), None)


def _wide(names: Sequence[str], time: int) -> tuple[tuple[int, int | None], ...]:
    places = {name.casefold(): place for place, name in enumerate(names)}
    statuses = {
        place: places[f"{name.casefold()}{mark}{suffix}"]
        for place, name in enumerate(names)
        for mark in ":._ "
        for suffix in _SUFFIXES
        if f"{name.casefold()}{mark}{suffix}" in places
    }
    taken = {time, *statuses.values()}
    return tuple((place, statuses.get(place)) for place, name in enumerate(names) if name and place not in taken)


def _missing(role: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        "the command", [Fault(f"--{role}", "(not said)", "no heading tells which column it is", _columns(names))]
    )


def _columns(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"Columns are: {shown}{', …' if len(names) > 12 else ''}"
