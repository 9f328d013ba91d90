"""Looking at a server before it is used: its endpoints, its variables, and each tag's value once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.client.ua_session import UaSession

from plugin import pki
from plugin.acquire.config import SourceConfig
from plugin.acquire.items import in_batches
from plugin.acquire.server import ServerInfo, describe, node_text, resolve
from plugin.acquire.session import ServiceFault, one_shot, status_name, translated
from plugin.channel import first_certificate
from plugin.domain import Quality, Tag, quality

_IDS = ua.ObjectIds
_BATCH = 200
_MAX_DEPTH = 20
_NODE_UNKNOWN = int(ua.StatusCodes.BadNodeIdUnknown)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way that a server offers to connect."""

    url: str
    policy: str
    """As the configuration writes it: ``Basic256Sha256``, ``None`` …"""
    mode: str
    users: tuple[str, ...]
    """Kinds of user that it takes: ``Anonymous``, ``UserName``, ``Certificate``."""
    thumbprint: str
    """Of the server's certificate; empty where it shows none."""
    certificate: bytes = field(repr=False)
    application_uri: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A variable and its present value. What could not be read is empty; :attr:`status` says why."""

    node: str
    """By namespace URI, as the configuration writes it."""
    path: str
    """Browse names from the Objects folder, joined by ``/``; empty where it was not browsed."""
    type: str
    unit: str
    low: float | None
    high: float | None
    value: Any
    status: int
    """Full StatusCode of the value, or of the refusal."""
    description: str = ""

    @property
    def good(self) -> bool:
        return quality(self.status) is Quality.GOOD

    @property
    def status_name(self) -> str:
        return status_name(self.status)


async def endpoints(url: str, wait: float = 10.0) -> tuple[Endpoint, ...]:
    """What the server at ``url`` offers; nothing is trusted yet. Raises SourceUnreachable. ``wait`` [s] per answer."""
    client = Client(url, timeout=wait)
    with translated(f"ask {url} for its endpoints"):
        offered = await client.connect_and_get_server_endpoints()
    return tuple(_endpoint(offer) for offer in offered)


def _endpoint(offer: ua.EndpointDescription) -> Endpoint:
    certificate = first_certificate(offer.ServerCertificate) if offer.ServerCertificate else b""
    users = tuple(sorted({token.TokenType.name for token in offer.UserIdentityTokens}))
    return Endpoint(
        str(offer.EndpointUrl),
        str(offer.SecurityPolicyUri).rpartition("#")[2],
        offer.SecurityMode.name.rstrip("_"),
        users,
        pki.thumbprint(certificate) if certificate else "",
        certificate,
        str(offer.Server.ApplicationUri),
    )


async def read_once(
    config: SourceConfig, tags: Sequence[Tag], pki_folder: Path, application_uri: str = "urn:foretag"
) -> tuple[Reading, ...]:
    """Each tag once, in order; a node that is unknown shows in its own reading only."""
    async with one_shot(config, pki_folder, application_uri) as session:
        services = session.services
        info = await describe(services)
        nodes = [resolve(tag.node, info.namespaces) for tag in tags]
        found = {tag.node: node for tag, node in zip(tags, nodes, strict=True) if node is not None}
        readings = await _read(services, info, dict.fromkeys(found.values(), ""))
        by_node = dict(zip(found, readings, strict=True)) if len(readings) == len(found) else {}
    return tuple(by_node.get(tag.node) or _unknown(tag.node) for tag in tags)


async def build_info(config: SourceConfig, pki_folder: Path, application_uri: str = "urn:foretag") -> tuple[str, ...]:
    """What the server says of its maker, its product and the product's URI (BuildInfo); empty where it doesn't."""
    wanted = (
        _IDS.Server_ServerStatus_BuildInfo_ManufacturerName,
        _IDS.Server_ServerStatus_BuildInfo_ProductName,
        _IDS.Server_ServerStatus_BuildInfo_ProductUri,
    )
    async with one_shot(config, pki_folder, application_uri) as session:
        values = await _attributes(
            session.services, [(ua.NodeId(ua.Int32(number)), ua.AttributeIds.Value) for number in wanted]
        )
    return tuple(str(_content(value) or "") for value in values)


async def browse(
    config: SourceConfig,
    pki_folder: Path,
    application_uri: str = "urn:foretag",
    *,
    under: str = "",
    match: str = "*",
    limit: int = 100_000,
) -> tuple[Reading, ...]:
    """All variables under the Objects folder, without the Server object and without properties; at most ``limit``.

    ``under``: only below this path (and nothing beside it is asked for); ``match``: wildcards that the path fits.
    """
    async with one_shot(config, pki_folder, application_uri) as session:
        services = session.services
        info = await describe(services)
        variables: dict[ua.NodeId, str] = {}
        seen = {ua.NodeId(ua.Int32(_IDS.ObjectsFolder)), ua.NodeId(ua.Int32(_IDS.Server))}
        level = {ua.NodeId(ua.Int32(_IDS.ObjectsFolder)): ""}
        for _ in range(_MAX_DEPTH):
            below: dict[ua.NodeId, str] = {}
            for parent, reference in await _references(services, info, list(level)):
                node = ua.NodeId(reference.NodeId.Identifier, reference.NodeId.NamespaceIndex)
                if node in seen or _is_property(reference) or len(variables) >= limit:
                    continue
                seen.add(node)
                name = str(reference.BrowseName.Name)
                path = f"{level[parent]}/{name}" if level[parent] else name
                if not (_lies(path, under) or _lies(under, path)):
                    continue
                below[node] = path
                if reference.NodeClass == ua.NodeClass.Variable and _lies(path, under) and fnmatchcase(path, match):
                    variables[node] = path
            if not below:
                break
            level = below
        return tuple(await _read(services, info, variables))


def _lies(path: str, under: str) -> bool:
    """Whether a path is another one, or below it."""
    return not under or path == under or path.startswith(f"{under}/")


def _is_property(reference: ua.ReferenceDescription) -> bool:
    kind = reference.ReferenceTypeId
    return not kind.NamespaceIndex and kind.Identifier == _IDS.HasProperty


async def _references(
    services: UaSession, info: ServerInfo, nodes: Sequence[ua.NodeId]
) -> list[tuple[ua.NodeId, ua.ReferenceDescription]]:
    """Objects and variables that the nodes have (HierarchicalReferences but not properties), all pages of them."""
    found: list[tuple[ua.NodeId, ua.ReferenceDescription]] = []

    async def call(part: Sequence[ua.NodeId]) -> None:
        with translated("browse"):
            results = await services.browse(ua.BrowseParameters(NodesToBrowse=[_browse_all(node) for node in part]))
            pending = list(zip(part, results, strict=True))
            while pending:
                for node, result in pending:
                    found.extend((node, reference) for reference in result.References or ())
                pending = [(node, result) for node, result in pending if result.ContinuationPoint]
                if pending:
                    points = [result.ContinuationPoint for _, result in pending]
                    going_on = ua.BrowseNextParameters(ReleaseContinuationPoints=False, ContinuationPoints=points)
                    more = await services.browse_next(going_on)
                    pending = [(node, result) for (node, _), result in zip(pending, more, strict=True)]

    await in_batches(nodes, _BATCH, call)
    return found


def _browse_all(node: ua.NodeId) -> ua.BrowseDescription:
    wanted = ua.BrowseDescription()
    wanted.NodeId = node
    wanted.BrowseDirection = ua.BrowseDirection.Forward
    wanted.ReferenceTypeId = ua.NodeId(ua.Int32(_IDS.HierarchicalReferences))
    wanted.IncludeSubtypes = True
    wanted.NodeClassMask = ua.UInt32(ua.NodeClass.Object | ua.NodeClass.Variable)
    wanted.ResultMask = ua.UInt32(ua.BrowseResultMask.All)
    return wanted


async def _read(services: UaSession, info: ServerInfo, nodes: dict[ua.NodeId, str]) -> list[Reading]:
    """Value, type, description, unit and range of each node."""
    found: list[Reading] = []
    batch = min(_BATCH, (info.nodes_per_read or _BATCH * 5) // 5 or 1)

    async def call(part: Sequence[ua.NodeId]) -> None:
        properties = await _properties(services, part)
        asked = [(node, ua.AttributeIds.Value) for node in part]
        asked += [(node, ua.AttributeIds.DataType) for node in part]
        asked += [(node, ua.AttributeIds.Description) for node in part]
        asked += [(node, ua.AttributeIds.Value) for both in properties for node in both if node is not None]
        values = await _attributes(services, asked)
        size = len(part)
        extra = iter(values[3 * size :])
        for index, node in enumerate(part):
            unit, span = (_content(next(extra)) if wanted is not None else None for wanted in properties[index])
            found.append(
                _reading(
                    node, info, nodes[node], values[index], values[size + index], values[2 * size + index], unit, span
                )
            )

    await in_batches(list(nodes), batch, call)
    return found


async def _properties(
    services: UaSession, nodes: Sequence[ua.NodeId]
) -> list[tuple[ua.NodeId | None, ua.NodeId | None]]:
    """EngineeringUnits and EURange of each node; None where it has none."""
    paths = [_property_path(node, name) for node in nodes for name in ("EngineeringUnits", "EURange")]
    try:
        with translated("look for units and ranges"):
            results = await services.translate_browsepaths_to_nodeids(paths)
    except ServiceFault:
        return [(None, None)] * len(nodes)
    ids = [_target(result) for result in results]
    return list(zip(ids[::2], ids[1::2], strict=True))


def _property_path(node: ua.NodeId, name: str) -> ua.BrowsePath:
    element = ua.RelativePathElement()
    element.ReferenceTypeId = ua.NodeId(ua.Int32(_IDS.HasProperty))
    element.IsInverse, element.IncludeSubtypes = False, True  # type: ignore[assignment]
    element.TargetName = ua.QualifiedName(ua.String(name), ua.UInt16(0))
    return ua.BrowsePath(node, ua.RelativePath([element]))


def _target(result: ua.BrowsePathResult) -> ua.NodeId | None:
    if result.StatusCode.is_bad() or not result.Targets:
        return None
    target = result.Targets[0].TargetId
    return ua.NodeId(target.Identifier, target.NamespaceIndex)


async def _attributes(services: UaSession, asked: Iterable[tuple[ua.NodeId, ua.AttributeIds]]) -> list[ua.DataValue]:
    parameters = ua.ReadParameters()
    parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node, attribute in asked]
    with translated("read"):
        return await services.read(parameters)


def _reading(
    node: ua.NodeId,
    info: ServerInfo,
    path: str,
    value: ua.DataValue,
    kind: ua.DataValue,
    description: ua.DataValue,
    unit: Any,
    span: Any,
) -> Reading:
    status = int(value.StatusCode.value) if value.StatusCode is not None else 0
    text = _content(description)
    return Reading(
        node_text(node, info.namespaces),
        path,
        _type_name(_content(kind)),
        str(unit.DisplayName.Text or "") if isinstance(unit, ua.EUInformation) else "",
        float(span.Low) if isinstance(span, ua.Range) else None,
        float(span.High) if isinstance(span, ua.Range) else None,
        None if quality(status) is Quality.BAD else _content(value),
        status,
        str(text.Text or "") if isinstance(text, ua.LocalizedText) else "",
    )


def _content(value: ua.DataValue) -> Any:
    return value.Value.Value if value.Value is not None else None


def _type_name(kind: Any) -> str:
    """Name of a built-in data type; the NodeId of another."""
    if not isinstance(kind, ua.NodeId):
        return ""
    if not kind.NamespaceIndex and isinstance(kind.Identifier, int):
        return _BUILT_IN.get(kind.Identifier, f"i={kind.Identifier}")
    return str(kind.to_string())


_BUILT_IN = {kind.value: kind.name for kind in ua.VariantType} | {
    26: "Number",
    27: "Integer",
    28: "UInteger",
    290: "Duration",
}


def _unknown(node: str) -> Reading:
    return Reading(node, "", "", "", None, None, None, _NODE_UNKNOWN)
