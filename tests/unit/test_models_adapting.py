"""Training that begins where another ended: better with few runs, nothing frozen moves, misfits are named."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from models import adapting, light
from models.adapting import Start
from models.checks import check_kind
from models.kind import Adaptable, Fitted, Spec, TrainingData
from models.pca_anomaly import PcaAnomaly
from models.quality_mlp import QualityMlp
from models.rul_lstm import RulLstm

KIND = RulLstm()
OPTIONS = {"cap": 40, "horizon": 10, "context": 24, "hidden": 12, "members": 1, "steps": 200, "batch": 24, "trees": 4}
"""Few trees: they learn this wear from five runs as well, and it is the network that is to be looked at."""
SPEC = Spec("rul_lstm", ("cycle", "wear", "noise"), 80, {"age": "cycle"}, OPTIONS)
SHORT = replace(SPEC, options={**OPTIONS, "steps": 40})


def silent(share: float, message: str) -> None:
    pass


def lives(count: int, seed: int, *, wear: float = 0.002, level: float = 0.0) -> TrainingData:
    """Units that wear ever faster in their last 40 cells, from a level of their own around the fleet's."""
    generator = np.random.default_rng(seed)
    values = np.zeros((count, 3, 80), np.float32)
    observed = np.zeros(values.shape, bool)
    target = np.full((count, 80), np.nan, np.float32)
    for unit, length in enumerate(generator.integers(50, 81, count)):
        left = np.arange(length)[::-1]
        worn = level + generator.normal() + wear * np.maximum(40 - left, 0) ** 2 + generator.normal(0, 0.1, length)
        values[unit, :, -length:] = np.arange(1, length + 1), worn, generator.normal(size=length)
        observed[unit, :, -length:] = True
        target[unit, -length:] = left
    return TrainingData(values, observed, target, np.arange(count, dtype=np.int32))


def other_fleet(count: int, seed: int) -> TrainingData:
    return lives(count, seed, wear=0.0012, level=1.5)


@pytest.fixture(scope="module")
def start() -> Start:
    return Start(SPEC, KIND.fit(SPEC, lives(30, 3), silent).params, head_only=True)


PREDICT = jax.jit(partial(KIND.predict, SHORT))


def error(fitted: Fitted) -> float:
    """RMSE [cells] at many ages of other units of the other fleet."""
    data = other_fleet(20, 8)
    squares = []
    for hidden in (0, 8, 16, 24, 32, 40):
        shown = (np.pad(part, ((0, 0), (0, 0), (hidden, 0)))[..., :80] for part in (data.values, data.observed))
        told = jax.device_get(PREDICT(fitted.params, *shown))["rul"].value
        squares.append((told - min(hidden, 40)) ** 2)
    return float(np.sqrt(np.mean(squares)))


def test_three_runs_and_another_fleets_model_do_better_than_five_runs_from_scratch(start):
    scratch = error(KIND.fit(SHORT, other_fleet(5, 5), silent))
    for head_only in (True, False):
        adapted = adapting.fit(KIND, SHORT, replace(start, head_only=head_only), other_fleet(3, 5), silent)
        assert error(adapted) < 0.8 * scratch


def test_the_head_alone_moves_and_all_of_it_where_that_is_asked_for(start):
    data = other_fleet(3, 5)
    before = start.params["network"]
    head = adapting.fit(KIND, SHORT, start, data, silent).params
    whole = adapting.fit(KIND, SHORT, replace(start, head_only=False), data, silent).params

    def moved(params, branch):
        return not jax.tree.all(jax.tree.map(np.array_equal, params["network"][branch], before[branch]))

    assert [moved(head, branch) for branch in ("gates", "recurrent", "head")] == [False, False, True]
    assert all(moved(whole, branch) for branch in before)
    assert jax.tree.all(jax.tree.map(np.array_equal, head["scale"], start.params["scale"]))
    kept = [name for name, leaf in head["trees"].items() if np.array_equal(leaf, start.params["trees"][name])]
    assert sorted(kept) == ["above", "input", "mean"]
    assert not np.array_equal(head["margin"], start.params["margin"])


