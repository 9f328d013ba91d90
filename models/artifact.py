"""A trained model as one file: safetensors, with the spec and where it came from in the header. No pickle, ever."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as bytes_of

from models.kind import Params, Spec

FORMAT = "foretag-model-1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HEADER = "foretag"


class ArtifactError(ValueError):
    """The file is missing, truncated, altered, or of a format that this release does not read."""


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A model file and what is in it."""

    path: Path
    sha256: str
    spec: Spec
    params: Params
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]


def save(
    folder: Path, name: str, spec: Spec, params: Params, *, metrics: Mapping[str, float], provenance: Mapping[str, Any]
) -> Artifact:
    """Write ``folder/name.safetensors``, wholly or not at all; an artifact is never written over (FileExistsError)."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for an artifact: use letters, digits, ``_``, ``-`` and ``.``")
    header = {"format": FORMAT, "spec": asdict(spec), "metrics": dict(metrics), "provenance": dict(provenance)}
    content = bytes_of(dict(_flat(params)), metadata={_HEADER: json.dumps(header, sort_keys=True)})
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}.safetensors"
    unfinished = folder / f".{name}.{os.getpid()}"
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, path)  # unlike a rename, a link never replaces a file
        _sync(folder)
    finally:
        unfinished.unlink(missing_ok=True)
    return Artifact(path, hashlib.sha256(content).hexdigest(), spec, params, metrics, provenance)


def load(path: Path, sha256: str | None = None) -> Artifact:
    """Read an artifact back. ArtifactError where it is not what ``sha256`` says, or can't be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path.name} can't be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ArtifactError(f"{path.name} was altered or cut short: its SHA-256 is {found}, not {sha256}")
    header = _header(path.name, content)
    try:
        spec = _spec(header["spec"])
        return Artifact(path, found, spec, _nested(tensors_of(content)), header["metrics"], header["provenance"])
    except (AttributeError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"{path.name} is not whole: {error}") from error


def _sync(folder: Path) -> None:
    """Make the folder's entries survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(name: str, content: bytes) -> dict[str, Any]:
    """The metadata that safetensors keeps before the tensors: 8 bytes of length, then JSON."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_HEADER])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{name} is no model artifact: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise ArtifactError(f"{name} has the format {found!r}; this release reads {FORMAT!r}: train the model again")
    return header


def _spec(fields: Mapping[str, Any]) -> Spec:
    return Spec(**{**fields, "features": tuple(fields["features"])})


def _flat(tree: Params, prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    for key, value in tree.items():
        if "." in str(key):
            raise ValueError(f"{prefix}{key}: a parameter's name holds no dot")
        if isinstance(value, Mapping):
            yield from _flat(dict(value), f"{prefix}{key}.")
        else:
            # safetensors writes the memory as it lies: an array that is not contiguous would come back permuted.
            yield f"{prefix}{key}", np.array(value, order="C")


def _nested(flat: Mapping[str, NDArray[Any]]) -> Params:
    tree: Params = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return tree
