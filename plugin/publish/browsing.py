"""Browse, BrowseNext, TranslateBrowsePathsToNodeIds and long answers: bounded in what they cost, with turns for others.

asyncua 2.1.0 has no continuation points and ignores RequestedMaxReferencesPerNode; it walks all reference types anew
for every reference, answers a thousand times the same node a thousand times over, and follows a path to a node once for
every way to it.
"""

import asyncio
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.address_space import AddressSpace, ViewService
from asyncua.ua.ua_binary import struct_to_binary

from plugin.publish.cells import status_code
from plugin.publish.points import Points

NODES = 1000
"""Nodes of one Browse, and paths of one TranslateBrowsePathsToNodeIds."""

POINTS = 100
"""Continuation points of one session at a time."""

_ANSWERED = 25_000
"""References in one answer: some 2.5 MB, and one of each node at least. The rest waits for BrowseNext."""
_LOOKED_AT = 500_000
"""References that are looked at for one answer."""
_ANSWER_BYTES = 16 * 1024 * 1024
"""One answer to Browse or Read; a value that is asked for alone goes whatever its size."""
_ELEMENTS = 10_000
"""Elements of all paths of one request."""
_TARGETS = 1000
"""Nodes to which one path may lead at a time."""
_TURN, _ENCODED = 5000, 100
"""References looked at, and encoded, before the loop has its turn: some 5 ms."""

_COUNT = struct.Struct("<i")


class _Work:
    """References that one request may still have looked at."""

    def __init__(self) -> None:
        self._done = self._turn = 0

    async def spend(self, references: int) -> None:
        """ServiceError BadTooManyOperations where there are none left."""
        if self._done > _LOOKED_AT:
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)
        self._done += references
        if self._done - self._turn >= _TURN:
            self._turn = self._done
            await asyncio.sleep(0)


class Kinds:
    """Which types of reference are meant; a null type: all."""

    def __init__(self, view: ViewService) -> None:
        self._view = view
        self._known: dict[tuple[ua.NodeId, bool], frozenset[ua.NodeId] | None] = {}

    def meant(self, kind: ua.NodeId, subtypes: bool) -> frozenset[ua.NodeId] | None:
        """None: all."""
        if (kind, subtypes) not in self._known:
            below = self._view._get_sub_ref(kind) if subtypes else ()
            self._known[kind, subtypes] = None if kind == ua.NodeId() else frozenset((kind, *below))
        return self._known[kind, subtypes]


# --- Browse ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is left to tell of a node: its references from one on. Nodes gain references at the end, and lose none."""

    asked: ua.BrowseDescription
    most: int
    """In one answer, as the client asks; 0: as many as we like."""
    start: int = 0


async def browse(view: ViewService, params: ua.BrowseParameters, points: Points) -> list[ua.BrowseResult]:
    """ServiceError BadTooManyOperations beyond the bounds, BadViewIdUnknown: there are no views."""
    asked = params.NodesToBrowse or ()
    if len(asked) > NODES:
        raise ServiceError(ua.StatusCodes.BadTooManyOperations)
    if params.View is not None and params.View.ViewId != ua.NodeId():
        raise ServiceError(ua.StatusCodes.BadViewIdUnknown)
    most = int(params.RequestedMaxReferencesPerNode or 0)
    points.begin()
    return await _pages(view, [_Rest(description, most) for description in asked], points)


async def browse_next(view: ViewService, params: ua.BrowseNextParameters, points: Points) -> list[ua.BrowseResult]:
    """As above; a point counts once."""
    tokens = params.ContinuationPoints or ()
    if len(tokens) > NODES:
        raise ServiceError(ua.StatusCodes.BadTooManyOperations)
    points.begin()
    left: list[_Rest | None] = [points.take(None, token) for token in tokens]
    if params.ReleaseContinuationPoints:
        invalid = ua.StatusCodes.BadContinuationPointInvalid
        return [ua.BrowseResult(status_code(invalid if rest is None else ua.StatusCodes.Good)) for rest in left]
    return await _pages(view, left, points)


async def _pages(view: ViewService, asked: Sequence[_Rest | None], points: Points) -> list[ua.BrowseResult]:
    work, kinds, found, answered = _Work(), Kinds(view), list[ua.BrowseResult](), 0
    for rest in asked:
        if rest is None:
            found.append(ua.BrowseResult(status_code(ua.StatusCodes.BadContinuationPointInvalid)))
            continue
        result, more = await _browse(view._aspace, rest, max(1, _ANSWERED - answered), kinds, work)
        if more is not None:
            token = points.keep(None, more)
            none_left = ua.BrowseResult(status_code(ua.StatusCodes.BadNoContinuationPoints))
            result = none_left if token is None else replace(result, ContinuationPoint=token)
        answered += len(result.References)
        found.append(result)
    return found


async def _browse(
    aspace: AddressSpace, rest: _Rest, most: int, kinds: Kinds, work: _Work
) -> tuple[ua.BrowseResult, _Rest | None]:
    """At most so many, and what is left then."""
    asked, most = rest.asked, min(rest.most or most, most)
    if asked.NodeId not in aspace:
        return ua.BrowseResult(status_code(ua.StatusCodes.BadNodeIdUnknown)), None
    references = list(aspace[asked.NodeId].references)
    meant = kinds.meant(asked.ReferenceTypeId, bool(asked.IncludeSubtypes))
    found: list[ua.ReferenceDescription] = []
    for start in range(rest.start, len(references), _TURN):
        some = references[start : start + _TURN]
        await work.spend(len(some))
        for place, each in enumerate(some, start):
            if _wanted(asked, each, meant):
                if len(found) == most:
                    return ua.BrowseResult(References=found), replace(rest, start=place)
                found.append(each)
    return ua.BrowseResult(References=found), None


