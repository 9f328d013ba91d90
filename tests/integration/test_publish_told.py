"""What our server says of itself and of its users' rights is what it does."""

from typing import Any

import pytest
from asyncua import Client, ua

from plugin.publish.nodeset import VERSION
from tests.integration.alarm_plant import URI, plant

_ID, _A = ua.ObjectIds, ua.AttributeIds
_PERMISSIONS = ua.PermissionType
_ROLES = {
    "olga": _ID.WellKnownRole_Observer,
    "otto": _ID.WellKnownRole_Operator,
    "ada": _ID.WellKnownRole_ConfigureAdmin,
}
_READ_ALL = _PERMISSIONS.Browse | _PERMISSIONS.Read


def _standard(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number))


async def _ours(client: Client, name: str) -> ua.NodeId:
    return ua.NodeId(ua.String(name), ua.Int16(await client.get_namespace_index(URI)))


async def _attribute(client: Client, node: ua.NodeId, attribute: ua.AttributeIds) -> Any:
    (found,) = await client.uaclient.session.read_attributes([node], attribute)
    return found


async def _may(client: Client, node: ua.NodeId) -> dict[int, ua.PermissionType]:
    """By the number of the role."""
    found = await _attribute(client, node, _A.UserRolePermissions)
    assert found.StatusCode.is_good(), found.StatusCode
    return {each.RoleId.Identifier: _PERMISSIONS(each.Permissions) for each in found.Value.Value}


async def test_each_user_is_told_what_its_role_may_do_and_the_engineer_what_all_may(tmp_path):
    async with plant(tmp_path) as made:
        for user, role in _ROLES.items():
            async with made.client(user) as client:
                value = await _may(client, await _ours(client, "engine-01.rul.rul"))
                assert value.keys() == {role}
                assert value[role] & _READ_ALL == _READ_ALL
                assert not value[role] & (_PERMISSIONS.Write | _PERMISSIONS.DeleteNode | _PERMISSIONS.ReadHistory)
                for method, least in (
                    (_ID.ConditionType_ConditionRefresh, "olga"),
                    (_ID.AcknowledgeableConditionType_Acknowledge, "otto"),
                    (_ID.ConditionType_Disable, "ada"),
                ):
                    allowed = list(_ROLES).index(user) >= list(_ROLES).index(least)
                    assert bool((await _may(client, _standard(method)))[role] & _PERMISSIONS.Call) is allowed
                    executable = await _attribute(client, _standard(method), _A.UserExecutable)
                    assert executable.Value.Value is allowed
                for method in (_ID.RoleSetType_AddRole, _ID.Server_RequestServerStateChange, _ID.Server_ResendData):
                    there = method == _ID.Server_ResendData
                    for asked in (_A.Executable, _A.UserExecutable):
                        assert (await _attribute(client, _standard(method), asked)).Value.Value is there
                    assert bool((await _may(client, _standard(method)))[role] & _PERMISSIONS.Call) is there
                events = await _may(client, _standard(_ID.AuditWriteUpdateEventType))
                assert bool(events[role] & _PERMISSIONS.ReceiveEvents) is (user == "ada")
                events = await _may(client, _standard(_ID.AlarmConditionType))
                assert events[role] & _PERMISSIONS.ReceiveEvents
                every = await _attribute(client, await _ours(client, "engine-01.rul.rul"), _A.RolePermissions)
                if user == "ada":
                    assert {each.RoleId.Identifier for each in every.Value.Value} >= set(_ROLES.values())
                else:
                    assert every.StatusCode.name == "BadUserAccessDenied"
                nowhere = await _attribute(client, _standard(4711_000), _A.UserRolePermissions)
                assert nowhere.StatusCode.name == "BadNodeIdUnknown"


async def test_namespaces_and_limits_are_told(tmp_path):
    async with plant(tmp_path) as made, made.client("olga") as client:
        told: dict[Any, dict[Any, Any]] = {}
        for node in await client.get_node(_standard(_ID.Server_Namespaces)).get_children():
            told[(await node.read_browse_name()).Name] = {
                (await each.read_browse_name()).Name: await each.read_value() for each in await node.get_properties()
            }
        ours = told[URI]
        assert (ours["NamespaceUri"], ours["NamespaceVersion"], ours["IsNamespaceSubset"]) == (URI, VERSION, False)
        assert ours["NamespacePublicationDate"].year == 2026
        assert ours["StaticNodeIdTypes"] == [ua.IdType.String]
        assert ours["StaticStringNodeIdPattern"] == r"Types\..*"
        assert told["http://opcfoundation.org/UA/DI/"]["IsNamespaceSubset"] is True
        capabilities = "Server_ServerCapabilities_"
        for name, most in (
            ("OperationLimits_MaxNodesPerRead", 10_000), ("OperationLimits_MaxNodesPerBrowse", 1000),
            ("OperationLimits_MaxMonitoredItemsPerCall", 10_000), ("OperationLimits_MaxNodesPerNodeManagement", 0),
            ("MaxBrowseContinuationPoints", 100), ("MaxSessions", 50), ("MaxSubscriptions", 100),
            ("MaxMonitoredItems", 250_000), ("MinSupportedSampleRate", 50.0),
        ):  # fmt: skip
            node = client.get_node(_standard(getattr(_ID, capabilities + name)))
            assert await node.read_value() == most, name
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
            await client.uaclient.read_attributes([_standard(_ID.Server)] * 10_001, _A.BrowseName)
        roles = await client.get_node(_standard(_ID.Server_ServerCapabilities_RoleSet)).get_children()
        assert {node.nodeid.Identifier for node in roles} >= set(_ROLES.values())
