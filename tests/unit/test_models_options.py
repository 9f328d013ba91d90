"""A spec that can't be used is refused with option, value and valid range."""

from dataclasses import replace

import pytest

from models.kind import Spec
from models.pca_anomaly import PcaAnomaly
from models.quality_mlp import QualityMlp
from models.rul_lstm import RulLstm

RUL = Spec("rul_lstm", ("cycle", "a", "b"), 40, {"age": "cycle"})
LAB = Spec("quality_mlp", ("a", "b", "y"), 60, {"lab": "y"}, {"output": "y"})
PCA = Spec("pca_anomaly", ("a", "b"), 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": 3}, "hidden = 3: must be a whole number from 4"),
        ({"hidden": 8.0}, "hidden = 8.0: must be a whole number"),
        ({"steps": True}, "steps = True"),
        ({"cap": "125"}, "cap = '125': must be a number"),
        ({"horizon": 125}, "horizon = 125.0: must be below cap"),
        ({"cap": float("nan")}, "cap = nan"),
        ({"cell": "rnn"}, "cell = 'rnn': must be one of lstm, gru, mingru"),
        ({"cell": 1}, "cell = 1: must be one of"),
        ({"colour": 1}, "no option colour; it has batch, cap"),
    ],
)
def test_an_option_out_of_bounds_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        RulLstm().check(replace(RUL, options=options))


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        (RulLstm(), replace(RUL, roles={}), "needs a feature in the role 'age'"),
        (RulLstm(), replace(RUL, roles={"age": "hours"}), "roles.age = 'hours': is not among the features"),
        (RulLstm(), replace(RUL, features=("cycle",)), "needs 1 or more besides"),
        (RulLstm(), replace(RUL, features=("cycle", "a", "a")), "each may stand there once"),
        (QualityMlp(), replace(LAB, options={}), "needs the option output"),
        (QualityMlp(), replace(LAB, options={"output": ""}), "output = '': must be a text"),
        (QualityMlp(), replace(LAB, length=40), "needs 44 or more cells"),
        (PcaAnomaly(), replace(PCA, roles={"lab": "a"}), "knows the role 'age' alone"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(kind, spec, words):
    with pytest.raises(ValueError, match=words):
        kind.check(spec)


@pytest.mark.parametrize(("kind", "spec"), [(RulLstm(), RUL), (QualityMlp(), LAB), (PcaAnomaly(), PCA)])
def test_the_defaults_are_accepted(kind, spec):
    kind.check(spec)
