"""What kinds of nodes our server has: the one description that the server and the NodeSet2 file are made from.

Types of our own derive from the standard's, so that a client that knows those alone shows unit, range and states of a
prediction; what else it says stands in members of its own. Of OPC 10000-100 (Devices, DI) there is only what is used
here, under the numeric ids of the OPC Foundation's ``Opc.Ua.Di.NodeIds.csv``.
"""

from dataclasses import dataclass

from asyncua import ua

STANDARD = "http://opcfoundation.org/UA/"
DI = "http://opcfoundation.org/UA/DI/"
OURS = "urn:foretag:predictions"
"""Namespace URI of all our nodes."""

_ID = ua.ObjectIds


@dataclass(frozen=True, slots=True)
class Name:
    """A BrowseName by namespace URI."""

    text: str
    namespace: str = OURS


@dataclass(frozen=True, slots=True)
class Ref:
    """A NodeId by namespace URI: numeric in the standards, a text in ours."""

    id: int | str
    namespace: str = STANDARD


PROPERTY = Ref(_ID.PropertyType)
COMPONENT = Ref(_ID.BaseDataVariableType)
BOOLEAN, DOUBLE, STRING, UINT32 = Ref(_ID.Boolean), Ref(_ID.Double), Ref(_ID.String), Ref(_ID.UInt32)
INT32, NODE_ID, TEXT = Ref(_ID.Int32), Ref(_ID.NodeId), Ref(_ID.LocalizedText)
UTC_TIME, DURATION, NUMBER = Ref(_ID.UtcTime), Ref(_ID.Duration), Ref(_ID.Number)

_BUILT_IN = {
    UTC_TIME: ua.VariantType.DateTime,
    DURATION: ua.VariantType.Double,
    NUMBER: ua.VariantType.Double,
    Ref(_ID.BaseDataType): ua.VariantType.Double,
    Ref(_ID.Range): ua.VariantType.ExtensionObject,
    Ref(_ID.Argument): ua.VariantType.ExtensionObject,
    Ref(_ID.EUInformation): ua.VariantType.ExtensionObject,
    Ref(_ID.EnumValueType): ua.VariantType.ExtensionObject,
    Ref(_ID.Argument): ua.VariantType.ExtensionObject,
    Ref(6244, DI): ua.VariantType.Int32,
    Ref(_ID.IdType): ua.VariantType.Int32,
    Ref(_ID.NumericRange): ua.VariantType.String,
}
"""How values of derived and abstract data types are encoded."""


def encoding(data_type: Ref) -> ua.VariantType:
    """How values of a data type are encoded."""
    return _BUILT_IN.get(data_type) or ua.VariantType(int(data_type.id))


@dataclass(frozen=True, slots=True)
class Member:
    """A variable that belongs to every instance of a type, or may."""

    name: Name
    data_type: Ref
    kind: Ref = PROPERTY
    many: bool = False
    mandatory: bool = True
    id: Ref | None = None
    """Of its declaration in the standard that has it; elsewhere it is below the type's own."""

    @property
    def reference(self) -> int:
        """How its owner refers to it."""
        return _ID.HasProperty if self.kind == PROPERTY else _ID.HasComponent

    @property
    def concrete(self) -> Ref:
        """Data type of instances."""
        return DOUBLE if self.data_type == NUMBER else self.data_type

    @property
    def variant(self) -> ua.VariantType:
        """Encoding of its values."""
        return encoding(self.data_type)


@dataclass(frozen=True, slots=True)
class Type:
    """A variable type, object type or data type."""

    id: Ref
    name: Name
    above: Ref
    """What it derives from."""
    node_class: ua.NodeClass
    members: tuple[Member, ...] = ()
    text: str = ""
    data_type: Ref | None = None
    many: bool = False
    abstract: bool = False
    interfaces: tuple[Ref, ...] = ()
    names: tuple[str, ...] = ()
    """Of an enumeration: its values from 0 on."""

    def declaration(self, member: Member) -> Ref:
        """Where the type declares a member."""
        if member.id is not None and member.id.namespace == self.id.namespace:
            return member.id
        return Ref(f"{self.id.id}.{member.name.text}", self.id.namespace)


def _of_di(text: str, number: int) -> tuple[Ref, Name]:
    return Ref(number, DI), Name(text, DI)


def _of_ours(text: str) -> tuple[Ref, Name]:
    return Ref(f"Types.{text}", OURS), Name(text)


