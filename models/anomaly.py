"""Kind ``anomaly``: the best of several detectors for these data, found without a label.

Principal components, a vector autoregression and both autoencoders, or those of them that the option ``detectors``
names. The linear ones win often; which one is used, and what each saw of the faults that all were shown, is among the
metrics (``uses_…``, ``sees_…``), see :mod:`models.faults`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from models import autoencoders, pca_anomaly, var_anomaly
from models.autoencoders import Autoencoder, ConvAutoencoder, LstmAutoencoder
from models.kind import Spec
from models.options import read
from models.residuals import Detector
from models.scored import Scored

_EVERY: tuple[Detector, ...] = (
    pca_anomaly.Pca(),
    var_anomaly.Var(),
    Autoencoder("lstm", LstmAutoencoder),
    Autoencoder("conv", ConvAutoencoder),
)


@dataclass(frozen=True)
class Options(pca_anomaly.Options, var_anomaly.Options, autoencoders.Options):
    """Hyperparameters of all detectors."""

    detectors: str = field(default=" ".join(detector.name for detector in _EVERY))
    """Those that take part, with spaces between."""


class Anomaly(Scored):
    """The best of several detectors; see the module."""

    name = "anomaly"

    def __init__(self) -> None:
        super().__init__(Options, *_EVERY)

    def chosen_from(self, spec: Spec) -> Sequence[Detector]:
        """Those that the option names; ValueError where it names another."""
        names = read(Options, spec).detectors.split()
        known = {detector.name: detector for detector in _EVERY}
        if not names or set(names) - set(known) or len(set(names)) != len(names):
            raise ValueError(f"option detectors = {' '.join(names)!r}: must name some of {' '.join(known)}, each once")
        return [known[name] for name in names]
