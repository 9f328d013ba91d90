"""What acquisition uses of asyncua beyond its public interface: a release that changes it fails here first."""

import inspect
from importlib.metadata import version
from typing import Any

import pytest
from asyncua import Client
from asyncua.client.ua_client import UaClient, UASocketProtocol
from asyncua.client.ua_session import UaSession
from asyncua.common.connection import SecureConnection
from asyncua.common.utils import Buffer


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (Client._activate_with_credentials, ["self"]),
        (Client._create_and_activate_session, ["self"]),
        (Client._start_renew_loop, ["self"]),
        (Client._cancel_task, ["task"]),
        (Client._add_user_auth, ["self", "params", "username", "password"]),
        (Client.create_session, ["self"]),
        (Client.open_secure_channel, ["self", "renew"]),
        (Client.server_policy, ["self", "token_type"]),
        (UaClient._make_protocol, ["self"]),
        (UaClient.close_session, ["self", "delete_subscriptions"]),
        (UaClient.disconnect_socket, ["self"]),
        (UaSession._send_request, ["self", "request", "timeout", "message_type"]),
        (UaSession.ensure_publish_loop, ["self"]),
        (UaSession.restore_authentication_token, ["self", "token"]),
        (UaSession.reset_authentication_token, ["self"]),
        (SecureConnection.set_channel, ["self", "params", "request_type", "client_nonce"]),
    ],
)
def test_signatures(function: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters


async def test_attributes_of_a_client() -> None:
    client = Client("opc.tcp://localhost:1", timeout=1)
    assert client._renew_channel_task is None
    assert client._server_nonce is None
    assert client._policy_ids == []
    assert client.uaclient.protocol is None
    assert client.uaclient.session._client is client.uaclient
    protocol = client.uaclient._make_protocol()
    assert isinstance(protocol, UASocketProtocol)
    assert isinstance(protocol._connection, SecureConnection)
    assert protocol.transport is None
    assert protocol.receive_buffer is None
    assert protocol._connection._limits.max_message_size == 0
    assert client._policy_ids == []
    assert client.user_certificate is None
    assert client.user_private_key is None
    assert client.certificate_validator is None  # off unless set: our own check comes before the channel


def test_a_tokens_age_is_taken_from_created_at() -> None:
    """Ours to set to the local clock: see the session's mended fault."""
    source = inspect.getsource(SecureConnection._check_sym_header)
    assert "prev_security_token.CreatedAt" in source


def test_the_session_starts_its_publish_loop_by_one_name_only() -> None:
    callers = [
        name for name, code in inspect.getmembers(UaSession, inspect.isfunction) if "_publish_loop(" in _code(code)
    ]
    assert sorted(callers) == ["_publish_loop", "create_subscription", "ensure_publish_loop"]


def _code(function: Any) -> str:
    return inspect.getsource(function)


def test_a_buffer_gives_what_is_left_of_it() -> None:
    buffer = Buffer(b"header, rest")
    buffer.read(8)
    assert bytes(buffer) == b"rest"


def test_the_release_is_the_one_that_was_read() -> None:
    assert version("asyncua") == "2.1.0"