def _wanted(asked: ua.BrowseDescription, found: ua.ReferenceDescription, meant: frozenset[ua.NodeId] | None) -> bool:
    both = asked.BrowseDirection == ua.BrowseDirection.Both
    if not both and found.IsForward != (asked.BrowseDirection == ua.BrowseDirection.Forward):
        return False
    if meant is not None and found.ReferenceTypeId not in meant:
        return False
    return not asked.NodeClassMask or bool(asked.NodeClassMask & found.NodeClass)


# --- TranslateBrowsePathsToNodeIds -----------------------------------------------------------------------------------


async def translate(view: ViewService, asked: Sequence[ua.BrowsePath]) -> list[ua.BrowsePathResult]:
    """ServiceError BadTooManyOperations beyond the bounds."""
    if len(asked) > NODES or sum(len(path.RelativePath.Elements or ()) for path in asked) > _ELEMENTS:
        raise ServiceError(ua.StatusCodes.BadTooManyOperations)
    paths = _Paths(view)
    return [await paths.follow(path) for path in asked]


_Named = dict[tuple[int, str | None], list[Any]]
"""References by the name of the node that they lead to."""


def _name(name: ua.QualifiedName) -> tuple[int, str | None]:
    return name.NamespaceIndex, name.Name


class _Paths:
    """Those of one request: a node's references are sorted by name once for all of them."""

    def __init__(self, view: ViewService) -> None:
        self._aspace = view._aspace
        self._kinds = Kinds(view)
        self._work = _Work()
        self._named: dict[ua.NodeId, _Named] = {}

    async def follow(self, path: ua.BrowsePath) -> ua.BrowsePathResult:
        elements = path.RelativePath.Elements
        if not elements:
            return ua.BrowsePathResult(status_code(ua.StatusCodes.BadNothingToDo))
        if not elements[-1].TargetName.Name:
            return ua.BrowsePathResult(status_code(ua.StatusCodes.BadBrowseNameInvalid))
        if path.StartingNode not in self._aspace:
            return ua.BrowsePathResult(status_code(ua.StatusCodes.BadNodeIdUnknown))
        reached = [path.StartingNode]
        for element in elements:
            reached = list(dict.fromkeys([target for node in reached for target in await self._step(node, element)]))
            if not reached:
                return ua.BrowsePathResult(status_code(ua.StatusCodes.BadNoMatch))
            if len(reached) > _TARGETS:
                return ua.BrowsePathResult(status_code(ua.StatusCodes.BadTooManyMatches))
        whole = ua.Index(ua.UInt32(0xFFFF_FFFF))
        return ua.BrowsePathResult(Targets=[ua.BrowsePathTarget(target, whole) for target in reached])

    async def _step(self, node: ua.NodeId, element: ua.RelativePathElement) -> list[Any]:
        if node not in self._named:
            self._named[node] = await self._sorted(node)
        meant = self._kinds.meant(element.ReferenceTypeId, bool(element.IncludeSubtypes))
        candidates = self._named[node].get(_name(element.TargetName), [])
        await self._work.spend(1 + len(candidates))
        return [
            each.NodeId
            for each in candidates
            if each.IsForward != element.IsInverse and (meant is None or each.ReferenceTypeId in meant)
        ]

    async def _sorted(self, node: ua.NodeId) -> _Named:
        found: _Named = defaultdict(list)
        references = list(self._aspace[node].references) if node in self._aspace else []
        for start in range(0, len(references), _TURN):
            some = references[start : start + _TURN]
            await self._work.spend(len(some))
            for each in some:
                found[_name(each.BrowseName)].append(each)
        return dict(found)


# --- answers ---------------------------------------------------------------------------------------------------------


async def encode(response: ua.BrowseResponse | ua.ReadResponse) -> bytes:
    """As ``struct_to_binary``, which takes the loop for a second where there are tens of thousands of references.

    ServiceError BadResponseTooLarge beyond the bound.
    """
    bare: bytes = struct_to_binary(replace(response, Results=[]))  # ends with two counts: results, diagnostics
    parts, size = [bare[:-8], _COUNT.pack(len(response.Results))], 0
    for number, part in enumerate(_pieces(response.Results), start=1):
        parts.append(part)
        size += len(part)
        if size > _ANSWER_BYTES and len(response.Results) > 1:
            raise ServiceError(ua.StatusCodes.BadResponseTooLarge)
        if number % _ENCODED == 0:
            await asyncio.sleep(0)
    return b"".join((*parts, bare[-4:]))


def _pieces(results: Sequence[ua.BrowseResult | ua.DataValue]) -> Iterator[bytes]:
    for result in results:
        if isinstance(result, ua.DataValue):
            yield struct_to_binary(result)
            continue
        yield struct_to_binary(replace(result, References=[]))[:-4] + _COUNT.pack(len(result.References))
        yield from map(struct_to_binary, result.References)
