"""Engineering units for OPC UA clients.

OPC 10000-8, 5.6.4.3: EUInformation carries a UN/CEFACT Recommendation 20 common code as UnitId: its characters as the
bytes of one big-endian number. A unit without such a code keeps its text and gets UnitId -1.
"""

from asyncua import ua

UNECE = "http://www.opcfoundation.org/UA/units/un/cefact"

_CODES = {
    "": ("C62", "one"),
    "1": ("C62", "one"),
    "%": ("P1", "percent"),
    "cycles": ("B7", "cycle"),
    "cycle": ("B7", "cycle"),
    "s": ("SEC", "second"),
    "ms": ("C26", "millisecond"),
    "min": ("MIN", "minute"),
    "h": ("HUR", "hour"),
    "d": ("DAY", "day"),
    "degC": ("CEL", "degree Celsius"),
    "°C": ("CEL", "degree Celsius"),
    "degF": ("FAH", "degree Fahrenheit"),
    "°F": ("FAH", "degree Fahrenheit"),
    "degR": ("A48", "degree Rankine"),
    "°R": ("A48", "degree Rankine"),
    "K": ("KEL", "kelvin"),
    "Pa": ("PAL", "pascal"),
    "kPa": ("KPA", "kilopascal"),
    "MPa": ("MPA", "megapascal"),
    "bar": ("BAR", "bar"),
    "mbar": ("MBR", "millibar"),
    "psi": ("PS", "pound-force per square inch"),
    "psia": ("PS", "pound-force per square inch"),
    "m": ("MTR", "metre"),
    "mm": ("MMT", "millimetre"),
    "um": ("4H", "micrometre"),
    "m3": ("MTQ", "cubic metre"),
    "m³": ("MTQ", "cubic metre"),
    "l": ("LTR", "litre"),
    "m/s": ("MTS", "metre per second"),
    "mm/s": ("C16", "millimetre per second"),
    "m/s2": ("MSK", "metre per second squared"),
    "rpm": ("RPM", "revolutions per minute"),
    "Hz": ("HTZ", "hertz"),
    "kg": ("KGM", "kilogram"),
    "t": ("TNE", "tonne"),
    "kg/s": ("KGS", "kilogram per second"),
    "kg/h": ("E93", "kilogram per hour"),
    "m3/h": ("MQH", "cubic metre per hour"),
    "m3/s": ("MQS", "cubic metre per second"),
    "l/min": ("L2", "litre per minute"),
    "mg/m3": ("GP", "milligram per cubic metre"),
    "mg/m³": ("GP", "milligram per cubic metre"),
    "ppm": ("59", "part per million"),
    "W": ("WTT", "watt"),
    "kW": ("KWT", "kilowatt"),
    "MW": ("MAW", "megawatt"),
    "Wh": ("WHR", "watt hour"),
    "kWh": ("KWH", "kilowatt hour"),
    "MWh": ("MWH", "megawatt hour"),
    "kvar": ("KVR", "kilovar"),
    "kvarh": ("K3", "kilovar hour"),
    "V": ("VLT", "volt"),
    "A": ("AMP", "ampere"),
    "N": ("NEW", "newton"),
    "Nm": ("NU", "newton metre"),
}


def unit_id(code: str) -> int:
    """UnitId of a common code: ``P1`` is 20529."""
    return int.from_bytes(code.encode("ascii"), "big")


def engineering_units(unit: str, namespace: str) -> ua.EUInformation:
    """EUInformation of a unit's text; ``namespace`` defines the units that UN/CEFACT does not have."""
    if unit not in _CODES:
        return ua.EUInformation(namespace, -1, ua.LocalizedText(unit), ua.LocalizedText(unit))
    code, name = _CODES[unit]
    return ua.EUInformation(UNECE, unit_id(code), ua.LocalizedText(unit), ua.LocalizedText(name))
