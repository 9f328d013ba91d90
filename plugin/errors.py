"""Every error that foretag raises on purpose.

    ForetagError
    ├── ConfigError          the file is wrong: every fault listed with field, value and remedy
    ├── CertificateError     our own certificate or key can't be used: needs a person
    ├── SecretError          a password or key is not where it is said to be, or everybody may read it
    ├── ServiceError         the running service can't be asked: there is none, or it does not answer
    │   └── AlreadyRunning       another service has this data folder or database
    ├── SourceError          a plant server can't be used
    │   ├── SourceUnreachable    no connection, or it was lost: tried again by itself
    │   └── SourceRefused        certificate, policy or credential refused: needs a person
    ├── StoreError           the database can't be used
    │   ├── StoreUnavailable     away, locked or full: tried again by itself
    │   ├── StoreDamaged         the file is damaged: needs a person; what arrives waits in the spill
    │   └── StoreRevisionError   another schema revision: the message names the command that mends it
    ├── ModelError           a model can't be trained or used
    │   ├── TrainingDataError    the historian does not (yet) hold what the model needs
    │   └── ArtifactError        an artifact is missing, truncated, altered or of another version
    ├── PublishError         a result could not be published or written back
    └── ExchangeError        a file of history can't be read or written

Errors of libraries are translated where they enter (acquire, historian, publish, infer) with ``from``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class ForetagError(Exception):
    """The root: whoever catches this catches all that foretag raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a configuration: where, what stands there, and how to mend it."""

    field: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        value = self.value if self.value.isprintable() else ascii(self.value)  # it may hold what steers a terminal
        return f"{self.field} = {value}: {self.problem}. {self.remedy}"


_SHOWN = 100
"""Faults in the text of an error, which has to be read on a screen."""


class ConfigError(ForetagError):
    """A configuration with one or more faults, all of them listed."""

    def __init__(self, origin: str, faults: Sequence[Fault]) -> None:
        self.origin = origin
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults[:_SHOWN])
        lines += f"\n  and {len(self.faults) - _SHOWN:,} more" if len(self.faults) > _SHOWN else ""
        super().__init__(f"{origin}: {len(self.faults)} fault(s)\n{lines}")


class CertificateError(ForetagError):
    """Our own certificate or key, or a certificate that was named, can't be used; a person has to act."""


class SecretError(ForetagError):
    """A password or key is not where it is said to be, or everybody may read it; a person has to act."""


class ServiceError(ForetagError):
    """The running service can't be asked: there is none, or it does not answer."""


class AlreadyRunning(ServiceError):
    """Another service has this data folder or database."""


class SourceError(ForetagError):
    """A plant server can't be used."""


class SourceUnreachable(SourceError):
    """No connection, or the connection was lost; the source tries again by itself."""


class SourceRefused(SourceError):
    """The server, or our own trust list, refused; a person has to act."""


class StoreError(ForetagError):
    """The database can't be used."""


class StoreMissing(StoreError):
    """There is no database yet."""

    @classmethod
    def told(cls, path: Path) -> Self:
        """With what to do."""
        return cls(f"There is no database {path}; `foretag run` makes it")


class StoreUnavailable(StoreError):
    """The database is away, locked or full; the writer tries again by itself."""


class StoreDamaged(StoreError):
    """The database's file is damaged: a person has to put a sound one in its place. Samples wait meanwhile, unless that
    is at a start."""

    @classmethod
    def told(cls, path: Path, detail: str) -> Self:
        """With what to do."""
        return cls(
            f"{path} is damaged ({detail}): stop foretag, move it away with its -wal and -shm, and put a backup "
            "(`foretag backup`) in its place, or nothing to begin anew; "
            "what waits in the spill follows at the next start"
        )


class StoreRevisionError(StoreError):
    """The database has another schema revision than this release."""


class ModelError(ForetagError):
    """A model can't be trained or used."""


class TrainingDataError(ModelError):
    """The historian does not (yet) hold what the model needs to be trained."""


class ArtifactError(ModelError):
    """A model artifact is missing, truncated, altered, or of another version."""


class PublishError(ForetagError):
    """A result could not be published or written back."""


class ExchangeError(ForetagError):
    """A file of history can't be read or written; what was stored of it before stays."""
