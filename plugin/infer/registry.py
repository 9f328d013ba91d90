"""Which version of a model is in force, who put it there, and where its artifact lies.

    trained ──> challenger ──promote──> champion ──(another is promoted)──> retired ──promote, roll back──> champion
                     └──────────────────retire──────────────────────────────┘

Every change is one transaction with its entries in the audit log, so that a process that is killed leaves one champion.
The database refuses a second one. A running service looks at each run: a change has effect with the next one.
"""

import asyncio
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models import signature
from models.artifact import Artifact, load, save
from models.artifact import ArtifactError as BrokenArtifact
from models.kind import Fitted, Params, Spec
from models.references import References
from plugin.domain import Audit, ModelState, ModelVersion
from plugin.errors import ArtifactError, ModelError
from plugin.protocols import Store

log = logging.getLogger(__name__)

_REMEDY = "train it again and promote what comes of it, or roll back"
_PROMOTIONS = 100_000
"""Entries of the audit log that are gone through for what was in force before."""
_ROLLED_BACK = "rolled_back"
"""In an entry of the audit log: which version was in force until then."""
_REFERENCES = "training_references"
"""Beside a kind's own parameters in the artifact."""


@dataclass(frozen=True, slots=True)
class LineUp:
    """The versions of a model that fit its configuration."""

    champion: ModelVersion | None
    """In force."""
    challengers: tuple[ModelVersion, ...]
    """Newest first."""


class Contents(NamedTuple):
    """Of an artifact."""

    spec: Spec
    params: Params
    references: References | None
    """What live values are compared with; None: it was trained by a release that kept none."""


