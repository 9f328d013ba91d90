"""What a model's output is: it decides how the number is shown, which alarm may follow it, and how it is judged."""

from enum import StrEnum


class Meaning(StrEnum):
    """Of one output."""

    VALUE = "value"
    """A quantity as an instrument would measure it."""
    LIFETIME = "lifetime"
    """What is left of a life; counts down, the lower the worse."""
    HEALTH = "health"
    """1 or 100 %: as new."""
    PROBABILITY = "probability"
    SCORE = "score"
    """How anomalous; the higher the worse."""
    FLAG = "flag"
    """0 or 1, decided outside of the kind from the output ``score`` and the fitted threshold."""
    STATE = "state"
    """A class: the index of one of the output's states."""
    FORECAST = "forecast"
    """A quantity at several instants to come."""


WITHIN_OR_BEYOND = ("within horizon", "beyond horizon")
"""States of an output that says whether a remaining life can be told, or is longer than one looks: no trouble."""
