"""Light models and rough inputs on C-MAPSS FD001 (simulated): size, time and error of each form, and what harms it.

The full model, its bfloat16, int8 and pruned forms; a student as ``light = "student"`` has it, which learns half of
what a teacher of four fifths of the training units says of these; and the same small network that learns from all
units, without a teacher. Each is asked once for each test unit, at its last cycle; labels capped at 125 cycles. Then
the full model's error with noise, without each sensor in turn, and with inputs made to mislead it (PGD).
"""

import math
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from models import light, robust
from models.kind import Params, Spec, TrainingData
from models.robust import Case
from models.rul_lstm import RulLstm
from models.runtime import Predictor
from tests.benchmarks import rul
from tests.benchmarks.harness import Better, Peer, Row, Spread
from tests.benchmarks.rul import CAP, Fleet

_RUNS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """One form of the model."""

    name: str
    spec: Spec
    params: Params


async def measure(quick: bool) -> Sequence[Row]:
    """One seed; ``quick``: half of the training steps."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cmapss"
    if not (folder / "train_FD001.txt").exists():
        print(f"light is left out: {folder} holds no FD001 (FORETAG_DATA names the folder that holds cmapss)")
        return []
    fleet = rul.read(folder, "FD001")
    asked = rul.windows(fleet.test, fleet.length)
    built = list(_built(fleet, 200 if quick else 400))
    return [*_forms(fleet, asked, built), *_harmed(fleet, asked, built[0])]


def _built(fleet: Fleet, steps: int) -> Iterable[Built]:
    spec = Spec("rul_lstm", rul.FEATURES, fleet.length, rul.ROLES, {"steps": steps})
    data = rul.windows(fleet.train, fleet.length)
    kind = RulLstm()
    full = kind.fit(spec, data, _silent).params
    yield Built("full", spec, full)
    yield Built("bf16", spec, light.halved(full))
    yield Built("int8", spec, light.quantised(full))
    yield Built("pruned", spec, light.quantised(full, light.PRUNED))
    small = light.student(spec)
    yield Built("student", small, light.fit(kind, spec, data, "student", math.inf, _silent).params)
    yield Built("small, without a teacher", small, kind.fit(small, data, _silent).params)


def _forms(fleet: Fleet, asked: TrainingData, built: Sequence[Built]) -> Iterable[Row]:
    truth = np.minimum(fleet.left, CAP)
    told = {each.name: _told(each, asked) for each in built}
    full = built[0]
    size = Spread.of([light.size(full.params) / 1000.0])
    seconds = {each.name: _milliseconds(each, asked) for each in built}
    for each in built:
        error = Spread.of([rul.rmse(told[each.name]["rul"], truth)])
        beside = None if each is full else Peer("full", Spread.of([rul.rmse(told["full"]["rul"], truth)]))
        yield Row(f"{each.name}: RMSE", error, "cycles", peer=beside)
        own = Spread.of([light.size(each.params) / 1000.0])
        yield Row(f"{each.name}: size", own, "kB", peer=None if each is full else Peer("full", size))
        yield Row(
            f"{each.name}: {len(truth)} windows",
            seconds[each.name],
            "ms",
            peer=None if each is full else Peer("full", seconds["full"]),
        )
        strayed = 100.0 * light.strayed(told["full"], told[each.name])["rul"]
        yield Row(f"{each.name}: strays from the full one in 95 %, at most", Spread.of([strayed]), "% of spread")


def _harmed(fleet: Fleet, asked: TrainingData, full: Built) -> Iterable[Row]:
    truth = np.minimum(fleet.left, CAP).astype(np.float32)
    case = Case(RulLstm(), full.spec, full.params, "rul", asked.values, asked.observed, truth)
    clean = Peer("clean", Spread.of([robust.error(case)]))
    for sigma in (0.1, 0.3, 1.0):
        noisy = Spread.of([robust.with_noise(case, sigma, seed) for seed in range(3)])
        yield Row(f"RMSE, noise of {sigma:g} standard deviations", noisy, "cycles", peer=clean)
    yield Row("RMSE, one sensor dead, each in turn", Spread.of(robust.without(case).values()), "cycles", peer=clean)
    for epsilon in (0.05, 0.1):
        found = Spread.of([robust.under_attack(case, epsilon)])
        yield Row(f"RMSE, misled within {epsilon:g} standard deviations", found, "cycles", Better.LESS, peer=clean)


def _told(built: Built, asked: TrainingData) -> Mapping[str, NDArray[np.float32]]:
    return light.outputs_of(RulLstm(), built.spec, built.params, asked.values, asked.observed)


def _milliseconds(built: Built, asked: TrainingData) -> Spread:
    """Of all windows in one call."""
    predictor = Predictor(RulLstm(), built.spec, built.params, jax.devices("cpu")[0])
    predictor.predict(asked.values, asked.observed)
    taken = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        predictor.predict(asked.values, asked.observed)
        taken.append(1000.0 * (time.perf_counter() - begin))
    return Spread(statistics.median(taken), min(taken), max(taken))


def _silent(share: float, line: str) -> None:
    pass
