"""Which kinds of models there are: ours, and those of other packages that the configuration allows."""

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from models.anomaly import Anomaly
from models.autoencoders import ConvAutoencoderKind, LstmAutoencoderKind
from models.failure_lstm import FailureLstm
from models.failure_mlp import FailureMlp
from models.forecast_lstm import ForecastLstm
from models.kind import ModelKind
from models.pca_anomaly import PcaAnomaly
from models.quality_mlp import QualityMlp
from models.rul_lstm import RulLstm
from models.var_anomaly import VarAnomaly

log = logging.getLogger(__name__)

GROUP = "foretag.model_kinds"


def kinds(allowed: Sequence[str] = ()) -> Mapping[str, ModelKind]:
    """Kinds by name. ``allowed``: entry points of the group ``foretag.model_kinds`` that may be loaded, by name.

    Code of a package that is merely installed never runs. ValueError where an allowed one can't be had or takes a name
    of ours.
    """
    ours: list[ModelKind] = [RulLstm(), QualityMlp(), ForecastLstm(), PcaAnomaly(), VarAnomaly()]
    ours += [FailureMlp(), FailureLstm()]
    ours += [LstmAutoencoderKind(), ConvAutoencoderKind(), Anomaly()]
    found = {kind.name: kind for kind in ours}
    offered = {point.name: point for point in entry_points(group=GROUP)}
    for name in allowed:
        if name not in offered:
            raise ValueError(f"no installed package offers a model kind {name!r} (entry point group {GROUP})")
        kind: ModelKind = offered[name].load()()
        if kind.name in found:
            raise ValueError(f"the model kind {kind.name!r} of {offered[name].value} is there already")
        log.info("model kind %s comes from %s", kind.name, offered[name].value)
        found[kind.name] = kind
    return found