DEVICE_HEALTH = Member(Name("DeviceHealth", DI), Ref(6244, DI), COMPONENT, mandatory=False, id=Ref(15052, DI))
"""OPC 10000-100, 4.5.4."""

START_VALUE = Member(Name("StartValue", DI), NUMBER, id=Ref(469, DI))
LIMIT_VALUE = Member(Name("LimitValue", DI), NUMBER, id=Ref(470, DI))
INDICATION = Member(Name("Indication", DI), NODE_ID, mandatory=False, id=Ref(471, DI))
WARNING_VALUES = Member(Name("WarningValues", DI), NUMBER, many=True, mandatory=False, id=Ref(472, DI))

_INDICATION_TYPES = (("TimeIndicationType", 474), ("NumberOfUsagesIndicationType", 476), ("LengthIndicationType", 477))

DI_TYPES = (
    Type(
        *_of_di("DeviceHealthEnumeration", 6244), Ref(_ID.Enumeration), ua.NodeClass.DataType,
        names=("NORMAL", "FAILURE", "CHECK_FUNCTION", "OFF_SPEC", "MAINTENANCE_REQUIRED"),
    ),
    Type(
        *_of_di("IDeviceHealthType", 15051), Ref(_ID.BaseInterfaceType), ua.NodeClass.ObjectType,
        (DEVICE_HEALTH,), abstract=True,
    ),
    Type(
        *_of_di("LifetimeVariableType", 468), Ref(_ID.AnalogUnitType), ua.NodeClass.VariableType,
        (START_VALUE, LIMIT_VALUE, INDICATION, WARNING_VALUES), data_type=NUMBER,
    ),
    Type(
        *_of_di("BaseLifetimeIndicationType", 473), Ref(_ID.BaseObjectType), ua.NodeClass.ObjectType, abstract=True
    ),
    *(
        Type(*_of_di(text, number), Ref(473, DI), ua.NodeClass.ObjectType, abstract=True)
        for text, number in _INDICATION_TYPES
    ),
)  # fmt: skip
"""What of DI is used: a subset, in the order in which it can be built."""

EU_RANGE = Member(Name("EURange", STANDARD), Ref(_ID.Range))
ENGINEERING_UNITS = Member(Name("EngineeringUnits", STANDARD), Ref(_ID.EUInformation))
TRUE_STATE = Member(Name("TrueState", STANDARD), TEXT)
FALSE_STATE = Member(Name("FalseState", STANDARD), TEXT)
ENUM_VALUES = Member(Name("EnumValues", STANDARD), Ref(_ID.EnumValueType), many=True)
VALUE_AS_TEXT = Member(Name("ValueAsText", STANDARD), TEXT)
"""OPC 10000-8, 5.3: of the standard's types; an instance has them, our types inherit them."""


def _property(text: str, data_type: Ref, *, many: bool = False, mandatory: bool = True) -> Member:
    return Member(Name(text), data_type, many=many, mandatory=mandatory)


def _component(text: str, data_type: Ref, *, many: bool = False) -> Member:
    return Member(Name(text), data_type, COMPONENT, many=many)


_BOUNDS = _component("LowerBound", DOUBLE), _component("UpperBound", DOUBLE), _property("Confidence", DOUBLE)
_CONTEXT = (
    _property("AsOfTime", UTC_TIME),
    _property("ValidUntil", UTC_TIME),
    _property("ModelName", STRING),
    _property("ModelVersion", UINT32),
    _property("ModelHash", STRING),
    _property("Contributions", STRING, many=True, mandatory=False),
    _property("ContributionShares", DOUBLE, many=True, mandatory=False),
)
_NUMBER = (*_BOUNDS, *_CONTEXT, _property("TargetTime", UTC_TIME), _property("Coverage", DOUBLE))


def _variable(
    text: str, above: Ref, members: tuple[Member, ...], data_type: Ref, about: str, *, many: bool = False
) -> Type:
    return Type(*_of_ours(text), above, ua.NodeClass.VariableType, members, about, data_type, many)


