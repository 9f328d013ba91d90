"""How far a fit is, kept now and then: one that was cut off goes on there, and ends as if it had not been.

A fit is one or several descents (:func:`models.training.descend`). They are told apart by their number: a fit of equal
arguments has equal descents in equal order. ``made_of`` stands for these arguments; who knows them gives it, and what
was kept of a fit of others is not used.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as bytes_of

from models.kind import Progress

FORMAT = "foretag-unfinished-1"


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where it lies, by name."""

    read: Callable[[str], bytes | None]
    """None: nothing is there. Raises OSError."""
    write: Callable[[str, bytes], None]
    """Wholly or not at all. Raises OSError."""


class Keeper:
    """Of one fit."""

    def __init__(
        self,
        shelf: Shelf,
        made_of: str,
        every: float,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``every``: between two keepings [s]. ``warn`` is told of what can't be used or kept; the fit goes on."""
        self._shelf = shelf
        self._made_of = made_of
        self.every = every
        self._warn = warn
        self.clock = clock
        self._descents = 0
        self.resumed = 0
        """Steps that were not taken again."""

    def begin(self, state: Any) -> "Descent":
        """The next descent, from ``state`` or from where it was left."""
        name = f"descent-{self._descents}.safetensors"
        self._descents += 1
        done = 0
        try:
            content = self._shelf.read(name)
            if content is not None:
                done, state = _unpacked(content, self._made_of, state)
        except (OSError, ValueError) as error:
            self._warn(f"what was kept of a training is not used, {error}; it begins anew")
        self.resumed += done
        return Descent(done, state, self, name)

    def keep(self, name: str, done: int, state: Any) -> None:
        """Put it on the shelf."""
        try:
            self._shelf.write(name, _packed(self._made_of, done, state))
        except OSError as error:
            self._warn(f"how far a training is can't be kept, {error}; it goes on all the same")


class Descent:
    """How far one is; ``keeper``: None where nothing is kept."""

    def __init__(self, done: int, state: Any, keeper: Keeper | None = None, name: str = "") -> None:
        self.done = done
        self.state = state
        self._keeper = keeper
        self._name = name
        self._kept = done
        self._due = keeper.clock() + keeper.every if keeper is not None else 0.0

    def reached(self, done: int, state: Any) -> None:
        """So many steps are taken; it is kept when it is time to."""
        self.done, self.state = done, state
        if self._keeper is not None and self._keeper.clock() >= self._due:
            self.keep()
            self._due = self._keeper.clock() + self._keeper.every

    def keep(self) -> None:
        """Keep it now, unless it is kept already."""
        if self._keeper is not None and self.done > self._kept:
            self._kept = self.done
            self._keeper.keep(self._name, self.done, self.state)


@dataclass(frozen=True, slots=True)
class KeptProgress:
    """A progress of a fit that is kept."""

    progress: Progress
    keeper: Keeper

    def __call__(self, share: float, message: str) -> None:
        """See :data:`models.kind.Progress`."""
        self.progress(share, message)


def part(progress: Progress, place: int, count: int) -> Progress:
    """Of one of several parts of a fit, which are told of as one; it is kept where the whole is."""
    own = partial(_within, progress, place, count)
    return KeptProgress(own, progress.keeper) if isinstance(progress, KeptProgress) else own


def _within(progress: Progress, place: int, count: int, share: float, message: str) -> None:
    progress((place + share) / (count + 0.1), message)


@contextmanager
def descent(progress: Progress, state: Any) -> Iterator[Descent]:
    """From ``state`` or from where it was left; at its end, however it ends, it is kept how far it came."""
    here = progress.keeper.begin(state) if isinstance(progress, KeptProgress) else Descent(0, state)
    try:
        yield here
    finally:
        here.keep()


def _packed(made_of: str, done: int, state: Any) -> bytes:
    """A line of JSON, then the leaves as safetensors."""
    leaves = {str(n): np.array(leaf, order="C") for n, leaf in enumerate(jax.tree.leaves(jax.device_get(state)))}
    body = bytes_of(leaves)
    head = {"format": FORMAT, "made_of": made_of, "done": done, "sha256": _digest(made_of, done, body)}
    return json.dumps(head).encode() + b"\n" + body


def _unpacked(content: bytes, made_of: str, like: Any) -> tuple[int, Any]:
    """ValueError where it is damaged, or of another fit."""
    first, _, body = content.partition(b"\n")
    try:
        head = json.loads(first)
        if head["format"] != FORMAT or head["sha256"] != _digest(head["made_of"], head["done"], body):
            raise ValueError("it is damaged, or of another release")
        if head["made_of"] != made_of:
            raise ValueError("what it learnt from, or how, was something else")
        tensors = tensors_of(body)
        leaves = [tensors[str(n)] for n in range(len(tensors))]
        done = int(head["done"])
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError("it is damaged") from error
    if _shapes(leaves) != _shapes(jax.tree.leaves(like)):
        raise ValueError("the network had another shape")
    return done, jax.tree.unflatten(jax.tree.structure(like), leaves)


def _digest(made_of: str, done: int, body: bytes) -> str:
    return hashlib.sha256(f"{made_of} {done} ".encode() + body).hexdigest()


def _shapes(leaves: list[NDArray[Any]]) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    return [(np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves]
