"""What a running service tells of itself at its Prometheus endpoint."""

import asyncio
import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 3.0
_MOST_BYTES = 64 * 2**20

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """Samples by the name of their metric, each with its labels."""

    samples: Mapping[str, tuple[tuple[Labels, float], ...]]

    def value(self, name: str, **labels: str) -> float | None:
        """Of the one metric with these labels; None: it was not told of."""
        return next(self._matching(name, labels), None)

    def count(self, name: str, **labels: str) -> int:
        """The sum of all that have these labels, as a count."""
        return int(sum(self._matching(name, labels)))

    def facts(self, name: str, **labels: str) -> Labels:
        """The labels of an info metric; empty where it was not told of."""
        rows = self.samples.get(name, ())
        return next((found for found, _ in rows if labels.items() <= found.items()), {})

    def _matching(self, name: str, labels: Labels) -> Iterator[float]:
        return (value for found, value in self.samples.get(name, ()) if labels.items() <= found.items())


async def ask(address: tuple[str, int]) -> Told | None:
    """Ask whoever listens there, within 3 s; None: nobody, or somebody who has no metrics."""
    host, port = address
    local = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not listened on
    url = f"http://{f'[{local}]' if ':' in local else local}:{port}/metrics"
    try:
        return parse(await asyncio.to_thread(_get, url))
    except (URLError, OSError, ValueError, http.client.HTTPException):
        return None


def _get(url: str) -> str:
    # Never by a proxy: it would be asked for its own loopback interface.
    with build_opener(ProxyHandler({})).open(url, timeout=_SECONDS) as answer:
        text: str = answer.read(_MOST_BYTES).decode()
        return text


def parse(text: str) -> Told:
    """From the text format; ValueError where it is none."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Told({name: tuple(rows) for name, rows in samples.items()})
