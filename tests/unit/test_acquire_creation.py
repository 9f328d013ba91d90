"""What is asked of a server for an item is, byte by byte, what asyncua's own records ask."""

from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from plugin.acquire.creation import Wish, request

FILTER = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValueTimestamp, ua.UInt32(1), 2.5)
NODES = [ua.NodeId(ua.String("Line1.Motor7"), ua.Int16(2)), ua.NodeId(ua.Int32(2258)), ua.NodeId(ua.Int32(70000), 3)]  # type: ignore[arg-type]


def theirs(client: int, node: ua.NodeId, data_filter: Any) -> Any:
    item: Any = ua.MonitoredItemCreateRequest()
    item.ItemToMonitor.NodeId, item.ItemToMonitor.AttributeId = node, ua.AttributeIds.Value
    item.MonitoringMode = ua.MonitoringMode.Reporting
    asked = item.RequestedParameters
    asked.ClientHandle, asked.SamplingInterval, asked.QueueSize, asked.DiscardOldest = client, 250.0, 600, True
    asked.Filter = data_filter
    return item


@pytest.mark.parametrize("data_filter", [None, FILTER])
def test_the_flat_request_is_encoded_as_the_nested_one(data_filter: Any) -> None:
    nested: Any = ua.CreateMonitoredItemsRequest()
    nested.Parameters.SubscriptionId, nested.Parameters.TimestampsToReturn = 9, ua.TimestampsToReturn.Both
    nested.Parameters.ItemsToCreate = [theirs(number, node, data_filter) for number, node in enumerate(NODES)]
    flat: Any = request(
        9,
        [
            Wish(node, ua.UInt32(number), ua.Double(250.0), data_filter, ua.UInt32(600))
            for number, node in enumerate(NODES)
        ],
    )
    flat.RequestHeader = nested.RequestHeader

    assert struct_to_binary(flat) == struct_to_binary(nested)
