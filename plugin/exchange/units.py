"""One engineering unit in another: value = number × scale + offset."""

from collections.abc import Mapping

from plugin.exchange.terms import fault

_KINDS: tuple[Mapping[str, tuple[float, float]], ...] = (
    {"K": (1, 0), "degC": (1, 273.15), "degF": (5 / 9, 459.67 * 5 / 9), "degR": (5 / 9, 0)},
    {
        "Pa": (1, 0), "hPa": (100, 0), "mbar": (100, 0), "kPa": (1e3, 0), "bar": (1e5, 0), "MPa": (1e6, 0),
        "psi": (6894.757293168361, 0), "atm": (101_325, 0), "mmHg": (133.322387415, 0), "inH2O": (249.08891, 0),
        "kgf/cm2": (98_066.5, 0),
    },
    {"m": (1, 0), "mm": (1e-3, 0), "cm": (1e-2, 0), "um": (1e-6, 0), "km": (1e3, 0), "in": (0.0254, 0),
     "ft": (0.3048, 0)},
    {"kg": (1, 0), "g": (1e-3, 0), "mg": (1e-6, 0), "t": (1e3, 0), "lb": (0.45359237, 0)},
    {"m3": (1, 0), "l": (1e-3, 0), "gal": (3.785411784e-3, 0), "ft3": (0.028316846592, 0), "bbl": (0.158987294928, 0)},
    {
        "m3/s": (1, 0), "m3/h": (1 / 3600, 0), "l/s": (1e-3, 0), "l/min": (1e-3 / 60, 0), "l/h": (1e-3 / 3600, 0),
        "gal/min": (3.785411784e-3 / 60, 0), "gpm": (3.785411784e-3 / 60, 0), "ft3/min": (0.028316846592 / 60, 0),
    },
    {"kg/s": (1, 0), "kg/h": (1 / 3600, 0), "t/h": (1e3 / 3600, 0), "lb/h": (0.45359237 / 3600, 0)},
    {"m/s": (1, 0), "mm/s": (1e-3, 0), "km/h": (1 / 3.6, 0), "ft/s": (0.3048, 0), "in/s": (0.0254, 0)},
    {"W": (1, 0), "kW": (1e3, 0), "MW": (1e6, 0), "hp": (745.6998715822702, 0)},
    {"J": (1, 0), "kJ": (1e3, 0), "MJ": (1e6, 0), "Wh": (3600, 0), "kWh": (3.6e6, 0), "MWh": (3.6e9, 0)},
    {"V": (1, 0), "mV": (1e-3, 0), "kV": (1e3, 0)},
    {"A": (1, 0), "mA": (1e-3, 0), "kA": (1e3, 0)},
    {"Hz": (1, 0), "kHz": (1e3, 0), "rpm": (1 / 60, 0)},
    {"1": (1, 0), "%": (1e-2, 0), "ppm": (1e-6, 0), "ppb": (1e-9, 0)},
    {"s": (1, 0), "ms": (1e-3, 0), "min": (60, 0), "h": (3600, 0), "d": (86_400, 0)},
    {"rad": (1, 0), "deg": (0.017453292519943295, 0)},
)  # fmt: skip
"""By kind of quantity: unit → number of the first unit that is 1 of it, and where its zero lies."""

_SAME = {
    "°C": "degC", "C": "degC", "Cel": "degC", "°F": "degF", "F": "degF", "°R": "degR", "Kelvin": "K", "L": "l",
    "L/s": "l/s", "L/min": "l/min", "L/h": "l/h", "m³": "m3", "m³/h": "m3/h", "m³/s": "m3/s", "µm": "um", "μm": "um",
    "ft³": "ft3", "psia": "psi", "1/min": "rpm", "r/min": "rpm", "kg/cm2": "kgf/cm2", "°": "deg",
}  # fmt: skip


def conversion(old: str, new: str) -> tuple[float, float]:
    """Scale and offset from one unit to another; ConfigError where one is not known, or they differ in kind."""
    if old == new:
        return 1.0, 0.0
    for unit in (old, new):
        if not any(_name(unit) in kind for kind in _KINDS):
            raise fault("unit", repr(unit), "is no unit that is known", "Write scale and offset in its place")
    for kind in _KINDS:
        if _name(old) in kind and _name(new) in kind:
            (scale, zero), (other, other_zero) = kind[_name(old)], kind[_name(new)]
            return scale / other, (zero - other_zero) / other
    raise fault("unit", repr(old), f"does not measure what {new!r} does", "Mend it, or write scale and offset")


def _name(unit: str) -> str:
    return _SAME.get(unit.strip(), unit.strip())
