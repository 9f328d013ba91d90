"""RolePermissions and UserRolePermissions: what each role may do with a node, as the server enforces it.

OPC 10000-3, 5.2.9 and 8.55; the roles are those of :mod:`plugin.publish.people`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace, NodeData

from plugin.publish.people import Permission, Role, may
from plugin.publish.ranges import no_value

_A, _MAY = ua.AttributeIds, ua.PermissionType
ASKED = frozenset((_A.RolePermissions, _A.UserRolePermissions, _A.Executable, _A.UserExecutable))
"""Attributes that depend on who asks, or on what the server enforces."""
_ROLES: Mapping[Role, int] = {
    Role.OBSERVER: ua.ObjectIds.WellKnownRole_Observer,
    Role.OPERATOR: ua.ObjectIds.WellKnownRole_Operator,
    Role.ENGINEER: ua.ObjectIds.WellKnownRole_Engineer,
    Role.ADMINISTRATOR: ua.ObjectIds.WellKnownRole_ConfigureAdmin,
}
_AUDIT = ua.NodeId(ua.Int32(ua.ObjectIds.AuditEventType))
_EVENT = ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType))


def read(
    space: AddressSpace, asked: ua.ReadValueId, role: Role | None, permission: Callable[[ua.NodeId], Permission]
) -> ua.DataValue:
    """One of :data:`ASKED`, for a user of this role; ``permission``: what a method asks for."""
    node = space.get(asked.NodeId)
    if node is None:
        return no_value(ua.StatusCodes.BadNodeIdUnknown)
    if asked.AttributeId in {_A.Executable, _A.UserExecutable}:
        if _fact(node, _A.Executable) is None:
            return no_value(ua.StatusCodes.BadAttributeIdInvalid)
        allowed = asked.AttributeId == _A.Executable or may(role, permission(asked.NodeId))
        return ua.DataValue(ua.Variant(node.call is not None and allowed, ua.VariantType.Boolean))
    if asked.AttributeId == _A.UserRolePermissions:
        roles: Iterable[Role] = [] if role is None else [role]
    elif not may(role, Permission.AUDIT):
        return no_value(ua.StatusCodes.BadUserAccessDenied)
    else:
        roles = Role
    told = [_told(each, _permissions(space, asked.NodeId, node, each, permission)) for each in roles]
    return ua.DataValue(ua.Variant(told, ua.VariantType.ExtensionObject, is_array=True))


def _told(role: Role, permissions: ua.PermissionType) -> ua.RolePermissionType:
    return ua.RolePermissionType(ua.NodeId(ua.Int32(_ROLES[role])), permissions)


def _permissions(
    space: AddressSpace, name: ua.NodeId, node: NodeData, role: Role, permission: Callable[[ua.NodeId], Permission]
) -> ua.PermissionType:
    found = _MAY.Browse
    levels, notifier = _fact(node, _A.AccessLevel), _fact(node, _A.EventNotifier) or 0
    kind = _fact(node, _A.NodeClass)
    granted = (
        (levels is not None and levels & ua.AccessLevel.CurrentRead.mask, Permission.READ, _MAY.Read),
        ((levels or 0) & ua.AccessLevel.HistoryRead.mask, Permission.HISTORY, _MAY.ReadHistory),
        (notifier & ua.EventNotifier.HistoryRead.mask, Permission.HISTORY, _MAY.ReadHistory),
        (notifier & ua.EventNotifier.SubscribeToEvents.mask, Permission.READ, _MAY.ReceiveEvents),
        (kind == ua.NodeClass.Method and node.call is not None, permission(name), _MAY.Call),
        (True, Permission.AUDIT, _MAY.ReadRolePermissions),
    )
    for there, needed, bit in granted:
        if there and may(role, needed):
            found |= bit
    return found | _of_event_type(space, name, role) if kind == ua.NodeClass.ObjectType else found


def _of_event_type(space: AddressSpace, name: ua.NodeId, role: Role) -> ua.PermissionType:
    """Who hears events of this type (OPC 10000-3, 8.55: ReceiveEvents)."""
    above = set(_above(space, name))
    needed = Permission.AUDIT if _AUDIT in above else Permission.READ
    return _MAY.ReceiveEvents if _EVENT in above and may(role, needed) else _MAY(0)


def _above(space: AddressSpace, name: ua.NodeId | None) -> Iterable[ua.NodeId]:
    """A type and all that it derives from."""
    while name is not None:
        yield name
        supertypes = (
            each.NodeId
            for each in space[name].references
            if not each.IsForward and each.ReferenceTypeId.Identifier == ua.ObjectIds.HasSubtype
        )
        name = next(supertypes, None)


def _fact(node: NodeData, attribute: ua.AttributeIds) -> Any:
    found = node.attributes.get(attribute)
    value = found.value if found is not None else None
    return value.Value.Value if value is not None and value.Value is not None else None
