"""Descent of an ensemble, folds, and the conformal quantile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.training import Budget, alike, conformal, descend, folds

BUDGET = Budget(steps=50, rate=0.1, decay=0.0)


def towards(weights, key, shared, own):
    return jnp.square(weights["w"] - shared - own)


def test_each_member_descends_on_its_own_data():
    told = []
    found = descend(
        towards, {"w": np.zeros(2, np.float32)}, np.float32(1), np.array([0.0, 1.0], np.float32), BUDGET,
        jax.random.key(0), lambda share, message: told.append((share, message)),
    )  # fmt: skip
    assert np.asarray(found["w"]) == pytest.approx([1.0, 2.0], abs=0.3)
    assert told[0] == (0.0, "compiling")
    assert told[-1][0] == 1.0
    assert told[-1][1].startswith("step 52 of 52")


def test_with_patience_a_member_keeps_what_is_best_on_what_it_does_not_learn_from():
    told: list[str] = []
    weights = {"w": np.zeros(2, np.float32)}
    own, held = np.array([2.0, 2.0], np.float32), np.array([1.0, 2.0], np.float32)
    patient = Budget(steps=4000, rate=0.01, decay=0.0, patience=200)
    found = descend(
        towards, weights, np.float32(0), own, patient, jax.random.key(0), lambda share, line: told.append(line), held
    )
    assert np.asarray(found["w"]) == pytest.approx([1.0, 2.0], abs=0.2), "the first one passed by what is best"
    assert any(line.startswith("step") for line in told)
    assert not told[-1].startswith("step 4000"), "it ends once none gets better"
    whole = descend(towards, weights, np.float32(0), own, patient, jax.random.key(0), lambda share, line: None)
    assert np.asarray(whole["w"]) == pytest.approx([2.0, 2.0], abs=0.01), (
        "without anything held out all steps are taken"
    )


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="diverged"):
        descend(
            towards, {"w": np.zeros(1, np.float32)}, np.float32(np.nan), np.zeros(1, np.float32), BUDGET,
            jax.random.key(0), lambda share, message: None,
        )  # fmt: skip


def test_an_exception_out_of_progress_ends_it():
    class Stopped(Exception):
        pass

    told = []

    def stop(share, message):
        told.append(share)
        if share > 0:
            raise Stopped

    with pytest.raises(Stopped):
        descend(
            towards, {"w": np.zeros(1, np.float32)}, np.float32(0), np.zeros(1, np.float32), BUDGET,
            jax.random.key(0), stop,
        )  # fmt: skip
    assert sum(share > 0 for share in told) == 1


def test_folds_cut_no_group():
    group = np.repeat(np.arange(10, dtype=np.int32), 3)[::-1]
    found = folds(group, 5, seed=1)
    assert sorted(np.unique(found).tolist()) == [0, 1, 2, 3, 4]
    assert all(len(np.unique(found[group == name])) == 1 for name in range(10))
    with pytest.raises(ValueError, match="there are 10 units or runs; it takes 11 or more"):
        folds(group, 11, seed=1)


def test_the_conformal_quantile_keeps_its_promise_on_average():
    generator = np.random.default_rng(5)
    kept = []
    for _ in range(2000):
        scores = generator.exponential(size=20)
        kept.append(scores[-1] <= conformal(scores[:-1], 0.9))
    assert 0.88 < np.mean(kept) < 0.93


def test_with_few_units_the_conformal_quantile_is_the_largest_score():
    assert conformal(np.arange(1000.0), 0.9, independent=5) == 999.0


def test_the_conformal_quantile_is_no_rank_higher_than_it_has_to_be():
    for count in (9, 10, 19, 99, 998):
        rank = min(count, int(np.ceil((count + 1) * 0.9)))
        assert conformal(np.arange(1.0, count + 1), 0.9) == rank, "the k-th smallest"


def test_members_of_fewer_rows_have_some_more_than_once():
    found = alike([np.array([[1, 2], [3, 4]]), np.array([[5, 6]]), np.zeros((0, 2), np.intp)])
    assert found.tolist() == [[[1, 2], [3, 4]], [[5, 6], [5, 6]], [[1, 2], [1, 2]]]