VALUE = _variable(
    "PredictedValueType", Ref(_ID.AnalogUnitRangeType), _NUMBER, DOUBLE, "A predicted number within a range."
)
UNRANGED = _variable(
    "PredictedQuantityType", Ref(_ID.AnalogUnitType), _NUMBER, DOUBLE, "A predicted number that has no range."
)
LIFETIME = _variable(
    "PredictedLifetimeType", Ref(468, DI), (*_NUMBER, _property("PredictedTime", UTC_TIME)), DOUBLE,
    "What is left of a life, counting down; PredictedTime: when it ends, if all goes on as it did.",
)  # fmt: skip
FLAG = _variable(
    "PredictedFlagType", Ref(_ID.TwoStateDiscreteType),
    (_component("Score", DOUBLE), _component("Threshold", DOUBLE), *_CONTEXT), BOOLEAN,
    "Whether something is wrong, with the score and the threshold that decided it.",
)  # fmt: skip
STATE = _variable(
    "PredictedStateType", Ref(_ID.MultiStateValueDiscreteType),
    (*_CONTEXT, _property("TargetTime", UTC_TIME), _property("Coverage", DOUBLE)), INT32, "One of several states.",
)  # fmt: skip
FORECAST = _variable(
    "ForecastType", Ref(_ID.AnalogUnitRangeType),
    (
        _component("LowerBounds", DOUBLE, many=True),
        _component("UpperBounds", DOUBLE, many=True),
        _component("TargetTimes", UTC_TIME, many=True),
        _component("Expected", DOUBLE),
        _property("Confidence", DOUBLE),
        *_CONTEXT,
        _property("Coverage", DOUBLE),
    ),
    DOUBLE,
    "A quantity at several instants to come: all arrays are of one length, in the order of TargetTimes. Expected is "
    "the first; its history reaches into the future, with what was said last of each instant.",
    many=True,
)  # fmt: skip
ASSET = Type(
    *_of_ours("AssetType"), Ref(_ID.BaseObjectType), ua.NodeClass.ObjectType, (DEVICE_HEALTH,),
    "A machine, and what is predicted of it.", interfaces=(Ref(15051, DI),),
)  # fmt: skip
MODEL = Type(
    *_of_ours("ModelType"), Ref(_ID.BaseObjectType), ua.NodeClass.ObjectType,
    (
        _component("State", STRING),
        _component("Kind", STRING),
        _component("Version", UINT32),
        _component("Hash", STRING),
        _component("LastRun", UTC_TIME),
        _component("LastResult", STRING),
        _component("LastError", STRING),
        _component("LastDuration", DURATION),
        _component("Coverage", DOUBLE),
        _component("Drifting", BOOLEAN),
        _component("Drifts", STRING, many=True),
        _component("ShadowVersion", UINT32),
        _component("ShadowRun", UTC_TIME),
        _component("ShadowResult", STRING),
    ),
    "A model: the version in force, its last run, where it no longer fits, and the challenger that runs beside it.",
)  # fmt: skip
ADVICE = Type(
    *_of_ours("AdviceType"),
    Ref(_ID.BaseObjectType),
    ua.NodeClass.ObjectType,
    (
        _component("Value", DOUBLE),
        _component("State", STRING),
        _property("ValidUntil", UTC_TIME),
        _property("Source", STRING),
        _property("Target", STRING),
    ),
    "A set-point that is advised: written to Target when an operator calls Approve with the Value before ValidUntil.",
)
GATEWAY = Type(
    *_of_ours("GatewayType"), Ref(_ID.BaseObjectType), ua.NodeClass.ObjectType,
    (_property("Version", STRING), _component("Heartbeat", UINT32)), "The process that serves all this.",
)  # fmt: skip

CALL_AUDIT = Type(
    *_of_ours("CallAuditEventType"), Ref(_ID.AuditUpdateMethodEventType), ua.NodeClass.ObjectType,
    text="A client called a method of ours, or wanted to; what it derives from is abstract.",
)  # fmt: skip
"""OPC 10000-5, 6.4.27."""
SOURCE_LOST = Type(
    *_of_ours("SourceLostAlarmType"), Ref(_ID.SystemDiagnosticAlarmType), ua.NodeClass.ObjectType,
    text="A plant's server is away, or says that it is unwell: what is predicted from it is in doubt meanwhile.",
)  # fmt: skip
"""OPC 10000-9, 5.8.24."""

OUR_TYPES = (VALUE, UNRANGED, LIFETIME, FLAG, STATE, FORECAST, ASSET, MODEL, ADVICE, GATEWAY, CALL_AUDIT, SOURCE_LOST)

_OUR_EVENTS = {made.name.text: made.id for made in (CALL_AUDIT, SOURCE_LOST)}


def event_type(name: str) -> Ref:
    """The type of event with this BrowseName, ours or the standard's; of others BaseEventType."""
    number = getattr(_ID, name, None) if name.endswith("Type") else None
    return _OUR_EVENTS.get(name) or Ref(number if isinstance(number, int) else _ID.BaseEventType)
