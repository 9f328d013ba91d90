"""How a user is told to a server: the strongest way that it takes, and none that is broken."""

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from plugin.channel import SecureClient
from plugin.errors import SourceRefused

PREFIX = "http://opcfoundation.org/UA/SecurityPolicy#"
NAME, CERTIFICATE, ANYBODY = ua.UserTokenType.UserName, ua.UserTokenType.Certificate, ua.UserTokenType.Anonymous


def token(name: str, kind: ua.UserTokenType, policy: str | None) -> ua.UserTokenPolicy:
    return ua.UserTokenPolicy(name, kind, None, None, PREFIX + policy if policy else policy)


async def chosen(kind: ua.UserTokenType, *offered: ua.UserTokenPolicy) -> tuple[str, str]:
    client = SecureClient("opc.tcp://plc1:4840")
    client.security_policy.URI = SecurityPolicyBasic256Sha256.URI
    client._policy_ids = list(offered)
    found = client.server_policy(kind)
    return str(found.PolicyId), str(found.SecurityPolicyUri).removeprefix(PREFIX)


@pytest.mark.parametrize("empty", [None, ""])
async def test_without_a_policy_of_its_own_a_token_has_the_channels(empty: str | None) -> None:
    assert await chosen(NAME, token("a", NAME, empty)) == ("a", "Basic256Sha256")


async def test_the_strongest_is_taken_wherever_it_stands() -> None:
    offered = [
        token("bare", NAME, "None"),
        token("old", NAME, "Basic128Rsa15"),
        token("good", NAME, "Aes256_Sha256_RsaPss"),
    ]
    for order in (offered, offered[::-1]):
        assert await chosen(NAME, *order) == ("good", "Aes256_Sha256_RsaPss")


async def test_a_bare_password_goes_where_nothing_else_is_taken_and_the_channel_is_checked_elsewhere() -> None:
    assert await chosen(NAME, token("bare", NAME, "None")) == ("bare", "None")


@pytest.mark.parametrize("broken", ["Basic128Rsa15", "Basic256", "Unheard_Of"])
async def test_a_broken_policy_is_refused(broken: str) -> None:
    with pytest.raises(SourceRefused, match=rf"takes no UserName user safely; it takes UserName \({broken}\)"):
        await chosen(NAME, token("old", NAME, broken))


async def test_a_certificate_is_never_sent_without_a_signature() -> None:
    with pytest.raises(SourceRefused, match="takes no Certificate user safely"):
        await chosen(CERTIFICATE, token("bare", CERTIFICATE, "None"))


async def test_kinds_are_not_mixed_up() -> None:
    offered = (token("anybody", ANYBODY, "None"), token("name", NAME, None), token("card", CERTIFICATE, None))
    assert [(await chosen(kind, *offered))[0] for kind in (ANYBODY, NAME, CERTIFICATE)] == ["anybody", "name", "card"]


async def test_anybody_may_be_refused_too() -> None:
    with pytest.raises(SourceRefused, match="takes no Anonymous user safely; it takes UserName"):
        await chosen(ANYBODY, token("name", NAME, None))


async def test_a_small_server_that_names_no_kind_takes_anybody() -> None:
    client = SecureClient("opc.tcp://plc1:4840")
    assert client.server_policy(ANYBODY).PolicyId is None
    with pytest.raises(SourceRefused, match="it takes none"):
        client.server_policy(NAME)
