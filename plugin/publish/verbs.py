"""What a person may have the service do through methods: what each takes and answers, who may call it, and its record.

Each call answers at once, with the key of the run that it began or the version that is in force now; how the run ends
is told by the model's node. What a call says of itself goes into the audit log, with the reason where it was refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from asyncua import ua

from plugin.domain import LabelKind, OutputTag
from plugin.errors import ConfigError, ForetagError, ModelError, StoreError
from plugin.publish.arguments import storable
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import status_code
from plugin.publish.people import Permission, caller, running_call
from plugin.publish.tree import Tree
from plugin.publish.types import OURS, Ref

_log = logging.getLogger(__name__)

_SECONDS = 10.0
_LONGEST = 1000
_FOLDER = "Foretag.Methods"
_CODES = ua.StatusCodes
_ID, _T = ua.ObjectIds, ua.VariantType


class Verbs(Protocol):
    """What the service can do. Each raises ForetagError where it can't be done, and says why."""

    async def score(self, model: str) -> int:
        """Begin a run of a model now; its key."""

    async def retrain(self, model: str) -> int:
        """Begin to train a model anew; the run's key. What comes of it is a challenger."""

    async def promote(self, model: str, version: int, user: str) -> int:
        """Put a version in force; its number."""

    async def roll_back(self, model: str, user: str) -> int:
        """Put the version of before in force; its number."""

    async def label(
        self, asset: str, kind: LabelKind, start: datetime, end: datetime | None, note: str, user: str
    ) -> str:
        """Keep what somebody says happened to an asset; its id."""

    async def reload(self, user: str) -> Sequence[str]:
        """Take up the configuration file; what became of it, for a person."""


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    type: ua.VariantType
    text: str
    many: bool = False

    @property
    def described(self) -> ua.Argument:
        kind = _ID.UtcTime if self.type is _T.DateTime else self.type.value
        return ua.Argument(
            ua.String(self.name), ua.NodeId(ua.Int32(kind)), ua.Int32(1 if self.many else -1),
            [ua.UInt32(0)] if self.many else [], ua.LocalizedText(self.text),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    permission: Permission
    takes: tuple[_Argument, ...]
    gives: _Argument
    call: Callable[[Verbs, str, tuple[Any, ...], str], Awaitable[Any]]
    """Of the verbs, what the object is named, the arguments and the user."""


_RUN = _Argument("Run", _T.Int64, "Key of the run that has begun; the model's node tells how it ends")
_VERSION = _Argument("Version", _T.UInt32, "The version that is in force now")
_OF_MODELS = (
    _Method("ScoreNow", Permission.OPERATE, (), _RUN, lambda verbs, model, _, user: verbs.score(model)),
    _Method("Retrain", Permission.ENGINEER, (), _RUN, lambda verbs, model, _, user: verbs.retrain(model)),
    _Method(
        "Promote", Permission.ENGINEER, (_Argument("Version", _T.UInt32, "The version to put in force"),), _VERSION,
        lambda verbs, model, given, user: verbs.promote(model, given[0], user),
    ),
    _Method("RollBack", Permission.ENGINEER, (), _VERSION, lambda verbs, model, _, user: verbs.roll_back(model, user)),
)  # fmt: skip
_KINDS = tuple(kind for kind in LabelKind if kind is not LabelKind.VERDICT)
_LABEL = _Method(
    "Label", Permission.OPERATE,
    (
        _Argument("Kind", _T.String, f"What happened: {', '.join(_KINDS)}"),
        _Argument("Start", _T.DateTime, "Since when, or at which moment"),
        _Argument("End", _T.DateTime, "Until when; null: a moment, or it lasts"),
        _Argument("Note", _T.String, "For whoever trains the model"),
    ),
    _Argument("Id", _T.String, "Of the label"),
    lambda verbs, asset, given, user: verbs.label(asset, *_said(*given), user),
)  # fmt: skip
_RELOAD = _Method(
    "Reload", Permission.ADMINISTER, (), _Argument("Changes", _T.String, "What became of it", many=True),
    lambda verbs, _, given, user: verbs.reload(user),
)  # fmt: skip


class _Wrong(Exception):
    """An argument is not what it should be."""


class Methods:
    """The methods below models, assets and the gateway."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._names: dict[ua.NodeId, str] = {}

    def open(self, tree: Tree, server: PlantServer, tags: Sequence[OutputTag]) -> None:
        """For a server that does not listen yet."""
        folder = tree.id(_FOLDER) if tree.has(_FOLDER) else tree.folder(_FOLDER, "Methods", tree.id("Foretag"))
        for method in (*_OF_MODELS, _LABEL, _RELOAD):
            gives = [method.gives.described]
            takes = [argument.described for argument in method.takes]
            node = tree.method(f"{_FOLDER}.{method.name}", method.name, folder, takes, gives)
            tree.answer(node, self._answer(method))
            server.permit(node, method.permission)
        self._join(tree, "Foretag.Server", "foretag", (_RELOAD,))
        self.extend(tree, tags)

    def extend(self, tree: Tree, tags: Sequence[OutputTag]) -> None:
        """The objects of more outputs are there."""
        for model in dict.fromkeys(tag.model for tag in tags):
            self._join(tree, f"Foretag.Models.{model}", model, _OF_MODELS)
        for asset in dict.fromkeys(tag.asset for tag in tags):
            self._join(tree, f"Foretag.Assets.{asset}", asset, (_LABEL,))

    def _join(self, tree: Tree, owner: str, name: str, methods: Sequence[_Method]) -> None:
        """One method node serves all objects; a call names the object (OPC 10000-4, 5.11.2)."""
        node = tree.id(owner)
        if node not in self._names:
            self._names[node] = name
            for method in methods:
                tree.link(node, _ID.HasComponent, Ref(f"{_FOLDER}.{method.name}", OURS))

    def _answer(self, method: _Method) -> Callable[..., Awaitable[ua.CallMethodResult]]:
        async def answer(owner: ua.NodeId, *given: ua.Variant) -> ua.CallMethodResult:
            name, user = self._names.get(owner), str(caller().name)
            if name is None or not _fits(owner, method):
                return _refused(_CODES.BadMethodInvalid)
            wrong = _misfits(method, given)
            if wrong is not None:
                return wrong
            arguments = tuple(argument.Value for argument in given)
            call = running_call()
            call.subject, call.facts = name, _told(method, arguments)
            try:
                async with asyncio.timeout(_SECONDS):
                    result = await method.call(self._verbs, name, arguments, user)
            except (ForetagError, TimeoutError, _Wrong) as error:
                code, said = _code(error), str(error) or "it took too long"
                _log.warning("%s of %s, asked for by %s: %s", method.name, name, user, said)
                call.facts["refused"] = said
                return _refused(code)
            call.facts[method.gives.name.lower()] = _plain(result)
            value = list(result) if method.gives.many else result
            return ua.CallMethodResult(OutputArguments=[ua.Variant(value, method.gives.type)])

        return answer


def _told(method: _Method, given: Sequence[Any]) -> dict[str, Any]:
    """The arguments, for the audit log."""
    return {argument.name.lower(): _plain(value) for argument, value in zip(method.takes, given, strict=True)}


def _fits(owner: ua.NodeId, method: _Method) -> bool:
    """A method of a model is not one of an asset."""
    kind = "Foretag.Server" if method is _RELOAD else "Foretag.Assets." if method is _LABEL else "Foretag.Models."
    return str(owner.Identifier).startswith(kind)


def _misfits(method: _Method, given: Sequence[ua.Variant]) -> ua.CallMethodResult | None:
    """OPC 10000-4, 5.11.2.2: too few, too many, or of another type."""
    if len(given) != len(method.takes):
        few = len(given) < len(method.takes)
        return _refused(_CODES.BadArgumentsMissing if few else _CODES.BadTooManyArguments)
    results = [_of_argument(value, argument) for value, argument in zip(given, method.takes, strict=True)]
    if any(results):
        made = _refused(_CODES.BadInvalidArgument)
        made.InputArgumentResults = [status_code(code) for code in results]
        return made
    return None


def _of_argument(value: ua.Variant, argument: _Argument) -> int:
    if value.VariantType is not argument.type or value.is_array:
        return int(_CODES.BadTypeMismatch)
    return int(_CODES.Good if storable(value.Value) else _CODES.BadOutOfRange)


def _refused(code: int) -> ua.CallMethodResult:
    return ua.CallMethodResult(status_code(code))


def _code(error: Exception) -> int:
    if isinstance(error, _Wrong):
        return int(_CODES.BadInvalidArgument)
    for kind, code in _REFUSALS.items():
        if isinstance(error, kind):
            return code
    return int(_CODES.BadInvalidState)


_REFUSALS: Mapping[type[Exception], int] = {
    TimeoutError: int(_CODES.BadTimeout),
    StoreError: int(_CODES.BadResourceUnavailable),
    ConfigError: int(_CODES.BadConfigurationError),
    ModelError: int(_CODES.BadInvalidState),
}


def _said(
    kind: str | None, start: datetime | None, end: datetime | None, note: str | None
) -> tuple[LabelKind, datetime, datetime | None, str]:
    """A label's arguments; _Wrong where it can't be one."""
    since, until, words = _time(start), _time(end), note or ""
    if kind not in _KINDS or since is None or len(words) > _LONGEST:
        raise _Wrong(f"needs a kind of {', '.join(_KINDS)}, a start, and a note of {_LONGEST} characters at most")
    now = datetime.now(UTC)
    if since > now or (until is not None and not since < until <= now):
        raise _Wrong("must begin in the past, and end after it began and not in the future; without an end it lasts")
    return LabelKind(kind), since, until, words


def _time(time: datetime | None) -> datetime | None:
    """None for the least time there is, which is null (OPC 10000-6, 5.2.2.5)."""
    if time is None:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time if time.year > ua.get_win_epoch().year else None


def _plain(value: Any) -> Any:
    """For JSON."""
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
