"""The table of statuses, row by row: what a value is shown with, whatever else holds of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.domain import Quality, Status, quality
from plugin.publish.shown import Shown

_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_LATER = _NOW + timedelta(minutes=1)


def _given(status: Status) -> Callable[[Shown], None]:
    def happens(shown: Shown) -> None:
        shown.take(status, _LATER)

    return happens


def _missed(shown: Shown) -> None:
    shown.take(Status.GOOD, _LATER)
    shown.expire(_LATER)


def _lost(shown: Shown) -> None:
    shown.take(Status.GOOD, _LATER)
    shown.cut_off = True


def _drifting(shown: Shown) -> None:
    shown.take(Status.GOOD, _LATER)
    shown.drifting = True


def _withheld(status: Status) -> Callable[[Shown], None]:
    def happens(shown: Shown) -> None:
        shown.take(Status.GOOD, _LATER)
        shown.withhold(status)

    return happens


_CASES: dict[str, tuple[Callable[[Shown], None], Status]] = {
    "all is well": (_given(Status.GOOD), Status.GOOD),
    "fewer inputs than required": (_given(Status.UNCERTAIN_SUB_NORMAL), Status.UNCERTAIN_SUB_NORMAL),
    "out of range": (
        _given(Status.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED),
        Status.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED,
    ),
    "a run was missed": (_missed, Status.UNCERTAIN_LAST_USABLE_VALUE),
    "the source is lost": (_lost, Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE),
    "not yet run": (lambda _shown: None, Status.BAD_WAITING_FOR_INITIAL_DATA),
    "the model is switched off": (_withheld(Status.BAD_OUT_OF_SERVICE), Status.BAD_OUT_OF_SERVICE),
    "there is no model": (_withheld(Status.BAD_CONFIGURATION_ERROR), Status.BAD_CONFIGURATION_ERROR),
    "the model drifts": (_drifting, Status.UNCERTAIN_SUB_NORMAL),
    "no number": (_given(Status.BAD_NO_DATA), Status.BAD_NO_DATA),
}


@pytest.mark.parametrize("case", _CASES)
def test_each_row_of_the_table(case):
    shown = Shown()
    happens, status = _CASES[case]
    happens(shown)
    assert shown.status == status


@pytest.mark.parametrize("case", _CASES)
def test_in_a_simulated_plant_only_what_is_good_says_so(case):
    shown = Shown(simulated=True)
    happens, status = _CASES[case]
    happens(shown)
    assert shown.status == (Status.UNCERTAIN_SIMULATED_VALUE if status is Status.GOOD else status)


def test_back_in_service_it_waits_for_the_next_run():
    shown = Shown()
    shown.take(Status.GOOD, _LATER)
    shown.withhold(Status.BAD_OUT_OF_SERVICE)
    assert not shown.expire(_LATER)
    shown.withhold(None)
    assert shown.status == Status.BAD_WAITING_FOR_INITIAL_DATA
    assert shown.take(Status.GOOD, _LATER) == Status.GOOD


_DOINGS = st.lists(st.sampled_from(["take", "bad", "expire", "off", "on", "cut", "back", "drift", "fits"]), max_size=12)


@given(_DOINGS)
def test_whatever_happens_only_a_fresh_and_sure_value_is_good(doings):
    """And a fresh run always puts an end to what grew stale."""
    shown = Shown()
    for doing in doings:
        if doing in ("take", "bad"):
            shown.take(Status.GOOD if doing == "take" else Status.BAD_NO_DATA, _LATER)
        elif doing == "expire":
            shown.expire(_LATER)
        elif doing in ("off", "on"):
            shown.withhold(Status.BAD_OUT_OF_SERVICE if doing == "off" else None)
        elif doing in ("cut", "back"):
            shown.cut_off = doing == "cut"
        else:
            shown.drifting = doing == "drift"
    last = next((doing for doing in reversed(doings) if doing in ("take", "bad", "off", "on")), "on")
    if last != "take":
        assert quality(shown.status) is Quality.BAD
    elif "expire" in doings[len(doings) - doings[::-1].index("take") :]:
        assert shown.status == Status.UNCERTAIN_LAST_USABLE_VALUE
    else:
        assert (shown.status == Status.GOOD) == (not shown.cut_off and not shown.drifting)
