"""Parts of a node's value: ``[3]`` or ``[1,2]`` of an array, ``.Speed`` or ``.Motors[2].Current`` of a structure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plugin.domain import Tag

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9}(?:,\d{1,9})*)\]")
_IN_NAME = re.compile(r".(\[\d{1,9}(?:,\d{1,9})*\])$")

Step = str | tuple[int, ...]
"""Name of a field, or the indices of an element of an array, from 0."""


class Missing(LookupError):
    """The value has no such part."""


@dataclass(frozen=True, slots=True)
class Path:
    """The way to a part."""

    steps: tuple[Step, ...]
    implied: bool = False
    """It comes from the tag's name: a value that is no array is taken whole."""

    def pick(self, content: Any) -> Any:
        """The part of a content as :mod:`plugin.acquire.contents` gives it. Raises :class:`Missing`."""
        if self.implied and not isinstance(content, (list, np.ndarray)):
            return content
        for step in self.steps:
            content = _field(content, step) if isinstance(step, str) else _element(content, step)
        return content

    def fields(self) -> bool:
        """Leads into a structure."""
        return any(isinstance(step, str) for step in self.steps)


def parse(text: str) -> tuple[Step, ...]:
    """The steps of an element as it is written. Raises ValueError where it can't be one."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError('is no element; write it such as "[3]", "[1,2]", ".Status.Speed" or ".Motors[2].Current"')
        name, indices = match.groups()
        steps.append(name if name is not None else tuple(int(index) for index in indices.split(",")))
        at = match.end()
    return tuple(steps)


def path_of(tag: Tag) -> Path | None:
    """What a tag takes of its node's value: by its element, else by a name such as ``pressure[3]``; None: all of it."""
    if tag.element:
        return Path(parse(tag.element))
    match = _IN_NAME.search(tag.name)
    return Path(parse(match[1]), implied=True) if match else None


def _field(content: Any, name: str) -> Any:
    if not isinstance(content, dict) or name not in content:
        raise Missing(name)
    return content[name]


def _element(content: Any, indices: Sequence[int]) -> Any:
    for index in indices:
        if not isinstance(content, (list, np.ndarray)) or index >= len(content):
            raise Missing(str(index))
        content = content[index]
    return content
