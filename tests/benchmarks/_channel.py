"""A server's side of a connection: TCP messages and the secure channel (OPC 10000-6, 6.7, 7.1)."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.crypto.security_policies import SecurityPolicyFactory, SecurityPolicyNone
from asyncua.ua.ua_binary import header_from_binary, struct_from_binary, struct_to_binary, uatcp_to_binary

_TYPES: Any = ua.MessageType  # asyncua calls them MessageType where they are bytes
_ACKNOWLEDGE, _OPEN, _CLOSE, _MESSAGE = _TYPES.Acknowledge, _TYPES.SecureOpen, _TYPES.SecureClose, _TYPES.SecureMessage
_CHUNK = 65535

channels = itertools.count(1)


class Channel(asyncio.Protocol):
    """Opens, decodes and encodes; what is asked is the business of :meth:`serve`."""

    def __init__(self, policies: Sequence[SecurityPolicyFactory]) -> None:
        self.policies = policies
        self.transport: Any = None
        self.security = SecureConnection(SecurityPolicyNone(), TransportLimits(_CHUNK, _CHUNK, 0, 0))
        self.security.set_policy_factories(list(policies))
        self._received = b""

    def serve(self, request: int, body: Buffer) -> None:
        """A request of that number has come."""
        raise NotImplementedError

    def answer(self, request: int, handle: int, response: Any, kind: Any = _MESSAGE) -> None:
        """A response that asyncua encodes."""
        response.ResponseHeader.RequestHandle = handle
        self.send(request, struct_to_binary(response), kind)

    def send(self, request: int, body: bytes, kind: Any = _MESSAGE) -> None:
        """A response that is encoded."""
        self.transport.write(self.security.message_to_binary(body, message_type=kind, request_id=request))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._received:
            buffer = Buffer(self._received)
            try:
                header = header_from_binary(buffer)
            except NotEnoughData:
                return
            if len(buffer) < header.body_size:
                return
            self._received = self._received[header.header_size + header.body_size :]
            self._message(header, self.security.receive_from_header_and_body(header, buffer))

    def _message(self, header: ua.Header, message: Any) -> None:
        if isinstance(message, ua.Hello):
            acknowledge: Any = ua.Acknowledge()
            acknowledge.ReceiveBufferSize = acknowledge.SendBufferSize = _CHUNK
            self.transport.write(uatcp_to_binary(_ACKNOWLEDGE, acknowledge))
        elif message is None:  # there is more of it to come
            return
        elif header.MessageType == _OPEN:
            self._open(message)
        elif header.MessageType == _CLOSE:
            self.transport.close()
        else:
            self.serve(message.request_id(), message.body())

    def _open(self, message: Any) -> None:
        request = struct_from_binary(ua.OpenSecureChannelRequest, message.body())
        if not self.security.is_open():
            asked = message.SecurityHeader()
            self.security.select_policy(
                asked.SecurityPolicyURI, asked.SenderCertificate, request.Parameters.SecurityMode
            )
        response: Any = ua.OpenSecureChannelResponse()
        response.Parameters = self.security.open(request.Parameters, self)
        self.answer(message.request_id(), request.RequestHeader.RequestHandle, response, kind=_OPEN)

    def get_new_channel_id(self) -> int:
        """Asked for by asyncua's side of OpenSecureChannel."""
        return next(channels)
