"""What a plant can be asked to be."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from opcua_sim.faults import Planned
from opcua_sim.state import Identity

MAX_ENGINES = 500


class Security(StrEnum):
    """What channels the server offers."""

    NONE = "none"
    """Open: for a development plant on this machine."""
    SIGN_ENCRYPT = "sign-encrypt"
    """Basic256Sha256, Sign & Encrypt, for clients whose certificate is in the folder of trusted ones; nothing else."""


@dataclass(frozen=True, slots=True)
class Options:
    """Which plant, and where."""

    host: str = "127.0.0.1"
    port: int = 4840
    """0: any free port."""
    engines: int = 20
    seed: int = 1
    period: float = 1.0
    """One cycle of an engine and one hour of the gas turbine last so long [s]."""
    dataset: str = "FD001"
    history_runs: int = 3
    """Completed runs of each engine before the plant was first started."""
    gas_turbine: bool = True
    gas_turbine_start: int = 2014
    """Year whose first hour is now when the plant is first started."""
    state: Path | None = None
    """Folder to be the same plant again after a restart; None: nothing is remembered."""
    truth: Path | None = None
    """Folder for what only the simulator knows; None: it is not written."""
    faults: tuple[Planned, ...] = ()
    security: Security = Security.NONE
    trusted: Path | None = None
    """Folder of client certificates (DER); None: ``pki/trusted`` in the state folder."""

    def __post_init__(self) -> None:
        if not 0 <= self.engines <= MAX_ENGINES:
            raise ValueError(f"engines: {self.engines}; a plant has 0 to {MAX_ENGINES}")
        if not 0.01 <= self.period <= 3600:
            raise ValueError(f"period: {self.period} s; it lies between 0.01 s and an hour")
        if not (self.engines or self.gas_turbine):
            raise ValueError("a plant without engines and without a gas turbine has no tags")
        if self.security is Security.SIGN_ENCRYPT and self.state is None:
            raise ValueError("security needs a state folder, for the certificate")
        if self.history_runs < 0:
            raise ValueError(f"history runs: {self.history_runs}; there can't be less than none")

    def identity(self) -> Identity:
        """What must not change while a state folder is kept."""
        return Identity(
            self.seed,
            self.dataset,
            self.engines,
            self.period,
            self.history_runs,
            self.gas_turbine,
            self.gas_turbine_start,
        )
