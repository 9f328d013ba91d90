"""How fast models predict: an LSTM of two layers of 64 (60 cells of 16 features), an MLP of 64-32-1, and ``rul_lstm``.

All go through the product's own :class:`models.runtime.Predictor`, from arrays on the host to numbers on the host. The
peers of :mod:`tests.benchmarks._peers` compute the same numbers (that is checked) from the same weights, in turns.
All have one thread, and what counts is the CPU time of the process: a scoring run shares its cores with acquisition and
the database, and others on the machine disturb that figure least.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import light
from models.gates import tanh
from models.kind import Estimate, OutputSpec, Params, Spec
from models.network import Recurrent, born, bound
from models.rul_lstm import RulLstm
from models.runtime import Predictor
from tests.benchmarks import _fleet, _peers, _start
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread

FEATURES = tuple(f"f{number}" for number in range(16))
CELLS = 60
SIZES = (1, 64, 1_000, 10_000)
_TURN = 0.1
"""CPU time of one before the next one's turn [s]."""
_LSTM_GOALS = {1: 0.6, 64: 1.15, 1_000: 1.15, 10_000: 1.15}
_MLP_GOALS = {10_000: 0.75}
_AGREE = 1e-4

Array = NDArray[np.float32]


async def measure(quick: bool) -> Sequence[Row]:
    """Networks, and the same on a GPU where JAX has one; a fleet; starts of the service."""
    turns, sizes = (3, SIZES[:3]) if quick else (7, SIZES)
    with _one_core():
        found = [*_lstm(sizes, turns), *_mlp(sizes, turns), *_rul(sizes, turns), *_gpu(sizes, turns)]
        fleet = Spread.of(await _fleet.shares(minutes=turns))
    started = await _start.starts(turns)
    return [
        *found,
        Row("500 assets × 3 models, scored each minute: of two cores", fleet, "%", goal=Goal(2)),
        Row("process start to first prediction, warm compile cache", Spread.of(started.warm), "s", goal=Goal(6)),
        Row("process start to first prediction, nothing compiled before", Spread.of([started.cold]), "s"),
    ]


@contextmanager
def _one_core() -> Iterator[None]:
    """JAX takes as many threads as there are cores when it starts: a process that has begun with it keeps them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# --- networks ----------------------------------------------------------------------------------------------------


def _build(rngs: Any) -> Recurrent:
    return Recurrent(len(FEATURES), 64, 1, "lstm", 2, rngs=rngs)


class _Network:
    """What a kind needs to be predicted with."""

    roles = ()

    def check(self, spec: Spec) -> None:
        pass

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        return (OutputSpec("told", "", 0.0, 1.0, "What the network tells"),)


class _Lstm(_Network):
    """The product's recurrent network, one member of it."""

    name = "lstm"

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        one: Params = jax.tree.map(lambda leaf: leaf[0], params)
        told = bound(_build, one).last(jnp.swapaxes(values, 1, 2), observed.any(1))[:, 0]
        return {"told": Estimate(told, told, told)}


class _Mlp(_Network):
    """The newest cell through two layers, bent as the product bends them."""

    name = "mlp"

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        first, second, last = (params[name] for name in ("first", "second", "last"))
        bent = tanh(tanh(values[:, :, -1] @ first["w"] + first["b"]) @ second["w"] + second["b"])
        told = (bent @ last["w"] + last["b"])[:, 0]
        return {"told": Estimate(told, told, told)}


def _lstm(sizes: Sequence[int], turns: int) -> Iterator[Row]:
    weights = _lstm_weights()
    spec, device = Spec("lstm", FEATURES, CELLS), jax.devices("cpu")[0]
    predictor = Predictor(_Lstm(), spec, weights, device)  # type: ignore[arg-type]
    halved = Predictor(_Lstm(), spec, light.halved(weights), device)  # type: ignore[arg-type]
    peers: dict[str, _peers.Run] = dict(_peers.lstms(*_plain(weights)))
    peers["foretag, bf16"] = partial(_halved, halved)
    for size in sizes:
        windows = np.random.default_rng(size).standard_normal((size, CELLS, len(FEATURES))).astype(np.float32)
        taken = _in_turns(predictor, peers, windows, turns)
        yield from _rows("LSTM 2 × 64", size, taken, {"onnxruntime": _LSTM_GOALS[size], "torch": 1.0})
        if size == 1:
            yield Row("LSTM 2 × 64, one at once: a call", _scaled(taken["ours"], 1e6), "µs")


def _halved(predictor: Predictor, windows: Array) -> Callable[[], Array]:
    values = np.ascontiguousarray(windows.swapaxes(1, 2))
    ask = _ours(predictor, values, np.ones(values.shape, bool))
    return lambda: ask()["told"].value


def _lstm_weights() -> Params:
    """Of one member; larger than at birth, so that a wrong gate shows."""
    weights = born(_build, jax.random.split(jax.random.key(0), 1))
    found: Params = jax.tree.map(lambda leaf: np.asarray(2.0 * leaf), weights)
    return found


def _plain(weights: Params) -> tuple[list[Mapping[str, Array]], Mapping[str, Array]]:
    weights = jax.tree.map(lambda leaf: leaf[0], weights)
    layers = [weights, *weights["above"].values()]
    forget = np.repeat(np.array([0, 1, 0, 0], np.float32), 64)
    plain: list[Mapping[str, Array]] = [
        {"kernel": each["gates"]["kernel"], "recurrent": each["recurrent"], "bias": each["gates"]["bias"] + forget}
        for each in layers
    ]
    return plain, weights["head"]


