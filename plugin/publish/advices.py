"""Set-points that wait for an operator, as nodes: ``Assets/<asset>/<model>/<output>Advice``, an AdviceType.

``Approve(Value)`` writes the advice that is shown, if ``Value`` is what it says: an operator approves what they saw,
not what has come since. ``Reject()`` drops it. Both want the role Operator; who it was stands in the audit log. State
is ``none``, ``waiting``, ``approved``, ``written``, ``rejected``, or why it was not written: ``stale``,
``BadNotWritable`` …
"""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from asyncua import ua

from plugin.domain import Status
from plugin.publish import types
from plugin.publish.address_space import model_of
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import Cell, status_code
from plugin.publish.people import Permission, caller
from plugin.publish.targets import Target
from plugin.publish.tree import Tree
from plugin.publish.writeback import WriteBack

_LASTING = frozenset({"waiting", "approved", "written", "dry run"})
"""States in which there is a value to show."""
_REFUSALS = {
    "nothing waits": ua.StatusCodes.BadInvalidState,
    "expired": ua.StatusCodes.BadInvalidState,
    "another value waits": ua.StatusCodes.BadInvalidArgument,
    "writing is off": ua.StatusCodes.BadOutOfService,
}


class Advices:
    """Of all write-backs, which are to be open when this is built. ``now`` gives aware UTC."""

    def __init__(self, write_backs: Sequence[WriteBack], now: Callable[[], datetime]) -> None:
        self._write_backs = tuple(write_backs)
        self._now = now
        self._cells: dict[Target, dict[str, Cell]] = {}

    def build(self, tree: Tree, server: PlantServer) -> None:
        """Nodes for all targets that have none yet."""
        for sink in self._write_backs:
            for target in sink.targets:
                if target.rule.approval and target not in self._cells:
                    self._add(tree, server, sink, target)
            sink.tell = self.show

    def expire(self) -> None:
        """What waits past its time is withdrawn, also while its plant's server is away."""
        for sink in self._write_backs:
            sink.expire()

    def close(self) -> None:
        """The nodes are no longer there."""
        self._cells.clear()

    def show(self, target: Target, state: str) -> None:
        """See :attr:`WriteBack.tell`."""
        cells, now = self._cells.get(target), self._now()
        if cells is None:
            return
        cells["State"].note(state, now, now)
        if state not in _LASTING:
            cells["Value"].note(None, now, now, Status.BAD_NO_DATA)
            cells["ValidUntil"].note(None, now, now, Status.BAD_NO_DATA)
        elif state == "waiting" and target.advised is not None:
            value = target.advised.value
            cells["Value"].write(value.number, value.status, min(value.source_time, now), now)
            cells["ValidUntil"].note(target.advised.valid_until, now, now)

    def _add(self, tree: Tree, server: PlantServer, sink: WriteBack, target: Target) -> None:
        name, label = _free_name(tree, target)
        node = tree.object(name, label, model_of(tree, target.tag), types.ADVICE.id)
        facts = {"State": "none", "Source": target.rule.source, "Target": target.node}
        self._cells[target] = {
            member.name.text: tree.member(name, member, facts.get(member.name.text)) for member in types.ADVICE.members
        }
        number = ua.NodeId(ua.Int32(ua.ObjectIds.Double))
        seen = ua.Argument("Value", number, ua.Int32(-1), [], ua.LocalizedText("The value that you approve."))
        for text, arguments, call in (("Approve", [seen], _approve), ("Reject", [], _reject)):
            method = tree.method(f"{name}.{text}", text, node, arguments)
            server.permit(method, Permission.OPERATE)
            tree.answer(method, _asynchronous(partial(call, sink, target, node)))


def _free_name(tree: Tree, target: Target) -> tuple[str, str]:
    """A second target of one output has a number."""
    for number in range(1, 1000):
        suffix = "Advice" if number == 1 else f"Advice{number}"
        if not tree.has(f"{target.tag.name}.{suffix}"):
            return f"{target.tag.name}.{suffix}", f"{target.tag.output}{suffix}"
    raise ua.UaError(f"{target.tag.name} is advised to more than 1000 nodes")


def _asynchronous(call: Callable[..., ua.StatusCode]) -> Callable[..., Any]:
    """asyncua runs what is no coroutine in a thread, where :func:`caller` knows nobody."""

    async def answer(*given: Any) -> ua.StatusCode:
        return call(*given)

    return answer


def _approve(sink: WriteBack, target: Target, node: ua.NodeId, called: ua.NodeId, *given: ua.Variant) -> ua.StatusCode:
    if called != node:
        return status_code(ua.StatusCodes.BadMethodInvalid)
    if len(given) != 1:
        return status_code(ua.StatusCodes.BadArgumentsMissing if not given else ua.StatusCodes.BadTooManyArguments)
    number = given[0].Value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return status_code(ua.StatusCodes.BadInvalidArgument)
    return _answer(sink.approve(target, float(number), str(caller().name)))


def _reject(sink: WriteBack, target: Target, node: ua.NodeId, called: ua.NodeId, *given: ua.Variant) -> ua.StatusCode:
    if called != node or given:
        return status_code(ua.StatusCodes.BadMethodInvalid if called != node else ua.StatusCodes.BadTooManyArguments)
    return _answer(sink.reject(target, str(caller().name)))


def _answer(refusal: str) -> ua.StatusCode:
    return status_code(_REFUSALS[refusal]) if refusal else ua.StatusCode()
