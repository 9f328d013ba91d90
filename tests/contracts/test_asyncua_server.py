"""The private names of asyncua that the OPC UA server is built on: a new version that moves one fails here, by name."""

import inspect
from typing import Any

import pytest
from asyncua import Client, Server
from asyncua.client.ua_session import UaSession
from asyncua.common.connection import SecureConnection
from asyncua.crypto.security_policies import SecurityPolicyFactory
from asyncua.server.address_space import (
    AddressSpace,
    AttributeValue,
    MethodService,
    NodeData,
    NodeManagementService,
    ViewService,
)
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.subscription_service import SubscriptionService
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua import ua_binary

_SIGNATURES = {
    Server.start: "self",
    Server._setup_server_nodes: "self",
    Server._get_bind_socket_info: "self",
    InternalServer.create_session: "self, name, user, external",
    InternalServer.register_external_session: "self, session",
    InternalServer.lookup_external_session: "self, auth_token",
    InternalServer.setup_nodes: "self",
    InternalServer.load_standard_address_space: "self, shelf_file",
    InternalServer.stop: "self",
    ViewService._get_sub_ref: "self, ref",
    InternalSession.__init__: "self, internal_server, aspace, submgr, name, user, external",
    InternalSession.close_session: "self, delete_subs",
    InternalSession.publish: "self, acks",
    InternalSession.republish: "self, params",
    InternalSession.delete_subscriptions: "self, ids",
    InternalSession.transfer_subscriptions: "self, params, callback",
    InternalSession.create_session: "self, params, sockname",
    InternalSession.create_subscription: "self, params, callback, request_callback",
    InternalSubscription.publish_results: "self, requestdata",
    InternalSubscription._pop_publish_result: "self",
    InternalSubscription.start: "self",
    InternalSubscription._subscription_loop: "self",
    InternalSubscription._pop_triggered_statuschanges: "self, result",
    InternalSubscription.republish: "self, nb",
    InternalSubscription.set_publishing_mode: "self, enabled",
    SubscriptionService.create_subscription: "self, params, callback, session_id, request_callback",
    SubscriptionService.transfer_subscriptions: "self, params, session_id, callback",
    SubscriptionService._clamp_lifetime_count: "self, requested",
    SubscriptionService._clamp_keep_alive_count: "self, requested",
    MonitoredItemService.trigger_event: "self, event, mid",
    MonitoredItemService._make_monitored_item_common: "self, params",
    MonitoredItemService._commit_monitored_item: "self, result, mdata",
    MonitoredItemService._set_monitoring_mode: "self, mode, mid",
    MonitoredItemService.delete_monitored_items: "self, ids",
    MonitoredItemService._delete_monitored_items: "self, mid",
    MonitoredItemService.create_monitored_items: "self, params",
    MonitoredItemService.modify_monitored_items: "self, params",
    MonitoredItemService._revise_queue_size: "self, requested",
    InternalSession.activate_session: "self, params, peer_certificate",
    InternalSession.read: "self, params",
    InternalSession.write: "self, params",
    InternalSession.call: "self, params",
    InternalSession.history_read: "self, params",
    SubscriptionService.modify_subscription: "self, params",
    SecureConnection.message_to_binary: "self, message, message_type, request_id",
    SecureConnection.open: "self, params, server",
    SecureConnection._check_sym_header: "self, security_hdr",
    UaProcessor.process: "self, header, body",
    OPCUAProtocol.data_received: "self, data",
    OPCUAProtocol._process_one_msg: "self, header, buf",
    UaProcessor._process_message: "self, typeid, requesthdr, seqhdr, body",
    UaProcessor.forward_publish_response: "self, result, requestdata",
    UaProcessor.get_publish_request: "self, subscription_id",
    UaProcessor.send_response: "self, requesthandle, seqhdr, response, msgtype",
    UaProcessor.set_policies: "self, policies",
    OPCUAProtocol.__init__: "self, iserver, policies, clients, closing_tasks, limits",
    OPCUAProtocol.connection_made: "self, transport",
    BinaryServer.__init__: "self, internal_server, hostname, port, limits",
    BinaryServer._make_protocol: "self",
    BinaryServer._close_tasks: "self",
    NodeManagementService.add_nodes: "self, addnodeitems, user",
    MethodService.stop: "self",
    Client._connect_sequence: "self",
    Client._cancel_task: "task",
    UaSession.read_attributes: "self, nodeids, attr",
    UaSession.write_attributes: "self, nodeids, datavalues, attributeid",
}


@pytest.mark.parametrize("function", _SIGNATURES, ids=lambda function: function.__qualname__)
def test_a_function_that_is_used_or_overridden_takes_what_it_took(function):
    assert ", ".join(inspect.signature(function).parameters) == _SIGNATURES[function]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (InternalServer.__init__, "_external_sessions subscription_service isession aspace time_task max_connections"),
        (InternalServer.__init__, "max_monitored_item_queue_size max_pending_activation_seconds supported_tokens"),
        (InternalServer.__init__, "max_unacked_messages_per_subscription max_subscriptions allow_remote_admin"),
        (InternalSession.__init__, "auth_token session_id external subscription_service iserver"),
        (
            InternalSubscription.__init__,
            "_triggered_datachanges _triggered_statuschanges monitored_item_srv session_id _notification_seq",
        ),
        (InternalSubscription.__init__, "pub_request_callback data _not_acknowledged_results _no_acks_limit _startup"),
        (InternalSubscription.__init__, "_keep_alive_count _publish_cycles_count _publishing_enabled _task _closing"),
        (MonitoredItemService.__init__, "_monitored_items isub aspace"),
        (SubscriptionService.__init__, "subscriptions _sub_id_counter iserver aspace"),
        (UaProcessor.__init__, "_connection _session_watchdog_task session iserver name"),
        (SecureConnection.__init__, "_policies security_policy"),
        (BinaryServer.__init__, "_policies clients closing_tasks limits port"),
        (Server.__init__, "_policies"),
        (SecurityPolicyFactory.__init__, "certificate private_key"),
        (InternalServer.__init__, "endpoints certificate private_key"),
        (AttributeValue.__init__, "value value_callback value_setter datachange_callbacks"),
        (NodeData.__init__, "nodeid attributes references call"),
        (OPCUAProtocol.__init__, "_buffer transport messages"),
        (UaProcessor.__init__, "_transport _publish_results_subs"),
        (Client.__init__, "_renew_channel_task certificate_validator uaclient"),
    ],
)
def test_an_attribute_that_is_used_is_set_at_birth(kind: Any, names: str):
    source = inspect.getsource(kind)
    assert [name for name in names.split() if f"self.{name}" not in source] == []


def test_data_changes_are_reported_by_a_callback_per_handle_that_is_awaited():
    source = inspect.getsource(AddressSpace.write_attribute_value)
    assert "for k, v in attval.datachange_callbacks.items()" in source
    assert "await v(k, value)" in source


def test_what_unpacking_is_guarded_with() -> None:
    assert "struct_from_binary(ua.ReadParameters, body)" in inspect.getsource(UaProcessor._process_message)
    assert "_reshape(value, dimensions)" in inspect.getsource(ua_binary.variant_from_binary)
    assert list(inspect.signature(ua_binary._reshape).parameters) == ["flat", "dims"]
    for made in (ua_binary._create_uatype_array_deserializer, ua_binary.create_uatype_array_serializer):
        assert "hasattr(Primitives1, vtype.name)" in inspect.getsource(made)
