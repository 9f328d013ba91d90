"""What models see and say: windows, scoring, training runs, the registry of versions, flags."""
