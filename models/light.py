"""Light models: small weights, or a small student of the ensemble; refused where they say other things.

A light parameter tree is that of the kind, but a matrix of weights is a dict: ``int8`` and ``step`` (one per output
channel, symmetric: Jacob et al. 2018, section 2.1 with a zero point of 0), and where it was pruned, ``mask`` (one bit a
weight) and ``shape``. :func:`unpacked` puts pruned ones back when a model is loaded; :func:`widened` makes float32 of
int8 inside the compiled program, so that memory holds the small ones. A matrix of a network may be ``bf16`` instead
(bits of a bfloat16): where the processor multiplies such numbers, recurrent layers do so, and sum in float32.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models.kind import Fitted, Form, ModelKind, Params, Progress, Spec, TrainingData
from models.meaning import Meaning
from models.training import folds

STUDENT = {"hidden": 16, "members": 1}
PRUNED = 0.3
"""Share of the weights that pruning leaves out, the smallest ones (Han et al. 2015)."""
_ASKED = 6000
"""Cells at which a student hears its teacher; at the others it learns from the label alone."""
_BELIEVED = 0.5
"""Share of what the teacher says in what a student learns there; the rest is the label."""
_OF_NETWORKS = frozenset({"kernel", "recurrent"})
"""Names that :mod:`models.network` gives its matrices."""
_MULTIPLIES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of processors, x86 and ARM."""
_AT_ONCE = 256
_CHECKED = 1024
"""Windows that a light model is compared at."""
_HELD_OUT = 5
"""One of so many parts of the groups is kept to compare at."""
_SHARE = 0.95
"""The error is the one that this share of the windows stays below."""


def student(spec: Spec) -> Spec:
    """Of a teacher's spec: one small member."""
    return replace(spec, options={**spec.options, **STUDENT})


def fit(kind: ModelKind, spec: Spec, data: TrainingData, form: Form, bound: float, progress: Progress) -> Fitted:
    """A light model of what ``kind`` learns with ``spec``; a student is one of :func:`student` of the spec.

    ``bound``: how far it may stray from the full model, see :func:`strayed`; metrics ``light_error``. ValueError where
    it strays farther, or the kind can't be made light in this way. A student is told labels alone of the groups that
    its teacher never saw, and that the two are compared at: a kind of one member holds out the same ones, to judge
    itself by what is true and not by what a teacher says.
    """
    if form == "no":
        return kind.fit(spec, data, progress)
    apart = folds(data.group, _HELD_OUT, spec.seed) == 0
    full = kind.fit(spec, data if form != "student" else _only(data, ~apart), progress)
    if form == "student":
        small = student(spec)
        light = kind.fit(small, taught(kind, spec, full.params, data, ~apart), progress)
    else:
        small, light = spec, replace(full, params=_LIGHTER[form](full.params))
    values, observed = _windows(spec, _only(data, apart))
    whole = outputs_of(kind, spec, full.params, values, observed)
    states = [output.name for output in kind.outputs(spec) if output.states]
    errors = strayed(whole, outputs_of(kind, small, light.params, values, observed), states)
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > bound:
        of = "the windows" if worst in states else "its spread"
        raise ValueError(
            f"light = {form!r}: {worst} strays by {errors[worst]:.3g} of {of} from the full model, more than "
            f"light_error = {bound:g}; allow more, or train the full model"
        )
    return replace(light, metrics={**light.metrics, "light_error": errors[worst]})


def quantised(params: Params, pruned: float = 0.0) -> Params:
    """int8 in place of every matrix of weights; of each, this share of the smallest weights left out."""
    return _mapped(params, lambda _, leaf: _packed(leaf, pruned) if _is_matrix(leaf) else leaf)


def halved(params: Params) -> Params:
    """bfloat16 in place of every matrix of a network; matrices of other arithmetic stay as they are."""
    return _mapped(params, lambda key, leaf: _upper(leaf) if key in _OF_NETWORKS and _is_matrix(leaf) else leaf)


