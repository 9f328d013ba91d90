"""The calendar as features: models know no clock, but a cell's phases in the day and in the week say what time it is.

Who cuts the windows adds the features of :data:`FEATURES` that are asked for, at the end of the axis: phases as sine
and cosine, 0 at local midnight and in the night to Monday, of the cell's beginning; and whether the day is one off.
"""

FEATURES = {
    "hour_of_day": ("calendar.hour_sin", "calendar.hour_cos"),
    "day_of_week": ("calendar.week_sin", "calendar.week_cos"),
    "day_off": ("calendar.day_off", "calendar.day_off_next"),
}
"""By what a person asks for. ``day_off_next``: whether the day after the cell's is one off."""
NAMES = tuple(name for names in FEATURES.values() for name in names)
