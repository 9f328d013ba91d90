"""Conformance of a model kind, ours or a stranger's: what :class:`models.kind.ModelKind` promises, put to the test.

    assert check_kind(MyKind(), spec, data) == []

``spec`` and ``data`` should be small: the kind is fitted twice, and adapted once if it can be. Every broken promise is
listed in words.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from models.artifact import load, save
from models.kind import Adaptable, Estimate, ModelKind, Params, Spec, TrainingData
from models.meaning import Meaning

_TOLERANCE = 1e-3
"""Of two estimates that should be equal, as a share of their size or of 1: float32 sums differ with the shape."""

Estimates = Mapping[str, Estimate]


def check_kind(kind: ModelKind, spec: Spec, data: TrainingData) -> list[str]:
    """The promises that ``kind`` breaks for this spec and these data; empty: none."""
    kind.check(spec)
    fitted = kind.fit(spec, data, lambda share, message: None)
    case = _Case(kind, spec, data, fitted.params)
    broken = [*_tree(case), *_deterministic(case), *_outputs(case)]
    for promise in (_rows, _padding, _missing, _artifact, _compilations, _refusals, _adapted):
        broken += promise(case)
    if any(output.name == "score" for output in kind.outputs(spec)) and "threshold" not in fitted.metrics:
        broken.append("it gives a score, but its metrics hold no threshold")
    return broken


class _Case:
    def __init__(self, kind: ModelKind, spec: Spec, data: TrainingData, params: Params) -> None:
        self.kind, self.spec, self.data, self.params = kind, spec, data, params
        self.traces = 0

        def predict(params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
            self.traces += 1
            return kind.predict(spec, params, values, observed)

        self.program = jax.jit(predict)

    def predict(
        self, values: NDArray[np.float32], observed: NDArray[np.bool_], params: Params | None = None
    ) -> Estimates:
        found: Estimates = jax.device_get(self.program(self.params if params is None else params, values, observed))
        return found

    def windows(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A few windows as they are scored live: what is observed ends at the window's end."""
        rows = []
        for row in range(min(4, len(self.data.values))):
            seen = np.flatnonzero(self.data.observed[row].any(0))
            shift = self.data.values.shape[2] - 1 - seen[-1]
            ended = (np.roll(part[row], shift, -1) for part in (self.data.values, self.data.observed))
            rows.append(tuple(part[:, -self.spec.length :] for part in ended))
        return np.stack([values for values, _ in rows]), np.stack([observed for _, observed in rows])


def _tree(case: _Case) -> Iterator[str]:
    fresh = case.kind.init(case.spec, jax.random.key(case.spec.seed))
    if sorted(_paths(fresh)) != sorted(_paths(case.params)):
        yield "init and fit give different trees"
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh):
        fit = _at(case.params, path)
        if np.shape(leaf) != np.shape(fit) or leaf.dtype != fit.dtype:
            yield f"init{jax.tree_util.keystr(path)} is {leaf.dtype}{np.shape(leaf)}, fit's {fit.dtype}{np.shape(fit)}"


def _paths(tree: Params) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _at(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key.key]
    return tree


def _deterministic(case: _Case) -> Iterator[str]:
    again = case.kind.fit(case.spec, case.data, lambda share, message: None)
    same = jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), case.params, again.params)
    if not all(jax.tree.leaves(same)):
        yield "two fits of the same data and seed give different parameters"


def _outputs(case: _Case) -> Iterator[str]:
    values, observed = case.windows()
    estimates = case.predict(values, observed)
    promised = {output.name: output for output in case.kind.outputs(case.spec) if output.meaning is not Meaning.FLAG}
    if set(estimates) != set(promised):
        yield f"predict gives {sorted(estimates)}; outputs promises {sorted(promised)}"
    for name, (value, lower, upper) in estimates.items():
        ahead = promised[name].ahead if name in promised else ()
        shape = (len(values), len(ahead)) if ahead else (len(values),)
        if any(part.shape != shape or part.dtype != np.float32 for part in (value, lower, upper)):
            yield f"{name}: value and bounds must be float32 of shape {list(shape)}"
        elif (lower > value).any() or (upper < value).any():
            yield f"{name}: the value is outside its bounds"
        if np.isnan(value[np.flatnonzero(observed.all(axis=(1, 2)))]).any():
            yield f"{name}: NaN although every cell is observed"


