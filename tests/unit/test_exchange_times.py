"""Times as files write them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import to_micros
from plugin.errors import ConfigError
from plugin.exchange.terms import Ambiguous, Wrong
from plugin.exchange.times import Clock, as_iso, check_format, detect, needs_zone
from plugin.zones import Zone

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
naive = st.datetimes(datetime(1901, 1, 1), datetime(2099, 1, 1))  # noqa: DTZ001 - a local time
AWARE = "2024-05-01T12:00:00+00:00"


def local(time: datetime) -> int:
    return to_micros(time.replace(tzinfo=UTC))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), st.lists(naive, min_size=1, max_size=40))
def test_a_zone_is_what_the_standard_library_says_of_it(name, times):
    zone, told = Zone.named(name), ZoneInfo(name)
    column = np.array([local(time) for time in times])
    for fold in (0, 1):
        wanted = [to_micros(time.replace(tzinfo=told, fold=fold)) for time in times]
        assert zone.to_utc(column, later=bool(fold)).tolist() == wanted
    back = [local(datetime.fromisoformat(f"{t}Z").astimezone(told).replace(tzinfo=None)) for t in times]
    assert zone.to_local(column).tolist() == back


@pytest.mark.parametrize("name", ZONES)
def test_times_beside_a_change_of_the_clock_are_known_to_be_doubtful(name):
    zone, told = Zone.named(name), ZoneInfo(name)
    column = (
        np.concatenate(
            [
                (zone.changes + side)[:, None] + np.arange(-8, 9) * 900_000_000
                for side in (zone.offsets[:-1], zone.offsets[1:])
            ]
        ).ravel()
        if len(zone.changes)
        else np.array([0])
    )
    twice, never = zone.doubtful(column)
    for row in range(0, len(column), 7):
        time = (datetime(1970, 1, 1) + timedelta(microseconds=int(column[row]))).replace(tzinfo=told)  # noqa: DTZ001
        early, late = (to_micros(time.replace(fold=fold)) for fold in (0, 1))
        assert (twice[row], never[row]) == (early < late, early > late)


def test_no_such_zone():
    for name in ("Europe/Atlantis", "../etc/passwd", ""):
        with pytest.raises(ConfigError, match="IANA"):
            Zone.named(name)


def read(
    *cells: object, written: str = "", zone: str = "", ambiguous: Ambiguous = Ambiguous.REJECT
) -> tuple[list[str | None], dict[int, str]]:
    column = pa.array(cells)
    wrong = Wrong.none(len(cells))
    clock = Clock(written or detect(column), Zone.named(zone) if zone else None, ambiguous)
    micros = clock.read(column, wrong)
    iso = [
        str(m) if bad else t
        for m, bad, t in zip(
            micros.tolist(), wrong.mask, as_iso(np.where(wrong.mask, 0, micros), Zone.named("UTC")), strict=True
        )
    ]
    return [None if bad else text for text, bad in zip(iso, wrong.mask, strict=True)], wrong.reasons


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("2024-12-31T23:59:59.123456Z", "2024-12-31T23:59:59.123456Z"),
        ("2024-12-31 23:59:59,5+01:30", "2024-12-31T22:29:59.500000Z"),
        ("2024-12-31T23:59:59.123456789Z", "2024-12-31T23:59:59.123456Z"),
        ("31-Dec-24 23:59:59.250", "2024-12-31T23:59:59.250000Z"),
        ("31-DEC-2024 23:59:59", "2024-12-31T23:59:59.000000Z"),
        ("31.12.2024 23:59", "2024-12-31T23:59:00.000000Z"),
        ("12/31/2024 11:59:59 PM", "2024-12-31T23:59:59.000000Z"),
        ("12/31/2024 12:00:00 am", "2024-12-31T00:00:00.000000Z"),
        ("2024/02/29 00:00:00.000", "2024-02-29T00:00:00.000000Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
        ("1704067200", "2024-01-01T00:00:00.000000Z"),
        ("1704067200.000001", "2024-01-01T00:00:00.000001Z"),
        ("1704067200123", "2024-01-01T00:00:00.123000Z"),
        ("1704067200123456", "2024-01-01T00:00:00.123456Z"),
        ("1704067200123456789", "2024-01-01T00:00:00.123456Z"),
        ("45292.5", "2024-01-01T12:00:00.000000Z"),
        (1704067200, "2024-01-01T00:00:00.000000Z"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00.000000Z"),
    ],
)  # fmt: skip
def test_formats_are_found(cell, wanted):
    assert read(cell, zone="UTC") == ([wanted], {})


def test_a_day_that_may_be_a_month_is_asked_for():
    with pytest.raises(ConfigError, match=r"%d/%m/%Y.*%m/%d/%Y"):
        read("01/02/2024 00:00:00")
    assert read("01/02/2024 00:00", "13/02/2024 00:00", zone="UTC")[0][0] == "2024-02-01T00:00:00.000000Z"
    with pytest.raises(ConfigError, match="--format"):
        read("yesterday")
    with pytest.raises(ConfigError, match="--format"):
        read("17", "18")


def test_a_cell_that_is_no_time_costs_itself_alone():
    cells = [
        "2024-01-01T00:00:00Z",
        "soon",
        None,
        "2023-02-29T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:00",
    ]
    found, reasons = read(*cells, written="iso")
    assert found == ["2024-01-01T00:00:00.000000Z", *[None] * 5]
    assert [reasons[row].partition(" ")[2][:12] for row in range(1, 6)] == [
        "no time of t", "is no time", "no time that", "no time that", "no time zone"
    ]  # fmt: skip


FINE = 1704067200
BEYOND = "is no time between the years 1 and 9999"


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.float64(), pa.string()])
@pytest.mark.parametrize("wild", [18446744073710 + FINE, 9_000_000_000_000_000_000, 253_402_300_800])
def test_an_epoch_that_no_calendar_has_costs_itself_alone(kind, wild):
    """Also where µs of it would be more than 64 bits hold, and come out as a time that there is."""
    wrong = Wrong.none(3)
    micros = Clock("s", None).read(pa.array([FINE, wild, None]).cast(kind, safe=False), wrong)
    assert (micros[0], wrong.mask.tolist()) == (FINE * 1_000_000, [False, True, True])
    assert wrong.reasons == {1: BEYOND, 2: "there is no time"}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_stamps_of_every_unit_are_cut_off_to_the_microsecond(unit):
    """Of a time before 1970 too, and not towards it."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = pa.array([FINE * per_second, -1, 2**63 - 1, None]).cast(pa.timestamp(unit, "UTC"))
    wrong = Wrong.none(4)
    micros = Clock("iso", None).read(stamps, wrong).tolist()
    assert micros[:2] == [FINE * 1_000_000, -max(1, 1_000_000 // per_second)]
    assert wrong.reasons == {3: "there is no time"} | ({2: BEYOND} if unit != "ns" else {})


def test_hours_that_are_there_twice_or_never():
    cells = ["2024-10-27 02:30:00", "2024-03-31 02:30:00", "2024-06-01 12:00:00"]
    found, reasons = read(*cells, zone="Europe/Berlin")
    assert found == [None, None, "2024-06-01T10:00:00.000000Z"]
    assert "twice" in reasons[0]
    assert "never was" in reasons[1]
    assert read(*cells, zone="Europe/Berlin", ambiguous=Ambiguous.EARLIER)[0][0] == "2024-10-27T00:30:00.000000Z"
    assert read(*cells, zone="Europe/Berlin", ambiguous=Ambiguous.LATER)[0][0] == "2024-10-27T01:30:00.000000Z"
    assert read("2024-10-27 02:30:00+01:00", *cells[:1], zone="Europe/Berlin")[0][0] == "2024-10-27T01:30:00.000000Z"


@pytest.mark.parametrize(
    ("cell", "wanted"), [("2024-01-01 00:00:00", True), (AWARE, False), ("1704067200", False), ("45292.5", True)]
)
def test_who_needs_a_zone(cell, wanted):
    column = pa.array([cell])
    assert needs_zone(column, detect(column)) is wanted
    assert (
        needs_zone(column.cast(pa.timestamp("us")), "iso") is True if cell.endswith(":00") and "+" not in cell else True
    )


def test_a_format_has_to_name_a_day():
    check_format("%d.%m.%y %H:%M:%S.%f")
    check_format("us")
    for wrong in ("%H:%M:%S", "%Q", "%d.%m.%Y %j", "tomorrow"):
        with pytest.raises(ConfigError, match="--format"):
            check_format(wrong)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), st.lists(st.integers(-2_000_000_000_000_000, 4_000_000_000_000_000), min_size=1))
def test_what_is_written_is_read_again(name, micros):
    column = np.array(micros)
    texts = pa.array(as_iso(column, Zone.named(name)), pa.string())
    wrong = Wrong.none(len(column))
    assert Clock("iso", None).read(texts, wrong).tolist() == micros
    assert not wrong.mask.any()
