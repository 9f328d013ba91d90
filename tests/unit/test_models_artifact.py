"""An artifact is read back as it was written, or refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save as bytes_of

from models.artifact import ArtifactError, load, save
from models.kind import Params, Spec

SPEC = Spec("rul_lstm", ("cycle", "T30"), 400, {"age": "cycle"}, {"cap": 125.0, "hidden": 32}, seed=3)
PARAMS: Params = {
    "network": {"gates": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T}},
    "margin": np.array([0.1, 0.2], np.float32),
    "bias": np.zeros((), np.float32),
}


def saved(folder, name="rul-1"):
    return save(folder, name, SPEC, PARAMS, metrics={"rmse": 11.5}, provenance={"seed": 3, "device": "cpu"})


def test_what_is_saved_is_loaded(tmp_path):
    written = saved(tmp_path / "models")
    read = load(written.path, written.sha256)
    assert (read.spec, read.sha256) == (SPEC, written.sha256)
    assert (read.metrics, read.provenance) == ({"rmse": 11.5}, {"seed": 3, "device": "cpu"})
    assert np.array_equal(read.params["network"]["gates"]["kernel"], PARAMS["network"]["gates"]["kernel"])
    assert read.params["bias"].shape == ()


def test_equal_models_have_equal_hashes(tmp_path):
    assert saved(tmp_path, "rul-1").sha256 == saved(tmp_path, "rul-2").sha256


def test_nothing_is_left_beside_the_artifact_and_nothing_is_written_over(tmp_path):
    path = saved(tmp_path).path
    with pytest.raises(FileExistsError):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../rul", "", ".hidden", "a/b", "a b"])
def test_a_name_that_is_a_path_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="no name for an artifact"):
        saved(tmp_path, name)


def test_one_altered_byte_is_refused(tmp_path):
    written = saved(tmp_path)
    content = bytearray(written.path.read_bytes())
    content[-1] ^= 1
    written.path.write_bytes(content)
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load(written.path, written.sha256)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused_even_without_its_hash(tmp_path, size):
    path = saved(tmp_path).path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError):
        load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"foretag": "no json"},
        {"foretag": "[]"},
        {"foretag": json.dumps({"format": "foretag-model-0"})},
        {"foretag": json.dumps({"format": "foretag-model-1"})},
        {"foretag": json.dumps({"format": "foretag-model-1", "spec": {"colour": 1, "features": []}})},
    ],
)
def test_a_file_of_another_make_is_refused(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    path.write_bytes(bytes_of({"a": np.zeros(2, np.float32)}, metadata=metadata))
    with pytest.raises(ArtifactError):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="can't be read"):
        load(tmp_path / "gone.safetensors")