def _mlp(sizes: Sequence[int], turns: int) -> Iterator[Row]:
    generator = np.random.default_rng(0)
    widths = (len(FEATURES), 64, 32, 1)
    layers = [
        (generator.normal(0, before**-0.5, (before, after)).astype(np.float32), np.zeros(after, np.float32))
        for before, after in pairwise(widths)
    ]
    params = {name: {"w": w, "b": b} for name, (w, b) in zip(("first", "second", "last"), layers, strict=True)}
    predictor = Predictor(_Mlp(), Spec("mlp", FEATURES, 1), params, jax.devices("cpu")[0])  # type: ignore[arg-type]
    peers = dict(_peers.mlps(layers))
    for size in sizes:
        windows = generator.standard_normal((size, 1, len(FEATURES))).astype(np.float32)
        goals = {"onnxruntime": _MLP_GOALS[size]} if size in _MLP_GOALS else {}
        yield from _rows("MLP 64-32-1", size, _in_turns(predictor, peers, windows, turns), goals)


def _rul(sizes: Sequence[int], turns: int) -> Iterator[Row]:
    """Five members of 48 units that read 32 cells; windows of 240 cells, one in twenty values missing."""
    features = (*FEATURES, "age")
    spec, kind = Spec("rul_lstm", features, 240, {"age": "age"}), RulLstm()
    params = jax.device_get(kind.init(spec, jax.random.key(0)))
    predictor = Predictor(kind, spec, params, jax.devices("cpu")[0])
    for size in sizes:
        generator = np.random.default_rng(size)
        values = generator.standard_normal((size, len(features), spec.length)).astype(np.float32)
        values[:, -1] = np.arange(spec.length)
        observed = generator.random(values.shape) < 0.95
        yield from _rows("rul_lstm", size, _taken({"ours": _ours(predictor, values, observed)}, turns), {})
    before = predictor.compilations
    predictor.predict(values[:-1], observed[:-1])
    yield Row("programs compiled once warm", Spread.of([predictor.compilations - before]), "", goal=Goal(0))


def _gpu(sizes: Sequence[int], turns: int) -> Iterator[Row]:
    """Only where JAX finds one."""
    try:
        device = jax.devices("gpu")[0]
    except RuntimeError as error:
        print(f"no row of a GPU: {str(error).splitlines()[0]}")
        return
    spec, weights = Spec("lstm", FEATURES, CELLS), _lstm_weights()
    there, here = (Predictor(_Lstm(), spec, weights, each) for each in (device, jax.devices("cpu")[0]))  # type: ignore[arg-type]
    for size in sizes:
        values = np.random.default_rng(size).standard_normal((size, len(FEATURES), CELLS)).astype(np.float32)
        observed = np.ones(values.shape, bool)
        apart = np.abs(there.predict(values, observed)["told"].value - here.predict(values, observed)["told"].value)
        yield Row(f"GPU and CPU differ by, {size:,} windows", Spread.of([float(apart.max())]), "", goal=Goal(_AGREE))
        yield from _rows("GPU: LSTM 2 × 64", size, _taken({"ours": _ours(there, values, observed)}, turns), {})


# --- in turns ----------------------------------------------------------------------------------------------------


def _in_turns(
    predictor: Predictor, peers: Mapping[str, _peers.Run], windows: Array, turns: int
) -> Mapping[str, Spread]:
    """Seconds a call, by name; AssertionError where a peer computes something else."""
    values = np.ascontiguousarray(windows.swapaxes(1, 2))
    calls = {"ours": _ours(predictor, values, np.ones(values.shape, bool))}
    calls |= {name: run(windows) for name, run in peers.items()}
    told = calls["ours"]()["told"].value
    for name, call in calls.items():
        if name not in {"ours", "nnx.RNN"}:
            np.testing.assert_allclose(call(), told, atol=0.2 if "bf16" in name else _AGREE, err_msg=name)
    return _taken(calls, turns)


def _ours(predictor: Predictor, values: Array, observed: NDArray[np.bool_]) -> Callable[[], Any]:
    return lambda: predictor.predict(values, observed)


def _taken(calls: Mapping[str, Callable[[], Any]], turns: int) -> Mapping[str, Spread]:
    for call in calls.values():
        call()  # what is compiled or allocated at the first time is not measured
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            taken[name].append(_cpu(call))
    return {name: Spread.of(seconds) for name, seconds in taken.items()}


def _cpu(call: Callable[[], Any]) -> float:
    """Of one call, the mean over a turn [s]."""
    calls, begin = 0, time.process_time()
    while time.process_time() - begin < _TURN:
        call()
        calls += 1
    return (time.process_time() - begin) / calls


def _rows(network: str, size: int, taken: Mapping[str, Spread], goals: Mapping[str, float]) -> Iterator[Row]:
    """One for each peer; the first alone where there is none."""
    rates = {name: Spread(size / each.median, size / each.high, size / each.low) for name, each in taken.items()}
    ours, figure = rates.pop("ours"), f"{network}, {size:,} at once"
    if not rates:
        yield Row(figure, ours, "1/s of CPU", Better.MORE)
    for name, rate in rates.items():
        goal = Goal(goals[name], of_ratio=True) if name in goals else None
        yield Row(figure, ours, "1/s of CPU", Better.MORE, Peer(name, rate), goal)


def _scaled(spread: Spread, factor: float) -> Spread:
    return Spread(factor * spread.median, factor * spread.low, factor * spread.high)