_LIGHTER: Mapping[Form, Callable[[Params], Params]] = {
    "bf16": halved,
    "int8": quantised,
    "pruned": lambda params: quantised(params, PRUNED),
}


def _mapped(tree: Params, change: Callable[[str, Any], Any]) -> Params:
    return {
        key: _mapped(dict(value), change) if isinstance(value, Mapping) else change(key, value)
        for key, value in tree.items()
    }


def _is_matrix(leaf: Any) -> bool:
    """Members, inputs, outputs."""
    return np.ndim(leaf) == 3 and leaf.dtype == np.float32 and min(leaf.shape[1:]) > 1


def _upper(leaf: NDArray[np.float32]) -> Params:
    """As bits, for safetensors knows no bfloat16 of NumPy's."""
    return {"bf16": np.asarray(leaf).astype(jnp.bfloat16).view(np.uint16)}


def _packed(leaf: NDArray[np.float32], pruned: float) -> Params:
    leaf = np.asarray(leaf)
    step = np.maximum(np.abs(leaf).max(1, keepdims=True), 1e-12) / 127.0
    whole = np.rint(leaf / step).astype(np.int8)
    packed = {"int8": whole, "step": step.astype(np.float32)}
    if not pruned:
        return packed
    kept = np.abs(leaf) > np.quantile(np.abs(leaf), pruned)
    return packed | {
        "int8": whole[kept],
        "mask": np.packbits(kept.ravel()),
        "shape": np.array(leaf.shape, np.int32),
    }


def unpacked(params: Params) -> Params:
    """On the host: what was pruned is 0 again."""
    if "mask" in params:
        shape = tuple(int(size) for size in params["shape"])
        kept = np.unpackbits(params["mask"], count=int(np.prod(shape))).astype(bool)
        whole = np.zeros(len(kept), np.int8)
        whole[kept] = params["int8"]
        return {"int8": whole.reshape(shape), "step": params["step"]}
    return {key: unpacked(dict(each)) if isinstance(each, Mapping) else each for key, each in params.items()}


def widened(params: Params) -> Params:
    """Jittable: weights as the kind knows them."""
    if set(params) == {"int8", "step"}:
        weights: Any = params["int8"].astype(jnp.float32) * params["step"]
        return weights  # type: ignore[no-any-return]  # a leaf in the place of a tree
    if set(params) == {"bf16"}:
        weights = jax.lax.bitcast_convert_type(params["bf16"], jnp.bfloat16)
        return weights if multiplies_bf16() else weights.astype(jnp.float32)  # type: ignore[no-any-return]
    return {key: widened(dict(each)) if isinstance(each, Mapping) else each for key, each in params.items()}


def is_halved(params: Params) -> bool:
    """Whether a matrix of them is of bfloat16."""
    return set(params) == {"bf16"} or any(
        is_halved(dict(each)) for each in params.values() if isinstance(each, Mapping)
    )


