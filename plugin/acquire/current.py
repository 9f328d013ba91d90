"""The last step of a gap, and the first of a tag: have the value that a tag has now, where the server doesn't say it.

A new item reports its value at once, by the standard; and where messages were lost that can't be had again, the next
change is long in coming for a tag that seldom moves. ResendData (OPC 10000-5, 9.1) has all values sent again; a tag
that is silent all the same is read. What is read changes nothing of the gap.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

import numpy as np
from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import SourceConfig
from plugin.acquire.decoding import Values
from plugin.acquire.intake import Intake
from plugin.acquire.items import in_batches
from plugin.acquire.measuring import Malformed
from plugin.acquire.outbox import Outbox
from plugin.acquire.server import ServerInfo, resolve
from plugin.acquire.session import ServiceFault, translated
from plugin.acquire.wire import now_micros, read
from plugin.domain import Micros
from plugin.errors import SourceUnreachable
from plugin.protocols import Delivery

_log = logging.getLogger(__name__)

_INTERVALS = 3  # publishing intervals that a value may take to come by itself
_LEAST = 1.0  # [s]


class Currents:
    """The present values that are waited for; cut off by a lost connection, it goes on with the next one."""

    def __init__(self, config: SourceConfig, intake: Intake, outbox: Outbox) -> None:
        self._config = config
        self._intake = intake
        self._outbox = outbox
        self._since: dict[int, Micros] = {}
        self._resend: set[int] = set()
        self._wanted = asyncio.Event()

    def expect(self, handles: Iterable[int], *, resend: int = 0) -> None:
        """A value of each of these tags should come soon; ``resend``: the subscription that lost some, to be asked to
        send them again."""
        self._since.update(dict.fromkeys(handles, now_micros()))
        if resend:
            self._resend.add(resend)
        self._wanted.set()

    def heard(self, values: Values) -> None:
        """These have come."""
        if self._since:
            for handle in values.handle.tolist():
                self._since.pop(handle, None)

    async def run(self, services: UaSession, info: ServerInfo) -> None:
        """For as long as the session lasts."""
        pause = max(_LEAST, _INTERVALS * self._config.publishing_interval.total_seconds())
        while True:
            if not self._since:
                self._wanted.clear()
                await self._wanted.wait()
            await self._send_again(services)
            await asyncio.sleep(pause)
            latest = now_micros() - int(pause * 1_000_000)
            await self._read(self._unheard(latest), services, info)

    def _unheard(self, latest: Micros) -> list[int]:
        """Those that should have come by now, and did not; they are not waited for any more."""
        due = [handle for handle, since in self._since.items() if since <= latest]
        for handle in due:
            del self._since[handle]
        return [handle for handle in due if self._intake.alive(handle)]

    async def _send_again(self, services: UaSession) -> None:
        while self._resend:
            subscription = self._resend.pop()
            request = ua.CallMethodRequest()
            request.ObjectId = ua.NodeId(ua.Int32(ua.ObjectIds.Server))
            request.MethodId = ua.NodeId(ua.Int32(ua.ObjectIds.Server_ResendData))
            request.InputArguments = [ua.Variant(subscription, ua.VariantType.UInt32)]
            try:
                with translated("ResendData"):
                    await services.call([request])
            except ServiceFault as fault:
                _log.debug("%s: %s", self._config.name, fault)  # many servers don't have it: the tags are read

    async def _read(self, handles: Sequence[int], services: UaSession, info: ServerInfo) -> None:
        nodes = {handle: resolve(self._intake.tags[handle].node, info.namespaces) for handle in handles}
        found = [(handle, node) for handle, node in nodes.items() if node is not None]

        async def call(part: Sequence[tuple[int, ua.NodeId]]) -> None:
            with translated("read present values"):
                values = await read(services, [(node, int(ua.AttributeIds.Value)) for _, node in part])
            values = await self._intake.read(values, np.array([handle for handle, _ in part], np.intp))
            received = now_micros()
            await self._outbox.room()
            batch, _ = self._intake.live(values, received)
            self._outbox.add(Delivery(batch))
            self._intake.arrived(values, received)

        try:
            await in_batches(found, min(self._config.batch, info.nodes_per_read or self._config.batch), call)
        except SourceUnreachable as error:
            if not isinstance(error, ServiceFault) and not isinstance(error.__cause__, Malformed):
                raise
            _log.info("%s: %s", self._config.name, error)
