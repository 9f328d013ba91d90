"""What every store must keep of history that is brought from files, and what reading it in slices needs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from plugin.domain import Fill, Import, Reject, SampleBatch, Tag
from plugin.protocols import Delivery, Store

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
FIRST = Import("a" * 64, "2023.csv", NOON, options={"zone": "Europe/Berlin", "columns": {"T1": [1.0, 0.0]}})
ODD = Reject(7, "T1", "#", "is no number")


async def test_tags_are_listed_as_they_were_registered_last(store: Store) -> None:
    assert await store.tags() == ()
    full = Tag(
        "b", "plant", "nsu=u;s=b", "engine", "T24", "K", -1.0, 2.5, 0.5, timedelta(milliseconds=250), 0, Fill.LINEAR,
        timedelta(minutes=5), False, 0.25, "long", "[3]",
    )  # fmt: skip
    registered = await store.register_tags([full, Tag("a", "import", "nsu=urn:foretag:import;s=a")])
    assert await store.tags() == registered
    changed = replace(full, unit="degC", asset="", sampling=None)
    await store.register_tags([changed])
    assert [replace(tag, id=0) for tag in await store.tags()] == [changed, replace(registered[1], id=0)]


async def test_an_import_is_kept_with_what_could_not_be_taken(store: Store) -> None:
    assert await store.imports() == ()
    assert await store.rejects(FIRST.id) == ()
    await store.write_import(FIRST)
    further = replace(FIRST, position=100, stored=90, duplicates=8, quarantined=2)
    await store.write_import(further, [ODD, Reject(3, "", "a,b,c", "has 3 cells")])
    again = replace(further, position=200, finished=NOON + timedelta(hours=1))
    await store.write_import(again, [replace(ODD, reason="said before"), Reject(7, "T2", "x, y", "is no number")])
    assert await store.imports() == (again,)
    assert await store.rejects(FIRST.id) == (
        Reject(3, "", "a,b,c", "has 3 cells"), ODD, Reject(7, "T2", "x, y", "is no number"),
    )  # fmt: skip
    assert await store.rejects(FIRST.id, limit=1) == (Reject(3, "", "a,b,c", "has 3 cells"),)


async def test_an_import_that_begins_anew_forgets_what_it_could_not_take_and_no_other_does(store: Store) -> None:
    other = replace(FIRST, id="b" * 64, started=NOON + timedelta(days=1), position=5)
    await store.write_import(replace(FIRST, position=9), [ODD])
    await store.write_import(other, [ODD])
    await store.write_import(FIRST)
    assert await store.rejects(FIRST.id) == ()
    assert await store.rejects(other.id) == (ODD,)
    assert await store.imports() == (other, FIRST)
    assert await store.imports(limit=1) == (other,)
    assert await store.imports(id=FIRST.id) == (FIRST,)
    assert await store.imports(id="c") == ()


async def test_the_next_time_skips_what_is_empty_and_nothing_else(store: Store) -> None:
    assert await store.next_time(-(2**62)) is None
    await store.register_tags([Tag("a", "plant", "nsu=u;s=a"), Tag("b", "plant", "nsu=u;s=b")])
    await store.write([Delivery(SampleBatch.of([1, 2, 1], [10, 500, 900], 1.0, 0, 1, 1))])
    assert await store.next_time(-(2**62)) == 10
    assert await store.next_time(11) == 500
    assert await store.next_time(900) == 900
    assert await store.next_time(901) is None
