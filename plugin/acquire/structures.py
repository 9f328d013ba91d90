"""How the structures of a server are made up, asked of the server itself when the first one comes.

Since OPC UA 1.04 a DataType describes itself in its attribute DataTypeDefinition (OPC 10000-3, 8.49 to 8.51). What is
learnt belongs to one connection: after it, the indices of namespaces may have moved, and types have changed.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.contents import Field, Structure, StructureKind, Undescribed, content
from plugin.acquire.measuring import Malformed
from plugin.acquire.reading import Key, key_text
from plugin.acquire.session import translated
from plugin.acquire.wire import read
from plugin.domain import Quality, quality
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_IS_ABSTRACT, _DATA_TYPE, _DEFINITION = 8, 14, 23  # attributes
_HAS_ENCODING, _HAS_SUBTYPE = 38, 45
_STRUCTURE, _VARIANT = 22, 24
_BATCH = 100
_LEVELS = 32  # of types in types, and of types above types
_MOST_TYPES = 5000
_RENEW = 60.0  # [s] a value that fits no description must not have them asked for all the time

_BUILT_IN: dict[Key, int] = {
    **{(0, number): number for number in range(1, 26)},
    **{(0, number): _VARIANT for number in (26, 27, 28)},  # Number, Integer, UInteger
    (0, 29): 6,  # Enumeration: an Int32
}

Type = int | Structure | None
"""Of a field: a built-in type by its number; a structure; None: the server doesn't describe it."""


def _descriptions() -> dict[Key, Structure]:
    """What descriptions are made of themselves, by encoding."""
    field = Structure(
        "StructureField",
        fields=(
            Field("Name", 12), Field("Description", 21), Field("DataType", 17), Field("ValueRank", 6),
            Field("ArrayDimensions", 7, rank=1), Field("MaxStringLength", 7), Field("IsOptional", 1),
        ),
    )  # fmt: skip
    definition = Structure(
        "StructureDefinition",
        fields=(
            Field("DefaultEncodingId", 17), Field("BaseDataType", 17), Field("StructureType", 6),
            Field("Fields", field, rank=1),
        ),
    )  # fmt: skip
    return {(0, 122): definition}


_DESCRIPTIONS = _descriptions()


@dataclass(frozen=True, slots=True)
class _Definition:
    """What the server says of a type."""

    described: Mapping[str, Any] | None
    """Its StructureDefinition; None: it is no structure, or not described."""
    abstract: bool
    base: Key | None
    """The type above it, where it is needed."""


class Structures:
    """What is known of the structures of a server."""

    def __init__(self, source: str, services: Callable[[], UaSession]) -> None:
        self._source = source
        self._services = services
        self._by_encoding: dict[Key, Structure | None] = {}
        self._definitions: dict[Key, _Definition] = {}
        self._types: dict[Key, Type] = {}
        self._renewed = -math.inf

    def forget(self) -> None:
        """Ask anew for all of them."""
        self._by_encoding, self._definitions, self._types = {}, {}, {}

    def outdated(self) -> bool:
        """A value did not fit its description: forget them all, unless that was done a short while ago (False)."""
        now = time.monotonic()
        if now - self._renewed < _RENEW:
            return False
        self._renewed = now
        self.forget()
        return True

    def find(self, encoding: Key) -> Structure | None:
        """See :data:`plugin.acquire.contents.Find`."""
        try:
            return self._by_encoding[encoding]
        except KeyError:
            raise Undescribed(encoding) from None

    async def knowing(self, look: Callable[[], _T]) -> _T:
        """What ``look`` gives; the server is asked for structures that it raises Undescribed for.

        Raises SourceUnreachable where the connection is lost meanwhile. A server that doesn't answer, or not so that
        one could read it, doesn't describe the structure.
        """
        while True:
            try:
                return look()
            except Undescribed as unknown:
                await self._learn(unknown.encoding)

    async def types_of(self, nodes: Sequence[ua.NodeId]) -> list[Type]:
        """The type of each variable's value. Raises SourceUnreachable."""
        services = self._services()
        found: list[Any] = []
        for at in range(0, len(nodes), _BATCH):
            found += await _attributes(services, [(node, _DATA_TYPE) for node in nodes[at : at + _BATCH]])
        keys = [key if isinstance(key, tuple) else (0, _VARIANT) for key in found]
        await self._load(services, keys)
        return [self._type(key) for key in keys]

    async def _learn(self, encoding: Key) -> None:
        structure: Type = None
        try:
            services = self._services()
            types = await _above(services, [encoding], _HAS_ENCODING)
            await self._load(services, types.values())
            structure = self._by_encoding.get(encoding) or self._type(types.get(encoding, (0, 0)))
        except SourceUnreachable as error:
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, TimeoutError):
                raise
            _log.warning("%s: no description of structures %s: %s", self._source, key_text(encoding), error)
        if not isinstance(structure, Structure):
            structure = None
            _log.warning("%s: the server does not describe structures %s", self._source, key_text(encoding))
        self._by_encoding[encoding] = structure

    async def _load(self, services: UaSession, types: Iterable[Key]) -> None:
        """Have the definitions of these types, and of all that they are made of."""
        wanted = set(types)
        for _ in range(_LEVELS):
            new = [key for key in wanted if key not in _BUILT_IN and key not in self._definitions]
            if not new or len(self._definitions) + len(new) > _MOST_TYPES:
                break
            for at in range(0, len(new), _BATCH):
                self._definitions.update(await _definitions(services, new[at : at + _BATCH]))
            wanted = {part for key in new for part in _made_of(self._definitions[key])}
        for key in types:
            self._type(key)

    def _type(self, key: Key, level: int = 0) -> Type:
        """What a value of this DataType is, from the definitions."""
        if key in _BUILT_IN:
            return _BUILT_IN[key]
        if key in self._types:
            return self._types[key]
        definition = self._definitions.get(key)
        if definition is None or level > _LEVELS:
            return None
        if definition.described is None:
            above = self._type(definition.base, level + 1) if definition.base is not None else None
            self._types[key] = above if isinstance(above, int) and above != _STRUCTURE else None
            return self._types[key]
        return self._structure(key, definition, level)

    def _structure(self, key: Key, definition: _Definition, level: int) -> Structure | None:
        described = definition.described or {}
        kind = described["StructureType"]
        if kind not in set(StructureKind):
            self._types[key] = None
            return None
        # known before its fields are: one of them may lead back to it
        found = self._types[key] = Structure(key_text(key), StructureKind(kind), abstract=definition.abstract)
        found.fields = tuple(self._field(field, found.kind, level) for field in self._all_fields(definition))
        if described["DefaultEncodingId"] != (0, 0):
            self._by_encoding[described["DefaultEncodingId"]] = found
        return found

    def _all_fields(self, definition: _Definition, level: int = 0) -> list[Mapping[str, Any]]:
        """With those of the types above, which some servers leave out."""
        own: list[Mapping[str, Any]] = (definition.described or {}).get("Fields") or []
        above = self._definitions.get(definition.base) if definition.base is not None else None
        if above is None or above.described is None or level > _LEVELS:
            return own
        inherited = self._all_fields(above, level + 1)
        names = [field["Name"] for field in inherited]
        return own if [field["Name"] for field in own[: len(names)]] == names else [*inherited, *own]

    def _field(self, field: Mapping[str, Any], kind: StructureKind, level: int) -> Field:
        type_ = self._type(field["DataType"], level + 1)
        if type_ is None or (isinstance(type_, Structure) and type_.abstract):
            type_ = _STRUCTURE
        optional = bool(field["IsOptional"])
        if optional and kind in {StructureKind.SUBTYPED, StructureKind.SUBTYPED_UNION}:
            type_ = _STRUCTURE if isinstance(type_, Structure) else _VARIANT
        rank = max(
            field["ValueRank"], 1 if field["ArrayDimensions"] is not None and len(field["ArrayDimensions"]) else -1
        )
        return Field(str(field["Name"] or ""), type_, rank or -1, optional and kind is StructureKind.OPTIONAL)


