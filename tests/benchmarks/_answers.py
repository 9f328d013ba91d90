"""What a scripted plant says of itself; and, by hand, the encodings of which it needs many."""

import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyFactory
from cryptography.hazmat.primitives.serialization import Encoding

from tests.benchmarks._notifications import URI, Tag

_TICKS_TO_1970 = 116_444_736_000_000_000
_RESULT = struct.Struct("<IIdIHB")  # MonitoredItemCreateResult: status, id, sampling, queue, no filter result
_NODE_UNKNOWN = 0x80340000
_IDS = {0: 2, 1: 4, 2: 7, 4: 19}
"""Length of an encoded NodeId by its first byte, where that says it all."""


def now_ticks() -> int:
    """Our clock [100 ns since 1601]."""
    return time.time_ns() // 100 + _TICKS_TO_1970


def good(kind: int, handle: int) -> bytes:
    """Type and ResponseHeader of a Good answer."""
    return struct.pack("<BBHqIIBiHB", 1, 0, kind, now_ticks(), handle, 0, 0, -1, 0, 0)


def asked_items(body: bytes, count: int) -> Iterator[tuple[int, Tag | None, float, int]]:
    """Client handle, tag (None: there is no such node), sampling and queue of each MonitoredItemCreateRequest."""
    at = 0
    for _ in range(count):
        tag, at = _node(body, at)
        at += 4  # attribute
        for skipped in (0, 2):  # index range; data encoding
            (length,) = struct.unpack_from("<i", body, at + skipped)
            at += skipped + 4 + max(length, 0)
        handle, sampling = struct.unpack_from("<4xId", body, at)
        _, at = _node(body, at + 16)
        if body[at]:  # a filter
            at += 4 + int.from_bytes(body[at + 1 : at + 5], "little")
        (queue,) = struct.unpack_from("<I", body, at + 1)
        at += 6
        yield handle, tag, sampling, queue


def _node(body: bytes, at: int) -> tuple[Tag | None, int]:
    """The tag of a NodeId, and where it ends."""
    if body[at] != 3:
        return None, at + _IDS[body[at]]
    end = at + 7 + int.from_bytes(body[at + 3 : at + 7], "little")
    try:
        return Tag.named(body[at + 7 : end].decode()), end
    except ValueError:
        return None, end


def created(number: int, tag: Tag | None, sampling: float, queue: int) -> bytes:
    """A MonitoredItemCreateResult."""
    return _RESULT.pack(0 if tag else _NODE_UNKNOWN, number, sampling, queue, 0, 0)


def described(node: Any) -> ua.DataValue:
    """What the server says of itself."""
    ids, kinds = ua.ObjectIds, ua.VariantType
    now = datetime.now(UTC)
    known: dict[int, tuple[Any, Any]] = {
        ids.Server_NamespaceArray: (["http://opcfoundation.org/UA/", URI], kinds.String),
        ids.Server_ServerArray: ([URI], kinds.String),
        ids.Server_ServerStatus_State: (0, kinds.Int32),
        ids.Server_ServerStatus_StartTime: (now, kinds.DateTime),
        ids.Server_ServerStatus_CurrentTime: (now, kinds.DateTime),
    }
    if node.NamespaceIndex or node.Identifier not in known:
        return ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNodeIdUnknown)))
    return ua.DataValue(ua.Variant(*known[node.Identifier]))


def endpoint(address: str, policy: SecurityPolicyFactory) -> Any:
    found: Any = ua.EndpointDescription()
    found.EndpointUrl = address
    found.Server.ApplicationUri = found.Server.ProductUri = URI
    found.Server.ApplicationName = ua.LocalizedText(ua.String("scripted plant"))
    found.Server.DiscoveryUrls = [address]
    found.ServerCertificate = policy.certificate.public_bytes(Encoding.DER) if policy.certificate else None
    found.SecurityMode, found.SecurityPolicyUri = policy.mode, policy.cls.URI
    found.TransportProfileUri = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
    anonymous: Any = ua.UserTokenPolicy()
    anonymous.PolicyId, anonymous.TokenType = "anonymous", ua.UserTokenType.Anonymous
    found.UserIdentityTokens = [anonymous]
    return found
