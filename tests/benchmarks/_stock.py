"""asyncua as it comes, as a client to be measured (see :mod:`tests.benchmarks._drain`)."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from tests.benchmarks._measuring import SUBSCRIPTION, Count, Result, Task


class _Handler:
    def __init__(self, count: Count) -> None:
        self._count = count

    def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
        self._count.add(1)


async def handled(task: Task, folder: Path) -> Result:
    """Client and Subscription of asyncua, a method called for each value."""
    count = Count(task, rounds=1)
    async with _client(task, folder) as client:
        for nodes in _parts(task):
            subscription = await client.create_subscription(1000 * task.interval, _Handler(count))
            await subscription.subscribe_data_change([client.get_node(node) for node in nodes], queuesize=100)
        await count.done.wait()
    return count.result


async def decoded(task: Task, folder: Path) -> Result:
    """asyncua's services alone: a callback for each decoded notification."""
    count = Count(task, rounds=1)

    def received(result: Any) -> None:
        for notification in result.NotificationMessage.NotificationData or ():
            count.add(len(notification.MonitoredItems))

    async with _client(task, folder) as client:
        for nodes in _parts(task):
            parameters = ua.CreateSubscriptionParameters()
            parameters.RequestedPublishingInterval = 1000 * task.interval
            parameters.PublishingEnabled = True
            parameters.RequestedLifetimeCount, parameters.RequestedMaxKeepAliveCount = ua.UInt32(1000), ua.UInt32(10)
            made = await client.uaclient.create_subscription(parameters, received)
            asked = ua.CreateMonitoredItemsParameters()
            asked.SubscriptionId, asked.TimestampsToReturn = made.SubscriptionId, ua.TimestampsToReturn.Both
            asked.ItemsToCreate = [_asked(handle, node) for handle, node in enumerate(nodes)]
            await client.uaclient.create_monitored_items(asked)
        await count.done.wait()
    return count.result


def _asked(handle: int, node: str) -> ua.MonitoredItemCreateRequest:
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = ua.NodeId.from_string(node)
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.ClientHandle = ua.UInt32(handle)
    request.RequestedParameters.QueueSize = ua.UInt32(100)
    return request


def _parts(task: Task) -> list[list[str]]:
    nodes = [f"ns=1;s={name}" for name in task.names()]
    return [nodes[at : at + SUBSCRIPTION] for at in range(0, len(nodes), SUBSCRIPTION)]


@contextlib.asynccontextmanager
async def _client(task: Task, folder: Path) -> AsyncIterator[Client]:
    client = Client(f"opc.tcp://127.0.0.1:{task.port}/plant", timeout=30, watchdog_intervall=30)
    if task.server_certificate is not None:
        client.application_uri = "urn:foretag"
        own = pki.ensure_own_certificate(folder, client.application_uri, ["localhost"])
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            CertProperties(own.cert_path, "der"),
            CertProperties(own.key_path, "pem"),
            server_certificate=CertProperties(task.server_certificate.read_bytes(), "der"),
            mode=ua.MessageSecurityMode.SignAndEncrypt,
        )
    async with client:
        yield client
