"""Hyperparameters: each kind lists its own once, with default and bounds, and refuses what lies outside."""

from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

from models.kind import Spec

T = TypeVar("T")


def number(default: Any, low: float, high: float) -> Any:
    """A numeric option of a dataclass; an int as default admits whole numbers only. The bounds belong to the range."""
    return field(default=default, metadata={"low": low, "high": high})


def choice(default: str, allowed: tuple[str, ...]) -> Any:
    """An option that is one of a few words."""
    return field(default=default, metadata={"allowed": allowed})


def ascending(default: tuple[int, ...], low: int, high: int, most: int) -> Any:
    """An option that is a list of one to ``most`` different whole numbers, the least first."""
    return field(default=default, metadata={"low": low, "high": high, "most": most})


def read(cls: type[T], spec: Spec) -> T:
    """``spec.options`` as the kind's dataclass; ValueError names option, value and the valid range."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # every caller's cls is a dataclass
    unknown = sorted(set(spec.options) - set(known))
    if unknown:
        raise ValueError(f"{spec.kind} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    missing = [name for name, f in known.items() if f.default is MISSING and name not in spec.options]
    if missing:
        raise ValueError(f"{spec.kind} needs the option {', '.join(missing)}")
    return cls(**{name: _checked(known[name], value) for name, value in spec.options.items()})


def _checked(option: Any, value: Any) -> Any:
    if allowed := option.metadata.get("allowed"):
        if value not in allowed:
            raise ValueError(f"option {option.name} = {value!r}: must be one of {', '.join(allowed)}")
        return value
    if "most" in option.metadata:
        return _list(option, value)
    if "low" not in option.metadata:
        if not isinstance(value, str) or not value:
            raise ValueError(f"option {option.name} = {value!r}: must be a text")
        return value
    low, high, whole = option.metadata["low"], option.metadata["high"], isinstance(option.default, int)
    right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not (right_type and low <= value <= high):
        noun = "whole number" if whole else "number"
        raise ValueError(f"option {option.name} = {value!r}: must be a {noun} from {low} to {high}")
    return value if whole else float(value)


def _list(option: Any, value: Any) -> tuple[int, ...]:
    low, high, most = (option.metadata[name] for name in ("low", "high", "most"))
    given = list(value) if isinstance(value, list | tuple) else []
    whole = all(isinstance(each, int) and not isinstance(each, bool) and low <= each <= high for each in given)
    if not (given and whole and len(given) <= most and given == sorted(set(given))):
        raise ValueError(
            f"option {option.name} = {value!r}: must be a list of 1 to {most} whole numbers from {low} to {high}, "
            "the least first, each once"
        )
    return tuple(given)


def check_axes(spec: Spec, roles: tuple[str, ...], *, inputs: int = 1, length: int = 1) -> None:
    """Raise ValueError where features, roles or length of a spec can't be used by a kind with these ``roles``.

    ``inputs`` is the least number of features without a role, ``length`` the least number of cells.
    """
    if len(set(spec.features)) != len(spec.features):
        raise ValueError(f"features = {list(spec.features)}: each may stand there once")
    for role in roles:
        if role not in spec.roles:
            raise ValueError(f"roles: {spec.kind} needs a feature in the role {role!r}")
    for role, feature in spec.roles.items():
        if feature not in spec.features:
            raise ValueError(f"roles.{role} = {feature!r}: is not among the features {list(spec.features)}")
    if len(spec.features) - len(set(spec.roles.values())) < inputs:
        raise ValueError(f"features = {list(spec.features)}: {spec.kind} needs {inputs} or more besides the roles")
    if spec.length < length:
        raise ValueError(f"length = {spec.length}: {spec.kind} needs {length} or more cells with these options")
