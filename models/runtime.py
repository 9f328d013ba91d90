"""Running a trained model: the device, the compile cache, and one compiled program per bucket of shapes."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import light
from models.kind import ModelKind, Params, Spec
from models.meaning import Meaning

log = logging.getLogger(__name__)

_CELLS = 1 << 20
"""Of the features of a block of windows, at most."""
_FEWEST = 64
"""Windows of a block: with fewer, matrix products are slow."""
_FEW = 256
"""Windows: at so few, networks of float32 are a few per cent faster by Eigen than by YNNPACK, but not at twice that."""
_WIDE: Mapping[str, str | bool] = {"xla_cpu_prefer_vector_width": "512"}
"""Option of the compiler's: XLA takes half of what AVX-512 has, for processors that once slowed down at the whole."""
_EIGEN: Mapping[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}


def choose_device(name: str = "auto") -> jax.Device:
    """The device that models run on; what is asked for and not there falls back to the CPU, with a warning."""
    wanted = ("tpu", "gpu") if name == "auto" else (name,) if name != "cpu" else ()
    for platform in wanted:
        try:
            device = jax.devices(platform)[0]
        except RuntimeError as error:
            if name != "auto":
                reason = str(error).splitlines()[0]
                log.warning("models run on the CPU: no %s is to be had (%s)", name.upper(), reason)
            continue
        log.info("models run on %s %s (%d of them here, one is used)", platform, device.device_kind, jax.device_count())
        return device
    device = jax.devices("cpu")[0]
    log.info("models run on the CPU (JAX %s)", jax.__version__)
    return device


def enable_compile_cache(folder: Path) -> None:
    """Keep compiled programs in ``folder`` (0700: whoever may write there may run code here)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for setting, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_persistent_cache_min_compile_time_secs", 0.0),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        jax.config.update(setting, value)  # type: ignore[no-untyped-call]


def check_tree(kind: ModelKind, spec: Spec, params: Params) -> None:
    """ValueError where parameters are not of the names and shapes that the kind of this release gives them."""
    fresh, params = _born(kind, spec), light.widened(light.unpacked(params))
    ours, theirs = (
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (fresh, params)
    )
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"the version holds {name} of shape {theirs.get(name)}, this release's {kind.name} "
                f"{ours.get(name)}: another release made it; train it again"
            )


def _born(kind: ModelKind, spec: Spec) -> Params:
    """What a kind's parameters look like at birth: shapes alone, but where it has to be computed."""
    init = partial(kind.init, spec)
    try:
        shapes: Params = jax.eval_shape(init, jax.random.key(spec.seed))
    except TypeError:  # it looks at numbers, as NumPy does
        return init(jax.random.key(spec.seed))
    return shapes