def _made_of(definition: _Definition) -> set[Key]:
    """Types that one has to know to know this one."""
    parts = set() if definition.base is None else {definition.base}
    if definition.described is not None:
        parts.update(field["DataType"] for field in definition.described["Fields"] or ())
    return parts


async def _definitions(services: UaSession, keys: Sequence[Key]) -> dict[Key, _Definition]:
    nodes = [_node(key) for key in keys]
    asked = [(node, attribute) for node in nodes for attribute in (_DEFINITION, _IS_ABSTRACT)]
    answers = await _attributes(services, asked)
    described = dict(zip(keys, answers[::2], strict=True))
    abstract = dict(zip(keys, answers[1::2], strict=True))
    bare = [key for key in keys if not isinstance(described[key], dict)]
    bases = await _above(services, bare, _HAS_SUBTYPE)
    return {
        key: _Definition(None, abstract[key] == 1, bases.get(key))
        if key in bases or not isinstance(described[key], dict)
        else _Definition(described[key], abstract[key] == 1, described[key]["BaseDataType"])
        for key in keys
    }


async def _attributes(services: UaSession, asked: Sequence[tuple[ua.NodeId, int]]) -> list[Any]:
    """Contents; None for what is Bad, or can't be read."""
    with translated("read descriptions of types"):
        values = await read(services, asked)
    found: list[Any] = [None] * len(asked)
    for row, value in enumerate(values.value.tolist()):
        found[row] = value
    for row, variant in zip(values.odd.tolist(), values.variants.tolist(), strict=True):
        found[row] = None
        if quality(int(values.status[row])) is not Quality.BAD:
            try:
                found[row] = content(values.body, variant, _DESCRIPTIONS.get)
            except Malformed:
                continue
    return found


async def _above(services: UaSession, keys: Sequence[Key], reference: int) -> dict[Key, Key]:
    """Where an inverse reference leads to, of those nodes that have one."""
    if not keys:
        return {}
    with translated("browse types"):
        results = await services.browse(ua.BrowseParameters(NodesToBrowse=[_upwards(key, reference) for key in keys]))
    return {
        key: (found.References[0].NodeId.NamespaceIndex, found.References[0].NodeId.Identifier)
        for key, found in zip(keys, results, strict=True)
        if found.References
    }


def _upwards(key: Key, reference: int) -> ua.BrowseDescription:
    wanted = ua.BrowseDescription()
    wanted.NodeId = _node(key)
    wanted.BrowseDirection = ua.BrowseDirection.Inverse
    wanted.ReferenceTypeId = ua.NodeId(ua.Int32(reference))
    wanted.IncludeSubtypes = True
    wanted.ResultMask = ua.UInt32(0)
    return wanted


def _node(key: Key) -> ua.NodeId:
    namespace, identifier = key
    return ua.NodeId(identifier, ua.Int16(namespace))  # type: ignore[arg-type]