class Registry:
    """Model versions: rows in the store, artifacts in a folder."""

    def __init__(
        self, store: Store, folder: Path, *, user: str = "foretag", origin: str = "service", key: Path | None = None
    ) -> None:
        """``user`` and ``origin``: on whose behalf versions are promoted, as the audit log has it. ``key``: public key
        that every version must be signed by; ModelError where it can't be read."""
        try:
            self._key = None if key is None else signature.public_key(key)
        except signature.SignatureError as error:
            raise ModelError(f"foretag.model_key: {error}") from error
        self._store = store
        self._folder = folder
        self._behalf = user, origin
        self._misfits: set[str] = set()

    def unfinished(self, model: str = "") -> Path:
        """Folder for what is kept of a training of the model that is not done; without a model, that of all."""
        return self._folder / "unfinished" / model

    async def champion(self, model: str, spec: Spec) -> ModelVersion | None:
        """The version in force, if it was trained for ``spec``: one for other features or windows can't be used."""
        return (await self.line_up(model, spec)).champion

    async def line_up(self, model: str, spec: Spec) -> LineUp:
        """The versions that can be used with ``spec``, by their state."""
        versions, wanted = await self._store.versions(model), as_json(spec)
        champion = next((version for version in versions if version.state is ModelState.CHAMPION), None)
        if champion is not None and champion.spec != wanted:
            if champion.label not in self._misfits:
                self._misfits.add(champion.label)
                log.warning(
                    "model %s was trained for another configuration of it: it is not used; train it again, or take "
                    "back what was changed in the file",
                    champion.label,
                )
            champion = None
        challengers = (
            v for v in versions if v.state is ModelState.CHALLENGER and v.spec == wanted and self._is_signed(v)
        )
        return LineUp(champion, tuple(challengers))

    async def waits_for_signature(self, model: str, spec: Spec) -> bool:
        """Whether a version of this configuration can't be used for want of a signature alone."""
        wanted = as_json(spec)
        return any(
            version.spec == wanted and version.state is ModelState.CHALLENGER and not self._is_signed(version)
            for version in await self._store.versions(model)
        )

    async def sign(self, version: ModelVersion, key: Ed25519PrivateKey) -> None:
        """Vouch for a version whose artifact is what its row says; ArtifactError where it is not."""
        path = self._folder / version.artifact
        try:
            await asyncio.to_thread(load, path, version.sha256)
            await asyncio.to_thread(signature.sign, path, version.sha256, key)
        except (BrokenArtifact, OSError) as error:
            raise ArtifactError(f"model {version.label}: {error}") from error
        user, origin = self._behalf
        now = datetime.now(UTC)
        await self._store.write_audit(Audit(now, user, origin, "sign", version.label, after={"sha256": version.sha256}))

    def _is_signed(self, version: ModelVersion) -> bool:
        """As far as one sees from outside; :meth:`load` looks whether it is the right one."""
        return self._key is None or signature.beside(self._folder / version.artifact).exists()

    async def version(self, model: str, number: int) -> ModelVersion:
        """A version by its number, in force or not; ModelError where there is none."""
        for version in await self._store.versions(model):
            if version.version == number:
                return version
        raise ModelError(f"model {model} has no version {number}")

    async def promote(
        self, model: str, number: int, spec: Spec, *, because: Mapping[str, Any] = MappingProxyType({})
    ) -> ModelVersion:
        """Put a version in force; the champion retires. ``because``: for the audit log.

        ModelError, and nothing is changed, where there is no such version, it is in force already, was trained for
        another configuration, or its artifact can't be loaded.
        """
        version = await self.version(model, number)
        if version.state is ModelState.CHAMPION:
            raise ModelError(f"model {version.label} is in force already")
        if version.spec != as_json(spec):
            raise ModelError(f"model {version.label} was trained for another configuration of {model}; train it again")
        await self.load(version)
        await self._set(version, ModelState.CHAMPION, because)
        return replace(version, state=ModelState.CHAMPION)

    async def roll_back(self, model: str, spec: Spec) -> ModelVersion:
        """Put the champion of before in force again, as the audit log has it; rolled back twice, the one before that.

        ModelError as for :meth:`promote`, and where there was none before.
        """
        entries = await self._store.audit(action="promote", limit=_PROMOTIONS)
        order = _in_force(model, entries[::-1])
        if len(order) < 2:
            raise ModelError(f"model {model}: no other version was in force before; see `foretag models list {model}`")
        return await self.promote(model, order[-2], spec, because={_ROLLED_BACK: f"{model}-{order[-1]}"})

    async def retire(
        self, model: str, number: int, *, because: Mapping[str, Any] = MappingProxyType({})
    ) -> ModelVersion:
        """Take a challenger out of play; its artifact stays, for what it said can be computed again."""
        version = await self.version(model, number)
        if version.state is not ModelState.CHALLENGER:
            raise ModelError(
                f"model {version.label} is {_STATES[version.state]}; promote another version, or roll back"
                if version.state is ModelState.CHAMPION
                else f"model {version.label} is {_STATES[version.state]}"
            )
        await self._set(version, ModelState.RETIRED, because)
        return replace(version, state=ModelState.RETIRED)

    async def _set(self, version: ModelVersion, state: ModelState, because: Mapping[str, Any]) -> None:
        user, origin = self._behalf
        await self._store.set_state(version.model, version.version, state, user=user, origin=origin, because=because)
        log.info("model %s is %s now", version.label, _STATES[state])

    async def load(self, version: ModelVersion) -> tuple[Spec, Params]:
        """Spec and parameters. As :meth:`contents`."""
        found = await self.contents(version)
        return found.spec, found.params

    async def contents(self, version: ModelVersion) -> Contents:
        """All of it, read once; ArtifactError where the file is missing, altered, not what the row says, or not signed
        by the key that is configured."""
        spec, params = await self._read(version)
        learnt = {name: branch for name, branch in params.items() if name != _REFERENCES}
        return Contents(spec, learnt, References.unpacked(params[_REFERENCES]) if _REFERENCES in params else None)

    async def _read(self, version: ModelVersion) -> tuple[Spec, Params]:
        path = self._folder / version.artifact
        try:
            artifact = await asyncio.to_thread(load, path, version.sha256)
            if self._key is not None:
                await asyncio.to_thread(signature.check, path, artifact.sha256, self._key)
        except signature.SignatureError as error:
            label = version.label
            told = f"look at it with `foretag models show {label}`, then use `foretag models sign {label} --key FILE`"
            raise ArtifactError(f"model {version.label}: {error}; {told}") from error
        except BrokenArtifact as error:
            raise ArtifactError(f"model {version.label}: {error}; {_REMEDY}") from error
        for field, row, file in self._told_twice(version, artifact):
            if row != file:
                told = f"{field} = {row!r} in the database, {file!r} in {path.name}"
                raise ArtifactError(f"model {version.label} is not what its row says: {told}; {_REMEDY}")
        return artifact.spec, artifact.params

    def _told_twice(self, version: ModelVersion, artifact: Artifact) -> Iterator[tuple[str, Any, Any]]:
        """Field by field what the row says, and what the artifact does. Where versions are signed the metrics too: a
        threshold decides on flags."""
        spec = as_json(artifact.spec)
        yield from ((f"spec.{name}", version.spec.get(name), spec.get(name)) for name in sorted({*spec, *version.spec}))
        if self._key is not None:
            for name in sorted({*version.metrics, *artifact.metrics}):
                yield f"metrics.{name}", _finite(version.metrics.get(name)), _finite(artifact.metrics.get(name))

    async def add(
        self,
        model: str,
        spec: Spec,
        fitted: Fitted,
        provenance: Mapping[str, Any],
        created: datetime,
        references: References | None = None,
    ) -> ModelVersion:
        """Write the artifact, then the row; the first version for a configuration becomes the champion, but where it
        has to be signed first. ModelError where the folder takes no artifact."""
        name = f"{model}-{created:%Y%m%dT%H%M%S%f}"
        content = {"metrics": fitted.metrics, "provenance": provenance}
        params = fitted.params if references is None else {**fitted.params, _REFERENCES: references.packed()}
        try:
            artifact = await asyncio.to_thread(save, self._folder, name, spec, params, **content)
        except OSError as error:
            told = "make room in that folder, and let foretag write there"
            raise ModelError(f"model {model}: {self._folder} takes no artifact: {error.strerror}; {told}") from error
        version = await self._store.add_version(
            ModelVersion(
                model=model,
                version=0,
                kind=spec.kind,
                state=ModelState.CHALLENGER,
                created=created,
                spec=as_json(spec),
                metrics=fitted.metrics,
                provenance=provenance,
                artifact=artifact.path.name,
                sha256=artifact.sha256,
            )
        )
        if self._key is not None:
            log.info(
                "model %s is to be signed (`foretag models sign %s`) before it is used", version.label, version.label
            )
        elif await self.champion(model, spec) is None:
            await self._set(version, ModelState.CHAMPION, {})
            version = replace(version, state=ModelState.CHAMPION)
        log.info("model %s stored as %s: %s", version.label, version.state.value, version.figures)
        return version


_STATES = {
    ModelState.CHAMPION: "in force",
    ModelState.CHALLENGER: "a challenger",
    ModelState.RETIRED: "retired",
}


def _in_force(model: str, entries: Sequence[Audit]) -> list[int]:
    """Versions in the order in which they came into force, ``entries`` being promotions, oldest first; the last one is
    in force. What was rolled back is forgotten."""
    order: list[int] = []
    for entry in entries:
        name, _, number = entry.subject.rpartition("-")
        if name != model or not number.isdecimal():
            continue
        version = int(number)
        if _ROLLED_BACK in entry.after and version in order:
            del order[len(order) - order[::-1].index(version) :]
        else:
            order.append(version)
    return order


def _finite(number: float | None) -> float | None:
    """A row has no other numbers."""
    return number if number is not None and math.isfinite(number) else None


def as_json(spec: Spec) -> dict[str, Any]:
    """A spec as it is stored with a version; versions from before cleaning, or calendars, say nothing of them."""
    stored: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    return {name: part for name, part in stored.items() if part or name not in {"cleaning", "calendar"}}