def bucket(windows: int) -> int:
    """So many windows or a little more: few programs serve all numbers. Up to 64 the next power of two, then steps of
    an eighth of the one before: no more than an eighth is computed in vain."""
    power = 1 << max(0, windows - 1).bit_length()
    step = max(1, power // 16)
    return power if power <= 64 else -(-windows // step) * step


def program(
    function: Callable[[Spec, Params, jax.Array, jax.Array], jax.Array], spec: Spec
) -> Callable[[Params, NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]:
    """A pure function of a kind, such as what it says without correction, over arrays on the host; one program per
    shape."""

    def widened(params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        return function(spec, light.widened(params), values, observed)

    jitted = jax.jit(widened)
    return lambda params, *window: np.asarray(jitted(light.unpacked(params), *window))


class Numbers(NamedTuple):
    """An :class:`models.kind.Estimate` on the host: [n] each, or [n, ahead]; NaN where there is no number."""

    value: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]


class Predictor:
    """One model version on one device. Not thread-safe: it belongs to the device's thread."""

    def __init__(self, kind: ModelKind, spec: Spec, params: Params, device: jax.Device) -> None:
        kind.check(spec)
        self.spec = spec
        self.compilations = 0
        """Programs compiled (or taken from the cache) so far; it stands still once warm."""
        self._device = device
        self._params = jax.device_put(light.unpacked(params), device)
        self._halved = light.is_halved(params)
        self._programs: dict[int, Any] = {}
        given = (output for output in kind.outputs(spec) if output.meaning is not Meaning.FLAG)  # decided outside
        self._ahead = {output.name: len(output.ahead) for output in given}
        cells = len(spec.features) * spec.length
        self._block = max(_FEWEST, 1 << max(1, _CELLS // cells).bit_length() - 1) if device.platform == "cpu" else None

        def told(params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
            estimates = kind.predict(spec, light.widened(params), values, observed)
            parts = [part for name in self._ahead for part in estimates[name]]
            return jnp.concatenate([part.reshape(len(values), -1).T for part in parts])

        self._told = jax.jit(told)

    def warm(self, n: int) -> None:
        """Compile what :meth:`predict` needs for ``n`` windows, and run it once."""
        shape = (n, len(self.spec.features), self.spec.length)
        self.predict(np.zeros(shape, np.float32), np.ones(shape, bool))

    def predict(self, values: NDArray[np.float32], observed: NDArray[np.bool_]) -> Mapping[str, Numbers]:
        """Estimates as NumPy arrays [n] for values and observed [n, f, t]; ValueError for axes that are not the spec's.

        Padded to the spec's length (with older cells that are not observed) and to a bucket of windows: one program per
        bucket serves every size. On a processor many windows are computed in blocks, of which each stays in its cache
        and several are under way at once.
        """
        n, f, t = values.shape
        if f != len(self.spec.features) or t > self.spec.length or values.shape != observed.shape:
            raise ValueError(
                f"windows of shape {values.shape} (observed {observed.shape}) do not fit {len(self.spec.features)} "
                f"features and at most {self.spec.length} cells"
            )
        block = self._block or bucket(n)
        begun = [
            self._begun(values[first : first + block], observed[first : first + block])
            for first in range(0, max(n, 1), block)
        ]
        told = [np.asarray(block) for block in begun]
        return self._numbers((np.concatenate(told, axis=1) if len(told) > 1 else told[0])[:, :n])

    def _begun(self, values: NDArray[np.float32], observed: NDArray[np.bool_]) -> Any:
        """Estimates of one block, padded, that are being computed; only the last block is padded with windows.

        [numbers, windows]: one array, for to fetch a dozen small ones takes as long as a small network does.
        """
        values, observed = self._padded(values, np.float32), self._padded(observed, np.bool_)
        return self._program(values, observed)(self._params, values, observed)

    def _numbers(self, told: NDArray[np.float32]) -> Mapping[str, Numbers]:
        found, first = {}, 0
        for name, ahead in self._ahead.items():
            width = ahead or 1
            rows = told[first : first + 3 * width].reshape(3, width, -1)
            found[name] = Numbers(*(rows.swapaxes(1, 2) if ahead else rows[:, 0]))
            first += 3 * width
        return found

    def _padded(self, array: NDArray[Any], dtype: Any) -> NDArray[Any]:
        n, f, t = array.shape
        if (n, t) == (bucket(n), self.spec.length) and array.dtype == dtype:
            return array
        padded = np.zeros((bucket(n), f, self.spec.length), dtype)
        padded[:n, :, self.spec.length - t :] = array
        return padded

    def _program(self, values: NDArray[Any], observed: NDArray[Any]) -> Any:
        windows = len(values)
        if windows not in self._programs:
            self.compilations += 1
            with jax.default_device(self._device):
                lowered = self._told.lower(self._params, values, observed)
                self._programs[windows] = _compiled(lowered, self._options(windows))
        return self._programs[windows]

    def _options(self, windows: int) -> Mapping[str, str | bool]:
        if self._device.platform != "cpu":
            return {}
        return _WIDE if self._halved or windows > _FEW else {**_WIDE, **_EIGEN}  # Eigen is slow at bfloat16


def _compiled(lowered: Any, options: Mapping[str, str | bool]) -> Any:
    """An option that another release of XLA does not know costs some speed, no prediction."""
    try:
        return lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if "compile option" not in str(error):
            raise
        log.warning("models are compiled without options for this processor: %s", error)
        return lowered.compile()
