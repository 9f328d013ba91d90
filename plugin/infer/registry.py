"""Which version of a model is in force, and where its artifact lies."""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from models.artifact import ArtifactError as BrokenArtifact
from models.artifact import load, save
from models.kind import Fitted, Spec
from plugin.domain import ModelState, ModelVersion
from plugin.errors import ArtifactError, ModelError
from plugin.protocols import Store

log = logging.getLogger(__name__)


class Registry:
    """Model versions: rows in the store, artifacts in a folder."""

    def __init__(self, store: Store, folder: Path, *, user: str = "foretag", origin: str = "service") -> None:
        """``user`` and ``origin``: on whose behalf versions are promoted, as the audit log has it."""
        self._store = store
        self._folder = folder
        self._behalf = user, origin
        self._misfits: set[str] = set()

    async def champion(self, model: str, spec: Spec) -> ModelVersion | None:
        """The version in force, if it was trained for ``spec``: one for other features or windows can't be used."""
        versions = await self._store.versions(model)
        version = next((version for version in versions if version.state is ModelState.CHAMPION), None)
        if version is None or version.spec == as_json(spec):
            return version
        if version.label not in self._misfits:
            self._misfits.add(version.label)
            log.warning("model %s was trained for another configuration of %s; it is not used", version.label, model)
        return None

    async def version(self, model: str, number: int) -> ModelVersion:
        """A version by its number, in force or not; ModelError where there is none."""
        for version in await self._store.versions(model):
            if version.version == number:
                return version
        raise ModelError(f"model {model} has no version {number}")

    async def load(self, version: ModelVersion) -> tuple[Spec, dict[str, Any]]:
        """Spec and parameters; ArtifactError where the file is missing, altered or not what the row says."""
        path = self._folder / version.artifact
        try:
            artifact = await asyncio.to_thread(load, path, version.sha256)
        except (BrokenArtifact, OSError) as error:
            raise ArtifactError(f"model {version.label}: {path.name}: {error}; train it again") from error
        return artifact.spec, artifact.params

    async def add(
        self, model: str, spec: Spec, fitted: Fitted, provenance: Mapping[str, Any], created: datetime
    ) -> ModelVersion:
        """Write the artifact, then the row; the first version for a configuration becomes the champion."""
        name = f"{model}-{created:%Y%m%dT%H%M%S%f}"
        content = {"metrics": fitted.metrics, "provenance": provenance}
        artifact = await asyncio.to_thread(save, self._folder, name, spec, fitted.params, **content)
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
        if await self.champion(model, spec) is None:
            user, origin = self._behalf
            await self._store.set_state(model, version.version, ModelState.CHAMPION, user=user, origin=origin)
            version = replace(version, state=ModelState.CHAMPION)
        log.info("model %s stored as %s: %s", version.label, version.state.value, dict(version.metrics))
        return version


def as_json(spec: Spec) -> dict[str, Any]:
    """A spec as it is stored with a version."""
    stored: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    return stored
