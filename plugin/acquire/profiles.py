"""What is known of servers that engineers meet often: defaults for a source that names a ``profile``.

What the file says of a setting wins over the profile, and the server's own limits win over both.

Sources of the figures. Tags in one request: those that benthos-umh (opcua_plugin/server_profiles.go, Apache-2.0) found
safe in production: 100 for an S7-1200, of which it reports requests above 200 to be far slower although the CPU allows
1000; 500, 1000, 100 and 800 for S7-1500, Kepware, Ignition and Prosys. S7-1200 (firmware 4.4): 1000 monitored items and
no DataChangeFilter, for it has the Micro Embedded Device profile. S7-1500: 10,000 items with the biggest CPUs; small
ones are specified for 1000 to 2000 (Siemens entry 109755846, by CPU and firmware). The Prosys simulation server is
reported to stall with 10,000 items in one subscription. Publish requests of the CPUs: ours, sparing of their memory.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Profile:
    """Defaults of a source's settings, under their names; None: as without a profile."""

    title: str
    """For a person."""
    words: tuple[str, ...]
    """What the server says of itself, in lower case: all words of one entry are in maker, product or URI."""
    batch: int | None = None
    subscription_size: int | None = None
    max_items: int | None = None
    publish_requests: int | None = None
    filters: bool | None = None

    def settings(self) -> dict[str, int | bool]:
        """Those that it has."""
        return {name: value for name, value in asdict(self).items() if name not in _NO_SETTINGS and value is not None}


_NO_SETTINGS = frozenset(("title", "words"))

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "default": Profile("a server of its own kind", ()),
        "s7-1200": Profile(
            "a Siemens S7-1200", ("siemens 1200",),
            batch=100, subscription_size=1000, max_items=1000, publish_requests=3, filters=False,
        ),
        "s7-1500": Profile(
            "a Siemens S7-1500", ("siemens 1500",),
            batch=500, subscription_size=1000, max_items=10_000, publish_requests=5,
        ),
        "kepware": Profile("Kepware", ("kepware", "kepserver"), batch=1000),
        "ignition": Profile("Ignition", ("inductive automation", "ignition"), batch=100),
        "prosys": Profile("a Prosys server", ("prosys",), batch=800, subscription_size=5000),
    }
)  # fmt: skip
"""By the name that the configuration uses."""


def recognise(*told: str) -> str:
    """Name of the profile that suits a server by its maker's name, its product's name and URI; empty: none does."""
    text = " ".join(told).lower()
    for name, profile in PROFILES.items():
        if any(all(word in text for word in words.split()) for words in profile.words):
            return name
    return ""
