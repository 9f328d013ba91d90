"""Which timestamps a client wants with a value (OPC 10000-4, 7.40)."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError


@dataclass(frozen=True, slots=True)
class Stamps:
    """Those that it asked for."""

    source: bool
    server: bool

    def of(self, found: ua.DataValue, attribute: Any, now: datetime) -> ua.DataValue:
        """With these alone. Attributes other than Value have no source (OPC 10000-4, 7.11.3); what bears no server time
        of its own is known to be so ``now``."""
        source: Any = found.SourceTimestamp if self.source and attribute == ua.AttributeIds.Value else None
        server: Any = (found.ServerTimestamp or now) if self.server else None
        if source is found.SourceTimestamp and server is found.ServerTimestamp:
            return found
        return replace(found, SourceTimestamp=source, ServerTimestamp=server)


BOTH = Stamps(source=True, server=True)
_ASKED = {
    ua.TimestampsToReturn.Source: Stamps(source=True, server=False),
    ua.TimestampsToReturn.Server: Stamps(source=False, server=True),
    ua.TimestampsToReturn.Both: BOTH,
    ua.TimestampsToReturn.Neither: Stamps(source=False, server=False),
}


def asked_stamps(asked: ua.TimestampsToReturn) -> Stamps:
    """ServiceError BadTimestampsToReturnInvalid for what is none of the four."""
    found = _ASKED.get(asked)
    if found is None:
        raise ServiceError(ua.StatusCodes.BadTimestampsToReturnInvalid)
    return found