@cache
def multiplies_bf16() -> bool:
    """Whether the device does; a processor that doesn't is slower with them than with float32."""
    if jax.default_backend() != "cpu":
        return True
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = {flag for line in told.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    return not flags.isdisjoint(_MULTIPLIES)


def size(params: Params) -> int:
    """Bytes of all arrays."""
    return sum(int(np.asarray(leaf).nbytes) for leaf in jax.tree.leaves(params))


def taught(kind: ModelKind, spec: Spec, params: Params, data: TrainingData, asked: NDArray[np.bool_]) -> TrainingData:
    """The same windows; at random labelled cells of the rows ``asked`` [n] the target is half-way between the label and
    what the teacher says there (Hinton et al. 2015).

    ValueError for a kind whose first output is neither a remaining life nor a probability.
    """
    output = kind.outputs(spec)[0]
    unit = {Meaning.LIFETIME: 1.0, Meaning.PROBABILITY: 0.01}.get(output.meaning)
    if unit is None:
        raise ValueError(f"light = 'student': {spec.kind} gives no life and no probability that one could be taught")
    known = np.argwhere(~np.isnan(data.target) & data.observed.any(1) & asked[:, None])
    chosen = np.random.default_rng(spec.seed).permutation(len(known))[:_ASKED]
    row, cell = known[chosen].T
    parts = (slice(at, at + _AT_ONCE) for at in range(0, len(row), _AT_ONCE))
    told = _told(kind, spec, params, (_ending(spec, data, row[part], cell[part]) for part in parts))[output.name]
    label = np.minimum(data.target[row, cell], unit * output.high)
    target = data.target.copy()
    target[row, cell] = np.where(np.isnan(told), label, label + _BELIEVED * (unit * told - label))
    return replace(data, target=target)


def outputs_of(
    kind: ModelKind, spec: Spec, params: Params, values: NDArray[np.float32], observed: NDArray[np.bool_]
) -> Mapping[str, NDArray[np.float32]]:
    """Values [n] by output, of a full or a light model; in calls of one size, so that one program does."""
    parts = (slice(at, at + _AT_ONCE) for at in range(0, len(values), _AT_ONCE))
    return _told(kind, spec, params, ((values[part], observed[part]) for part in parts))


def _told(
    kind: ModelKind, spec: Spec, params: Params, parts: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]]
) -> Mapping[str, NDArray[np.float32]]:
    """Values by output of all parts together, by one program; each part is filled up to :data:`_AT_ONCE` windows."""
    program = jax.jit(lambda params, *windows: kind.predict(spec, widened(params), *windows))
    params, found = unpacked(params), []
    for values, observed in parts:
        filled = np.resize(np.arange(len(values)), _AT_ONCE)
        every = jax.device_get(program(params, values[filled], observed[filled]))
        found.append({name: estimate.value[: len(values)] for name, estimate in every.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def strayed(
    full: Mapping[str, NDArray[np.float32]], light: Mapping[str, NDArray[np.float32]], states: Iterable[str] = ()
) -> Mapping[str, float]:
    """By output: what 95 % of the windows differ by at most, as a share of the output's standard deviation; of
    ``states`` the share of the windows that are in another one.

    Infinite where one has a number and the other has none.
    """
    others = frozenset(states)
    return {name: _apart(full[name], light[name], state=name in others) for name in full}


def _apart(full: NDArray[np.float32], light: NDArray[np.float32], *, state: bool) -> float:
    there = ~np.isnan(full)
    if not np.array_equal(there, ~np.isnan(light)):
        return float("inf")
    if not there.any():
        return 0.0
    if state:
        return float(np.mean(full[there] != light[there]))
    return float(np.quantile(np.abs(full - light)[there], _SHARE)) / max(float(np.std(full[there])), 1e-6)


def _only(data: TrainingData, rows: NDArray[np.bool_]) -> TrainingData:
    return TrainingData(data.values[rows], data.observed[rows], data.target[rows], data.group[rows])


def _windows(spec: Spec, data: TrainingData) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """As they are scored, at random ends."""
    known = np.argwhere(data.observed.any(1))
    chosen = np.random.default_rng(spec.seed + 1).permutation(len(known))[:_CHECKED]
    return _ending(spec, data, *known[chosen].T)


def _ending(
    spec: Spec, data: TrainingData, row: NDArray[np.intp], cell: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Windows [m, f, t] of these rows that end with these cells."""
    length = min(spec.length, data.values.shape[2])
    source = cell[:, None] - (length - 1) + np.arange(length)
    place = np.maximum(source, 0)
    values = np.swapaxes(data.values[row[:, None], :, place], 1, 2)
    observed = np.swapaxes(data.observed[row[:, None], :, place], 1, 2) & (source >= 0)[:, None]
    return np.where(observed, values, np.float32(0)), observed
