"""How long the keys of a channel to our OPC UA server are good for."""

from typing import Any

import pytest
from asyncua import ua
from asyncua.common.connection import TransportLimits
from asyncua.crypto.security_policies import SecurityPolicyNone

from plugin.publish.asyncua_connection import PlantChannel

_HOUR = 3600.0


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Server:
    def get_new_channel_id(self) -> int:
        return 7


def _opened(lifetime: int, clock: _Clock | None = None) -> tuple[PlantChannel, ua.ChannelSecurityToken]:
    limits = TransportLimits(65535, 65535, 65, 4_000_000)
    channel = PlantChannel(SecurityPolicyNone(), limits, clock=clock or _Clock())
    return channel, _renewed(channel, lifetime, ua.SecurityTokenRequestType.Issue)


def _renewed(channel: PlantChannel, lifetime: int, kind: Any = ua.SecurityTokenRequestType.Renew) -> Any:
    params = ua.OpenSecureChannelParameters(RequestType=kind, RequestedLifetime=ua.UInt32(lifetime))
    return channel.open(params, _Server()).SecurityToken


@pytest.mark.parametrize(("asked", "given"), [(0, 10_000), (60_000, 60_000), (2**32 - 1, 3_600_000)])
def test_a_client_does_not_choose_how_long_for_ever_is(asked: int, given: int) -> None:
    _, token = _opened(asked)
    assert token.RevisedLifetime == given


def test_who_does_not_renew_in_time_is_heard_no_more() -> None:
    clock = _Clock()
    channel, token = _opened(3_600_000, clock)
    header = ua.SymmetricAlgorithmHeader(token.TokenId)
    clock.now = 1.2 * _HOUR
    channel._check_sym_header(header)
    again = ua.SymmetricAlgorithmHeader(_renewed(channel, 3_600_000).TokenId)
    clock.now = 2.4 * _HOUR
    channel._check_sym_header(again)
    clock.now = 2.5 * _HOUR
    with pytest.raises(ua.UaError, match="expired"):
        channel._check_sym_header(again)
