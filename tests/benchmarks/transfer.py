"""A model for a machine with few runs to failure, begun from another fleet's (C-MAPSS, simulated), beside from scratch.

The start is trained on the 100 units of FD001, which fail in one way; FD003 has a second one. Of FD003's units for
training a random few are known; asked once for each test unit, at its last cycle, labels capped at 125 cycles. Two
members instead of five, else the default options, the same number of steps for all; nothing was chosen on FD003.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from models import adapting
from models.adapting import Start
from models.kind import Params, Spec
from models.light import outputs_of
from models.rul_lstm import RulLstm
from tests.benchmarks import rul
from tests.benchmarks.harness import Peer, Row, Spread
from tests.benchmarks.rul import CAP, Fleet

_KIND = RulLstm()
_MEMBERS = 2
_KNOWN = 5


async def measure(quick: bool) -> Sequence[Row]:
    """One draw of the units and one seed; three of each without ``quick``."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cmapss"
    files = [folder / f"{part}_{name}.txt" for name in ("FD001", "FD003") for part in ("train", "test", "RUL")]
    if lacking := [file for file in files if not file.exists()]:
        print(f"transfer is left out: {lacking[0]} is not there (FORETAG_DATA names the folder that holds cmapss)")
        return []
    old, new = rul.read(folder, "FD001"), rul.read(folder, "FD003")
    draws = [_errors(old, new, seed) for seed in range(1 if quick else 3)]
    return list(_rows({way: Spread.of(each[way] for each in draws) for way in draws[0]}))


def _errors(old: Fleet, new: Fleet, seed: int) -> dict[str, float]:
    """RMSE [cycles] of each way."""
    spec = Spec("rul_lstm", rul.FEATURES, max(old.length, new.length), rul.ROLES, {"members": _MEMBERS}, seed)
    known = np.random.default_rng(seed).choice(len(new.train), _KNOWN, replace=False)
    few = rul.windows([new.train[unit] for unit in known], spec.length)
    start = _KIND.fit(spec, rul.windows(old.train, spec.length), _silent).params
    adapted = {
        way: adapting.fit(_KIND, spec, Start(spec, start, head_only), few, _silent).params
        for way, head_only in (("head alone", True), ("all weights", False))
    }
    ways = {**adapted, "FD001's as it is": start, "from scratch": _KIND.fit(spec, few, _silent).params}
    return {way: _error(spec, params, new) for way, params in ways.items()}


def _error(spec: Spec, params: Params, fleet: Fleet) -> float:
    asked = rul.windows(fleet.test, spec.length)
    told = outputs_of(_KIND, spec, params, asked.values, asked.observed)["rul"]
    return rul.rmse(told, np.minimum(fleet.left, CAP))


def _rows(errors: dict[str, Spread]) -> Iterable[Row]:
    scratch = Peer("from scratch", errors["from scratch"])
    for way, error in errors.items():
        beside = None if way == "from scratch" else scratch
        yield Row(f"FD003 with {_KNOWN} runs, {way}: RMSE", error, "cycles", peer=beside)


def _silent(share: float, message: str) -> None:
    pass
