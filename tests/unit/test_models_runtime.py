"""Buckets of shapes, counted compilations, and the choice of the device."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import runtime
from models.kind import Estimate, OutputSpec, Spec
from models.runtime import Predictor, bucket, choose_device


class Sum:
    """The smallest kind: the sum of what is observed times a weight."""

    name = "sum"
    roles = ()

    def check(self, spec):
        pass

    def init(self, spec, key):
        return {"weight": np.float32(2)}

    def fit(self, spec, data, progress):
        raise NotImplementedError

    def outputs(self, spec):
        return (OutputSpec("sum", "", 0.0, 1.0, "Sum"),)

    def predict(self, spec, params, values, observed):
        value = params["weight"] * jnp.where(observed, values, 0.0).sum((1, 2))
        value = jnp.where(observed.any((1, 2)), value, jnp.nan)
        return {"sum": Estimate(value, value - 1, value + 1)}


class Ahead(Sum):
    """A number for each of two cells to come, beside one of the window."""

    def outputs(self, spec):
        return (OutputSpec("later", "", 0.0, 1.0, "Later", ahead=(1, 2)), *super().outputs(spec))

    def predict(self, spec, params, values, observed):
        found = super().predict(spec, params, values, observed)
        later = [jnp.stack([part, 10 * part], 1) for part in found["sum"]]
        return found | {"later": Estimate(*later)}


@pytest.fixture
def predictor():
    return Predictor(Sum(), Spec("sum", ("a", "b"), 200), {"weight": np.float32(2)}, choose_device("cpu"))


def windows(n, t, seen=None):
    observed = np.zeros((n, 2, t), bool)
    observed[:, :, t - (t if seen is None else seen) :] = True
    return np.where(observed, np.arange(1, n + 1)[:, None, None], 0).astype(np.float32), observed


@pytest.mark.parametrize(("n", "t"), [(1, 200), (3, 200), (5, 7), (8, 1)])
def test_rows_come_back_as_they_went_in(predictor, n, t):
    found = predictor.predict(*windows(n, t))["sum"]
    assert found.value.tolist() == [4.0 * row * t for row in range(1, n + 1)]
    assert found.lower.tolist() == (found.value - 1).tolist()
    assert all(isinstance(part, np.ndarray) and part.dtype == np.float32 for part in found)


@pytest.mark.parametrize("n", [1, 3, 128, 130])
def test_a_forecast_comes_back_by_window_and_cell_to_come(predictor, monkeypatch, n):
    monkeypatch.setattr(runtime, "_CELLS", 2 * 200 * 64)
    ahead = Predictor(Ahead(), predictor.spec, {"weight": np.float32(2)}, choose_device("cpu"))
    told, plain = ahead.predict(*windows(n, 200)), predictor.predict(*windows(n, 200))["sum"]
    assert list(told) == ["later", "sum"]
    for later, once, alone in zip(told["later"], told["sum"], plain, strict=True):
        assert later.tolist() == [[value, 10 * value] for value in alone.tolist()]
        assert once.tolist() == alone.tolist()


def test_once_warm_nothing_is_compiled(predictor):
    predictor.warm(6)
    for n in (5, 6, 7, 8):
        for t in (1, 64, 200):
            predictor.predict(*windows(n, t))
    assert predictor.compilations == 1
    predictor.predict(*windows(9, 200))
    assert predictor.compilations == 2


def test_cells_that_are_not_observed_change_nothing(predictor):
    assert predictor.predict(*windows(3, 200, 30))["sum"].value.tolist() == [120.0, 240.0, 360.0]


def test_a_row_with_nothing_observed_has_no_number(predictor):
    assert np.isnan(predictor.predict(*windows(2, 50, 0))["sum"].value).all()


@pytest.mark.parametrize("shape", [(2, 3, 10), (2, 2, 201)])
def test_axes_that_are_not_the_specs_are_refused(predictor, shape):
    with pytest.raises(ValueError, match="do not fit 2 features and at most 200 cells"):
        predictor.predict(np.zeros(shape, np.float32), np.zeros(shape, bool))


def test_few_buckets_serve_all_sizes_and_little_is_computed_in_vain():
    sizes = (0, 1, 2, 3, 9, 64, 65, 128, 129, 10_000)
    assert [bucket(size) for size in sizes] == [1, 1, 2, 4, 16, 64, 72, 128, 144, 10_240]


def test_a_device_that_is_not_there_falls_back_to_the_cpu_with_the_reason(caplog):
    caplog.set_level(logging.INFO, "models.runtime")
    if any(device.platform == "tpu" for device in jax.devices()):
        pytest.skip("there is a TPU here")
    assert choose_device("tpu").platform == "cpu"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "no TPU is to be had (" in caplog.text


def test_the_log_says_what_runs_where(caplog):
    caplog.set_level(logging.INFO, "models.runtime")
    assert choose_device("cpu").platform == "cpu"
    assert "models run on the CPU" in caplog.text


def test_the_compile_cache_is_ours_alone(tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        runtime.enable_compile_cache(tmp_path / "cache")
        assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "cache")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_many_windows_are_computed_in_blocks_of_one_program(predictor, monkeypatch):
    monkeypatch.setattr(runtime, "_CELLS", 2 * 200 * 64)
    blocks = Predictor(Sum(), predictor.spec, {"weight": np.float32(2)}, choose_device("cpu"))
    for n in (64, 65, 128, 200):
        values, observed = windows(n, 200)
        found, wanted = blocks.predict(values, observed)["sum"], predictor.predict(values, observed)["sum"]
        assert found.value.tolist() == wanted.value.tolist()
        assert found.upper.shape == (n,)
    assert blocks.compilations == 3, "of 64 windows, of 1 and of 8"


def test_no_window_gives_no_number(predictor):
    assert predictor.predict(*windows(0, 200))["sum"].value.tolist() == []


def test_an_option_that_the_compiler_does_not_know_costs_no_prediction(predictor, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "_WIDE", {"xla_cpu_of_another_release": "1"})
    there = Predictor(Sum(), predictor.spec, {"weight": np.float32(2)}, choose_device("cpu"))
    found, wanted = (each.predict(*windows(3, 200))["sum"] for each in (there, predictor))
    assert found.value.tolist() == wanted.value.tolist()
    assert "xla_cpu_of_another_release" in caplog.text
