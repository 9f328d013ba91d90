"""What an operator sees: the live table in a terminal."""

from plugin.hmi.snapshot import AssetLine, ModelLine, Reading, Snapshot, SourceLine, Totals, TrainingLine
from plugin.hmi.terminal import LiveView

__all__ = [
    "AssetLine",
    "LiveView",
    "ModelLine",
    "Reading",
    "Snapshot",
    "SourceLine",
    "Totals",
    "TrainingLine",
]
