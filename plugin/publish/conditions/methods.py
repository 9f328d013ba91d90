"""The methods of conditions: who may call them, what they do, and which status code says that it can't be done.

The ObjectId of a call is the condition; of the shelf's methods also its ShelvingState (OPC 10000-9, 5.8.17).
"""

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin.domain import Verdict
from plugin.infer.alarms import acts
from plugin.infer.alarms.acts import By, Refusal, Refused
from plugin.infer.alarms.room import Room
from plugin.infer.alarms.state import State, Step
from plugin.publish.arguments import checked
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import status_code
from plugin.publish.people import Permission, caller
from plugin.publish.tree import Tree
from plugin.publish.types import Ref

_ID = ua.ObjectIds
_T = ua.VariantType
_FOLDER = "Foretag.Methods"
_SHELF = ".ShelvingState"
_MOST_CHARACTERS = 1000
"""Of a comment."""

Answer = Callable[..., Coroutine[Any, Any, ua.StatusCode]]
Refresh = Callable[[int, int | None], ua.StatusCode]
_Act = Callable[[State, datetime], Step]


class Methods:
    """``refresh``: to a subscription, or to one of its items."""

    def __init__(self, room: Room, refresh: Refresh) -> None:
        self._room = room
        self._refresh = refresh

    def open(self, tree: Tree, server: PlantServer) -> None:
        """From now on calls are answered, for whoever may."""
        folder = tree.id(_FOLDER) if tree.has(_FOLDER) else tree.folder(_FOLDER, "Methods", tree.id("Foretag"))
        verdict = tree.method(f"{_FOLDER}.Verdict", "Verdict", folder, _VERDICT_ARGUMENTS)
        tree.answer(verdict, self._judge)
        server.permit(verdict, Permission.ALARMS)
        for permission, methods in self._standard().items():
            for number, answer in methods.items():
                node = tree.ref(Ref(number))
                tree.answer(node, answer)
                server.permit(node, permission)

    def _standard(self) -> dict[Permission, dict[int, Answer]]:
        shelf = {
            _ID.ShelvedStateMachineType_TimedShelve: self._shelve,
            _ID.ShelvedStateMachineType_OneShotShelve: self._plain(acts.shelve_once),
            _ID.ShelvedStateMachineType_Unshelve: self._plain(acts.unshelve),
            _ID.AlarmConditionType_ShelvingState_TimedShelve: self._shelve,
            _ID.AlarmConditionType_ShelvingState_OneShotShelve: self._plain(acts.shelve_once),
            _ID.AlarmConditionType_ShelvingState_Unshelve: self._plain(acts.unshelve),
        }
        return {
            Permission.READ: {
                _ID.ConditionType_ConditionRefresh: self._refresh_all,
                _ID.ConditionType_ConditionRefresh2: self._refresh_one,
            },
            Permission.ALARMS: shelf | {
                _ID.AcknowledgeableConditionType_Acknowledge: self._named(acts.acknowledge),
                _ID.AcknowledgeableConditionType_Confirm: self._named(acts.confirm),
                _ID.ConditionType_AddComment: self._named(acts.comment),
                _ID.AlarmConditionType_Suppress: self._plain(lambda state, by: acts.suppress(state, True, by)),
                _ID.AlarmConditionType_Unsuppress: self._plain(lambda state, by: acts.suppress(state, False, by)),
            },
            Permission.ADMINISTER: {
                _ID.ConditionType_Enable: self._plain(acts.enable),
                _ID.ConditionType_Disable: self._plain(acts.disable),
            },
        }  # fmt: skip

    def _named(self, act: Callable[[State, str, By], Step]) -> Answer:
        """Of one notification: EventId and Comment."""

        async def answer(condition: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
            event_id, comment = checked(arguments, _T.ByteString, _T.LocalizedText)
            user, words, event = str(caller().name), _words(comment), (event_id or b"").hex()
            return await self._act(condition, lambda state, now: act(state, event, By(user, now, words)))

        return _answered(answer)

    def _plain(self, act: Callable[[State, By], Step]) -> Answer:
        async def answer(condition: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
            checked(arguments)
            user = str(caller().name)
            return await self._act(condition, lambda state, now: act(state, By(user, now)))

        return _answered(answer)

    @property
    def _shelve(self) -> Answer:
        async def answer(condition: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
            (milliseconds,) = checked(arguments, _T.Double)
            if not 0.0 < milliseconds < 1e12:  # beyond it no timedelta, and no shelf; NaN is refused too
                raise Refused(Refusal.SHELF_TIME)
            user, span = str(caller().name), timedelta(milliseconds=milliseconds)
            return await self._act(condition, lambda state, now: acts.shelve(state, span, By(user, now)))

        return _answered(answer)

    @property
    def _judge(self) -> Answer:
        async def answer(condition: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
            event_id, verdict, comment = checked(arguments, _T.ByteString, _T.String, _T.LocalizedText)
            if verdict not in set(Verdict):
                raise Refused(Refusal.ARGUMENT)
            words = _words(comment) or ""
            event, user = (event_id or b"").hex(), str(caller().name)
            await self._room.judge(_key(condition), event, Verdict(verdict), words, user)
            return ua.StatusCode()

        return _answered(answer)

    async def _act(self, condition: ua.NodeId, act: _Act) -> ua.StatusCode:
        await self._room.act(_key(condition), act)
        return ua.StatusCode()

    @property
    def _refresh_all(self) -> Answer:
        async def answer(_: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
            (subscription,) = checked(arguments, _T.UInt32)
            return self._refresh(subscription, None)

        return _answered(answer)

    @property
    def _refresh_one(self) -> Answer:
        async def answer(_: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
            subscription, item = checked(arguments, _T.UInt32, _T.UInt32)
            return self._refresh(subscription, item)

        return _answered(answer)


_VERDICT_ARGUMENTS = [
    ua.Argument("EventId", ua.NodeId(ua.Int32(_ID.ByteString)), Description=ua.LocalizedText("Of the notification")),
    ua.Argument("Verdict", ua.NodeId(ua.Int32(_ID.String)), Description=ua.LocalizedText(", ".join(Verdict))),
    ua.Argument(
        "Comment", ua.NodeId(ua.Int32(_ID.LocalizedText)), Description=ua.LocalizedText("For whoever trains the model")
    ),
]


def _answered(answer: Answer) -> Answer:
    """With the status code that says why not, where it can't be done."""

    async def call(condition: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
        try:
            return await answer(condition, *arguments)
        except Refused as refused:
            return status_code(getattr(ua.StatusCodes, refused.reason.value))
        except ServiceError as wrong:
            return status_code(wrong.code)

    return call


def _words(comment: ua.LocalizedText | None) -> str | None:
    """None: nothing was said, and an earlier comment stays (OPC 10000-9, 5.5.6)."""
    if comment is None or comment.Text is None or (not comment.Text and not comment.Locale):
        return None
    return str(comment.Text)[:_MOST_CHARACTERS]


def _key(node: ua.NodeId) -> str:
    """Of the condition, or of its shelf."""
    return str(node.Identifier).removesuffix(_SHELF)
