"""What a client may ask of its own subscription by method: GetMonitoredItems and ResendData (OPC 10000-5, 9.1 and 9.2).

That it is its own is settled before (:class:`plugin.publish.asyncua_session.PlantSession`).
"""

from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.address_space import AddressSpace

from plugin.publish.arguments import checked
from plugin.publish.asyncua_items import PlantItems
from plugin.publish.asyncua_subscriptions import PlantSubscriptions
from plugin.publish.cells import status_code


class Resending:
    """Of all subscriptions of a server."""

    def __init__(self, subscriptions: PlantSubscriptions) -> None:
        self._subscriptions = subscriptions

    def open(self, space: AddressSpace) -> None:
        """From now on both are answered."""
        space[ua.NodeId(ua.Int32(ua.ObjectIds.Server_GetMonitoredItems))].call = self._monitored
        space[ua.NodeId(ua.Int32(ua.ObjectIds.Server_ResendData))].call = self._resend

    async def _monitored(self, _: ua.NodeId, *given: ua.Variant) -> ua.CallMethodResult:
        """Server handles, and the client's for each."""
        try:
            items = self._items(given)
        except ServiceError as error:
            return ua.CallMethodResult(status_code(error.code))
        handles = [int(each.client_handle) for each in items.values()]
        told = [ua.Variant(numbers, ua.VariantType.UInt32, is_array=True) for numbers in (list(items), handles)]
        return ua.CallMethodResult(OutputArguments=told)

    async def _resend(self, _: ua.NodeId, *given: ua.Variant) -> ua.StatusCode:
        try:
            await self._of(given).resend()
        except ServiceError as error:
            return status_code(error.code)
        return ua.StatusCode()

    def _items(self, given: tuple[ua.Variant, ...]) -> dict[int, Any]:
        return self._of(given)._monitored_items

    def _of(self, given: tuple[ua.Variant, ...]) -> PlantItems:
        (number,) = checked(given, ua.VariantType.UInt32)
        found = self._subscriptions.subscriptions.get(number)
        if found is None or not isinstance(found.monitored_item_srv, PlantItems):
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)
        return found.monitored_item_srv