def test_a_packed_start_is_unpacked(start):
    packed = replace(start, params=light.quantised(start.params, light.PRUNED))
    found = adapting.fit(KIND, SHORT, packed, other_fleet(3, 5), silent)
    assert jax.tree.map(np.shape, found.params) == jax.tree.map(np.shape, start.params)


class FromOld:
    """The soft sensor or the RUL kind, each fit of which is an adaptation."""

    def __init__(self, kind, start: Start) -> None:
        self._kind, self._start = kind, start
        self.name, self.roles = kind.name, kind.roles
        self.check, self.outputs, self.init, self.predict = kind.check, kind.outputs, kind.init, kind.predict

    def fit(self, spec, data, progress):
        return adapting.fit(self._kind, spec, self._start, data, progress)


def quality(cells: int = 24, windows: int = 8) -> TrainingData:
    generator = np.random.default_rng(7)
    values = generator.normal(size=(windows, 3, cells)).astype(np.float32)
    target = values[:, 0] + 0.1 * generator.normal(size=(windows, cells)).astype(np.float32)
    return TrainingData(values, np.ones(values.shape, bool), target, np.arange(windows, dtype=np.int32))


QUALITY = Spec(
    "quality_mlp", ("a", "b", "y"), 24, {"lab": "y"},
    {"output": "y", "delay": 2, "hidden": 4, "members": 2, "steps": 20, "batch": 4},
)  # fmt: skip


def test_an_adapted_life_keeps_the_promises_of_its_kind(start):
    assert isinstance(KIND, Adaptable)
    few = replace(SHORT, options={**OPTIONS, "steps": 4})
    assert check_kind(FromOld(KIND, start), few, other_fleet(3, 5)) == []


def test_an_adapted_soft_sensor_keeps_the_promises_of_its_kind():
    old = Start(QUALITY, QualityMlp().fit(QUALITY, quality(), silent).params, head_only=False)
    assert check_kind(FromOld(QualityMlp(), old), QUALITY, quality()) == []


def test_the_soft_sensors_hidden_layers_stay_when_the_head_alone_is_trained():
    old = QualityMlp().fit(QUALITY, quality(), silent).params
    new = adapting.fit(QualityMlp(), QUALITY, Start(QUALITY, old, head_only=True), quality(windows=6), silent).params
    same = {
        name: jax.tree.all(jax.tree.map(np.array_equal, new["network"][name], old["network"][name]))
        for name in old["network"]
    }
    assert same == {"first": True, "second": True, "head": False, "straight": False}
    assert np.array_equal(new["lab"]["mean"], old["lab"]["mean"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"features": ("cycle", "noise", "wear")}, "features = .*must be the same"),
        ({"cleaning": {"hampel": 3}}, "cleaning = "),
        ({"options": {**OPTIONS, "cap": 50}}, "option cap = 50, in the version to begin from 40"),
    ],
)
def test_what_does_not_fit_is_named(start, change, told):
    with pytest.raises(ValueError, match=told):
        adapting.fit(KIND, replace(SPEC, **change), start, lives(3, 5), silent)


def test_a_start_of_another_shape_is_refused(start):
    less = {**start.params, "network": {**start.params["network"], "head": start.params["network"]["gates"]}}
    with pytest.raises(ValueError, match=r"holds \['network'\]\['head'\].*train it again"):
        adapting.fit(KIND, SPEC, replace(start, params=less), lives(3, 5), silent)


def test_a_kind_that_can_not_says_so(start):
    with pytest.raises(ValueError, match="kind pca_anomaly can't begin from another version"):
        adapting.fit(PcaAnomaly(), replace(SPEC, kind="pca_anomaly"), start, lives(3, 5), silent)


def test_one_run_can_not_be_judged(start):
    with pytest.raises(ValueError, match="there are 1 units or runs; it takes 2 or more"):
        adapting.fit(KIND, SHORT, start, other_fleet(1, 5), silent)
