"""Engineering units as OPC UA has them (OPC 10000-8, EUInformation), with UN/CEFACT codes where there are."""

from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of measure."""

    code: str
    """Common code of Recommendation 20; empty: it has none."""
    display: str
    description: str

    @property
    def unit_id(self) -> int:
        """The characters of the code as one big-endian number; -1 without a code."""
        return int.from_bytes(self.code.encode("ascii"), "big") if self.code else -1

    @property
    def namespace(self) -> str:
        """Who defines the unit."""
        return "http://www.opcfoundation.org/UA/units/un/cefact" if self.code else "urn:opcua-sim:units"


UNITS = {
    "": Unit("C62", "", "one"),
    "cycles": Unit("B7", "cycles", "cycle"),
    "%": Unit("P1", "%", "percent"),
    "degC": Unit("CEL", "°C", "degree Celsius"),
    "degR": Unit("A48", "°R", "degree Rankine"),
    "mbar": Unit("MBR", "mbar", "millibar"),
    "bar": Unit("BAR", "bar", "bar"),
    "psia": Unit("PS", "psia", "pound-force per square inch, absolute"),
    "rpm": Unit("RPM", "rpm", "revolutions per minute"),
    "lbm/s": Unit("K81", "lbm/s", "pound (avoirdupois) per second"),
    "MWh": Unit("MWH", "MWh", "megawatt hour"),
    "mg/m3": Unit("GP", "mg/m³", "milligram per cubic metre"),
    "pps/psi": Unit("", "pps/psi", "pound per second per psi"),
    "kft": Unit("", "kft", "thousand feet"),
    "Mach": Unit("", "Mach", "Mach number"),
}
"""By the text that a feature has."""
