"""A subscription outlives this process: what the next one must know of it, stored with the samples that it speaks of.

Two checkpoints each. What it is, its items and their handles, is written when it changes. How far it has come is a line
that goes with every message: so what is stored, and what will be asked for again, always fit together.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from plugin.domain import Micros

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptItem:
    """A monitored item."""

    client: int
    """ClientHandle."""
    id: int
    demand: str
    """What was asked of the server, as :meth:`ItemMaker.demand` words it."""
    plain: bool
    sampling: float
    """Granted [ms]."""
    queue: int
    """Granted [values]."""


@dataclass(frozen=True, slots=True)
class KeptSubscription:
    """A subscription that may still stand at the server."""

    id: int
    server_started: Micros
    """When that server had started [µs, its clock]; 0: it didn't say."""
    terms: str
    """What was asked of the server, as :meth:`Terms.text` words it."""
    silence: float
    """Longest silence that the server may keep [s]."""
    lifetime: float
    """How long it lives without a word from us [s]."""
    items: tuple[KeptItem, ...]
    last: int = 0
    """Number of the newest message that is stored."""
    latest: Micros = 0
    """The server's clock at that message [µs]."""


def subscription_key(source: str, slot: int) -> str:
    """Checkpoint: what the subscription of a slot is. A source's subscriptions are numbered by slots."""
    return f"{source}/subscription/{slot}"


def reached_key(source: str, slot: int) -> str:
    """Checkpoint: how far it has come."""
    return f"{source}/reached/{slot}"


def write_subscription(kept: KeptSubscription) -> str:
    """As the text of a checkpoint; without how far it has come."""
    row = {
        "id": kept.id,
        "server_started": kept.server_started,
        "terms": kept.terms,
        "silence": kept.silence,
        "lifetime": kept.lifetime,
        "items": [(i.client, i.id, i.demand, i.plain, i.sampling, i.queue) for i in kept.items],
    }
    return json.dumps(row, separators=(",", ":"))


def write_reached(subscription: int, last: int, latest: Micros) -> str:
    """As the text of a checkpoint; it names the subscription, for its number says nothing of another one."""
    return f"{subscription} {last} {latest}"


def read_subscriptions(source: str, checkpoints: Mapping[str, str]) -> dict[int, KeptSubscription]:
    """By slot, what the process before this one has left; what can't be read is as if it were not there."""
    begin, found = subscription_key(source, 0)[:-1], {}
    for key, text in checkpoints.items():
        slot = key.removeprefix(begin)
        if not text or slot == key or not slot.isdecimal():
            continue
        try:
            found[int(slot)] = _kept(text, checkpoints.get(reached_key(source, int(slot)), ""))
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("%s: checkpoint %s is of no use: %s", source, key, type(error).__name__)
    return found


def _kept(text: str, reached: str) -> KeptSubscription:
    row = json.loads(text)
    items = tuple(
        KeptItem(int(client), int(number), str(demand), bool(plain), float(sampling), int(queue))
        for client, number, demand, plain, sampling, queue in row["items"]
    )
    subscription, last, latest = (int(part) for part in (reached or "0 0 0").split())
    if subscription != row["id"]:
        last = latest = 0  # nothing of this one is stored yet
    return KeptSubscription(
        id=int(row["id"]),
        server_started=int(row["server_started"]),
        terms=str(row["terms"]),
        silence=float(row["silence"]),
        lifetime=float(row["lifetime"]),
        items=items,
        last=last,
        latest=latest,
    )
