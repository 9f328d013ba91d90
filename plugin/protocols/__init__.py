"""The three seams of the service: Source, Store and Sink (the fourth, ``ModelKind``, is in :mod:`models`)."""

from plugin.protocols.sink import Sink
from plugin.protocols.source import Delivery, Health, HistoryProgress, Source
from plugin.protocols.store import Corrected, Store, Written

__all__ = ["Corrected", "Delivery", "Health", "HistoryProgress", "Sink", "Source", "Store", "Written"]
