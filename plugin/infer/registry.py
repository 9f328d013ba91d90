"""Which version of a model is in force, and where its artifact lies."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from models.artifact import ArtifactError as BrokenArtifact
from models.artifact import load, save
from models.kind import Fitted, Spec
from plugin.domain import ModelState, ModelVersion
from plugin.errors import ArtifactError
from plugin.protocols import Store

log = logging.getLogger(__name__)


class Registry:
    """Model versions: rows in the store, artifacts in a folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def champion(self, model: str) -> ModelVersion | None:
        """The version in force."""
        versions = await self._store.versions(model)
        return next((version for version in versions if version.state is ModelState.CHAMPION), None)

    async def load(self, version: ModelVersion) -> tuple[Spec, dict[str, Any]]:
        """Spec and parameters; ArtifactError where the file is missing, altered or not what the row says."""
        path = self._folder / version.artifact
        try:
            artifact = await asyncio.to_thread(load, path, version.sha256)
        except (BrokenArtifact, OSError) as error:
            raise ArtifactError(f"model {version.label}: {path.name}: {error}; train it again or roll back") from error
        return artifact.spec, artifact.params

    async def add(self, version: ModelVersion, spec: Spec, fitted: Fitted) -> ModelVersion:
        """Write the artifact, then the row; the first version of a model becomes its champion."""
        stamp = version.created.strftime("%Y%m%dT%H%M%S%f")
        artifact = await asyncio.to_thread(
            save,
            self._folder,
            f"{version.model}-{stamp}",
            spec,
            fitted.params,
            metrics=fitted.metrics,
            provenance=version.provenance,
        )
        row = ModelVersion(
            model=version.model,
            version=0,
            kind=version.kind,
            state=ModelState.CHALLENGER,
            created=version.created,
            spec=version.spec,
            metrics=fitted.metrics,
            provenance=version.provenance,
            artifact=artifact.path.name,
            sha256=artifact.sha256,
        )
        stored = await self._store.add_version(row)
        if await self.champion(version.model) is None:
            await self._store.set_state(stored.model, stored.version, ModelState.CHAMPION)
            stored = next(v for v in await self._store.versions(stored.model) if v.version == stored.version)
        log.info("model %s stored as %s: %s", stored.label, stored.state.value, dict(stored.metrics))
        return stored