def _rows(case: _Case) -> Iterator[str]:
    values, observed = case.windows()
    alone = case.predict(values[:1], observed[:1])
    order = np.arange(len(values))[::-1]
    yield from _differ(case.predict(values, observed), alone, "the first row changes with the other rows", rows=1)
    turned = case.predict(values[order], observed[order])
    turned = {name: Estimate(*(part[order] for part in estimate)) for name, estimate in turned.items()}
    yield from _differ(case.predict(values, observed), turned, "rows change with their order")


def _padding(case: _Case) -> Iterator[str]:
    values, observed = case.windows()
    short = min(values.shape[2], case.spec.length) - 1
    values, observed = values[..., -short:], observed[..., -short:]
    front = ((0, 0), (0, 0), (1, 0))
    padded = case.predict(np.pad(values, front, constant_values=1e6), np.pad(observed, front))
    yield from _differ(case.predict(values, observed), padded, "cells in front that are not observed change it")


def _missing(case: _Case) -> Iterator[str]:
    values, observed = case.windows()
    observed[0] = False
    for name, estimate in case.predict(values, observed).items():
        if not np.isnan(np.stack([part[0] for part in estimate])).all():
            yield f"{name}: a row with nothing observed gives a number"
    values, observed = case.windows()
    hidden = np.where(observed, values, 1e6).astype(np.float32)
    yield from _differ(case.predict(values, observed), case.predict(hidden, observed), "it reads what is not observed")


def _artifact(case: _Case) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        artifact = save(Path(folder), "check", case.spec, case.params, metrics={}, provenance={})
        read = load(artifact.path, artifact.sha256)
    if read.spec != case.spec:
        yield "the spec changes on its way through an artifact: options must be plain JSON"
    same = jax.tree.map(_identical, case.params, read.params)
    if not all(jax.tree.leaves(same)):
        yield "parameters change on their way through an artifact"


def _identical(first: Any, second: Any) -> bool:
    alike = np.shape(first) == np.shape(second) and first.dtype == second.dtype
    return alike and np.array_equal(first, second, equal_nan=True)


def _compilations(case: _Case) -> Iterator[str]:
    values, observed = case.windows()
    case.predict(values, observed)
    before = case.traces
    case.predict(values + np.float32(1), ~observed)
    if case.traces != before:
        yield "predict is compiled anew for other values of the same shape"


def _refusals(case: _Case) -> Iterator[str]:
    if _accepts(lambda: case.kind.check(replace(case.spec, options={**case.spec.options, "no such option": 1}))):
        yield "check accepts an option that does not exist"
    for role in case.kind.roles:
        without = {name: feature for name, feature in case.spec.roles.items() if name != role}
        if _accepts(lambda without=without: case.kind.check(replace(case.spec, roles=without))):  # type: ignore[misc]
            yield f"check accepts a spec without the role {role}"


def _adapted(case: _Case) -> Iterator[str]:
    """By its last layer alone. Weights are what ``init`` draws at random."""
    if not isinstance(case.kind, Adaptable):
        return
    start: Params = jax.device_get(case.params)
    before = jax.tree.map(np.copy, start)
    found = case.kind.adapt(case.spec, start, case.data, lambda share, message: None, head_only=True).params
    if not all(jax.tree.leaves(jax.tree.map(_identical, start, before))):
        yield "adapt changes what it begins from"
    if sorted(_paths(found)) != sorted(_paths(before)):
        yield "adapt and fit give different trees"
        return
    one, other = (jax.tree.leaves(case.kind.init(case.spec, jax.random.key(seed))) for seed in (0, 1))
    drawn = [not _identical(a, b) for a, b in zip(one, other, strict=True)]
    stayed = jax.tree.leaves(jax.tree.map(_identical, found, before))
    weights = [same for same, random in zip(stayed, drawn, strict=True) if random]
    if all(weights):
        yield "adapt learns nothing"
    if not any(weights):
        yield "adapt with head_only changes all weights"


def _accepts(call: Callable[[], None]) -> bool:
    try:
        call()
    except ValueError:
        return False
    return True


def _differ(first: Estimates, second: Estimates, message: str, rows: int | None = None) -> Iterator[str]:
    for name, estimate in first.items():
        pairs = zip(estimate, second[name], strict=True)
        if not all(np.allclose(a[:rows], b[:rows], _TOLERANCE, _TOLERANCE, equal_nan=True) for a, b in pairs):
            yield f"{name}: {message}"
