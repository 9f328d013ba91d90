"""Numbers that a server's messages name tags by, over our own restart."""

import numpy as np

from plugin.acquire.config import Policy, SourceConfig
from plugin.acquire.handles import ClientHandles
from plugin.acquire.items import Item, ItemMaker
from plugin.acquire.resume import KeptSubscription
from plugin.acquire.subscription import Subscription
from plugin.domain import Tag

NOBODY = 0xFFFF_FFFF


def items(*handles: int) -> list[Item]:
    return [Item(handle, Tag(f"t{handle}", "plant", f"i={handle}")) for handle in handles]


def tags(handles: ClientHandles, *client: int) -> list[int]:
    return [int(handle) for handle in handles.tags(np.array(client, np.uint32))]


def test_in_a_process_of_its_own_a_tag_is_named_by_its_handle() -> None:
    handles, named = ClientHandles(), items(4, 7)
    handles.name(named)
    assert [item.client for item in named] == [4, 7]
    assert tags(handles, 4, 7) == [4, 7]


def test_what_was_given_before_stays_and_what_is_new_stands_behind_all_that_was_ever_given() -> None:
    handles, new = ClientHandles({0: 5, 2: 1}, free=6), items(8, 9)
    handles.name(new)
    assert [item.client for item in new] == [6, 7]  # 3 to 5 may still report, of tags that are gone
    assert tags(handles, 0, 2, 6, 7, 5, 1, 99) == [5, 1, 8, 9, NOBODY, NOBODY, NOBODY]


def test_a_tag_that_is_asked_for_again_keeps_its_number() -> None:
    handles, again = ClientHandles({0: 5}, free=1), items(5, 6)
    for _ in range(3):
        handles.name(again)
    assert [item.client for item in again] == [0, 1]
    assert tags(handles, 0, 1, 2) == [5, 6, NOBODY]


def test_with_nothing_left_over_the_numbers_begin_behind() -> None:
    handles, new = ClientHandles({}, free=3), items(0)
    handles.name(new)
    assert new[0].client == 3
    assert tags(handles, 0, 3) == [NOBODY, 0]


def test_items_that_a_killed_process_made_and_nobody_wrote_down_name_no_other_tag() -> None:
    """They have the numbers just behind those that are known; each life begins elsewhere."""
    config = SourceConfig(name="plant", endpoint="opc.tcp://plc:4840", security_policy=Policy.NONE)
    begins = set()
    for _ in range(20):
        subscription = Subscription(config, (), ItemMaker(config), _never, _never)
        subscription.resume(KeptSubscription(7, 0, "", 3.0, 300.0, ()), {})
        new = items(0)
        subscription.handles.name(new)
        begins.add(new[0].client)
    assert len(begins) > 10


async def _never(*_: object) -> None:
    raise AssertionError
