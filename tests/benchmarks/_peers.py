"""Others that run the networks of :mod:`tests.benchmarks.inference`, with the same weights, where they are installed.

None of them is a dependency: an interpreter that has torch, onnx and onnxruntime beside foretag's own takes them up.
Each peer gets its windows in the layout that it likes best, made beforehand, and one thread.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

Array = NDArray[np.float32]
Call = Callable[[], Any]
Run = Callable[[Array], Call]
"""From windows [n, t, d] to a call that gives the network's number of each, [n]."""


def lstms(layers: list[Mapping[str, Array]], head: Mapping[str, Array]) -> Iterator[tuple[str, Run]]:
    """Of layers with ``kernel`` [d, 4h], ``recurrent`` [h, 4h] and ``bias`` [4h], the forget bias in it; gates in the
    order input, forget, content, output."""
    yield "nnx.RNN", _nnx(layers, head)
    if _there("onnx", "onnxruntime"):
        yield "onnxruntime", _onnx(_lstm_model(layers, head), time_first=True)
    if _there("torch"):
        yield "torch", _torch(layers, head, half=False)
        yield "torch, bf16", _torch(layers, head, half=True)


def mlps(layers: list[tuple[Array, Array]]) -> Iterator[tuple[str, Run]]:
    """Of weights [d, w] and biases [w], tanh between them."""
    yield "NumPy", lambda windows: lambda: _forward(layers, windows[:, 0])
    if _there("onnx", "onnxruntime"):
        yield "onnxruntime", _onnx(_mlp_model(layers), time_first=False)


def _there(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _forward(layers: list[tuple[Array, Array]], rows: Array) -> Array:
    for weights, bias in layers[:-1]:
        rows = np.tanh(rows @ weights + bias)
    weights, bias = layers[-1]
    found: Array = (rows @ weights + bias)[:, 0]
    return found


# --- flax --------------------------------------------------------------------------------------------------------


class _Stack(nnx.Module):
    """As the documentation of flax builds it."""

    def __init__(self, inputs: int, hidden: int, layers: int, *, rngs: nnx.Rngs) -> None:
        widths = [inputs] + [hidden] * (layers - 1)
        self.layers = nnx.List([nnx.RNN(nnx.OptimizedLSTMCell(width, hidden, rngs=rngs)) for width in widths])
        self.hidden = hidden
        self.head = nnx.Linear(hidden, 1, rngs=rngs)

    def __call__(self, windows: jax.Array) -> jax.Array:
        for layer in self.layers:
            start = (jnp.zeros((len(windows), self.hidden)),) * 2
            windows = layer(windows, initial_carry=start, rngs=False)  # type: ignore[arg-type]  # False: none is drawn
        return self.head(windows[:, -1])[:, 0]


def _nnx(layers: list[Mapping[str, Array]], head: Mapping[str, Array]) -> Run:
    """Of the same shapes, with weights of its own: they cost the same."""
    inputs, hidden = len(layers[0]["kernel"]), len(head["kernel"])
    graph, state = nnx.split(_Stack(inputs, hidden, len(layers), rngs=nnx.Rngs(0)))
    program = jax.jit(lambda state, windows: nnx.merge(graph, state)(windows))

    def prepared(windows: Array) -> Call:
        compiled = program.lower(state, windows).compile()
        return lambda: np.asarray(compiled(state, windows))

    return prepared


# --- torch -------------------------------------------------------------------------------------------------------


def _torch(layers: list[Mapping[str, Array]], head: Mapping[str, Array], *, half: bool) -> Run:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    network = torch.nn.LSTM(len(layers[0]["kernel"]), len(head["kernel"]), len(layers), batch_first=True).eval()
    with torch.no_grad():
        for number, layer in enumerate(layers):
            for name, value in (("weight_ih", layer["kernel"]), ("weight_hh", layer["recurrent"])):
                getattr(network, f"{name}_l{number}").copy_(torch.from_numpy(value.T.copy()))
            getattr(network, f"bias_ih_l{number}").copy_(torch.from_numpy(layer["bias"].copy()))
            getattr(network, f"bias_hh_l{number}").zero_()
    kernel, bias = torch.from_numpy(head["kernel"].copy()), torch.from_numpy(head["bias"].copy())

    def prepared(windows: Array) -> Call:
        given = torch.from_numpy(windows)

        def call() -> Any:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return (network(given)[0][:, -1].float() @ kernel + bias)[:, 0].float().numpy()

        return call

    return prepared


# --- onnxruntime -------------------------------------------------------------------------------------------------


def _onnx(model: bytes, *, time_first: bool) -> Run:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def prepared(windows: Array) -> Call:
        given = {"windows": np.ascontiguousarray(windows.swapaxes(0, 1)) if time_first else windows[:, 0].copy()}
        return lambda: session.run(None, given)[0][:, 0]

    return prepared


def _lstm_model(layers: list[Mapping[str, Array]], head: Mapping[str, Array]) -> bytes:
    """ONNX has the gates in the order input, output, forget, content."""
    helper, numpy_helper = (importlib.import_module(f"onnx.{name}") for name in ("helper", "numpy_helper"))
    tensors, nodes, given = {"direction": np.array([1]), "layer": np.array([0])}, [], "windows"
    for number, layer in enumerate(layers):
        kernel, recurrent, bias = (
            np.concatenate([np.split(layer[name], 4, -1)[gate] for gate in (0, 3, 1, 2)], -1)
            for name in ("kernel", "recurrent", "bias")
        )
        tensors |= {f"w{number}": kernel.T[None], f"r{number}": recurrent.T[None]}
        tensors |= {f"b{number}": np.concatenate([bias, np.zeros_like(bias)])[None]}
        weights = [f"{name}{number}" for name in "wrb"]
        nodes.append(
            helper.make_node("LSTM", [given, *weights], [f"y{number}", f"h{number}"], hidden_size=len(recurrent))
        )
        given = f"s{number}"
        nodes.append(helper.make_node("Squeeze", [f"y{number}", "direction"], [given]))
    nodes.append(helper.make_node("Squeeze", [f"h{len(layers) - 1}", "layer"], ["last"]))
    nodes.append(helper.make_node("Gemm", ["last", "kernel", "bias"], ["told"]))
    shape = ["t", "n", len(layers[0]["kernel"])]
    return _model(helper, numpy_helper, nodes, tensors | {"kernel": head["kernel"], "bias": head["bias"]}, shape)


def _mlp_model(layers: list[tuple[Array, Array]]) -> bytes:
    helper, numpy_helper = (importlib.import_module(f"onnx.{name}") for name in ("helper", "numpy_helper"))
    tensors: dict[str, Array] = {}
    nodes, given = [], "windows"
    for number, (weights, bias) in enumerate(layers):
        tensors |= {f"w{number}": weights, f"b{number}": bias}
        told = "told" if number == len(layers) - 1 else f"y{number}"
        nodes.append(helper.make_node("Gemm", [given, f"w{number}", f"b{number}"], [told]))
        if told != "told":
            given = f"t{number}"
            nodes.append(helper.make_node("Tanh", [told], [given]))
    return _model(helper, numpy_helper, nodes, tensors, ["n", len(layers[0][0])])


def _model(helper: Any, numpy_helper: Any, nodes: Any, tensors: Mapping[str, Any], shape: list[Any]) -> bytes:
    constants = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()]
    given = helper.make_tensor_value_info("windows", 1, shape)
    told = helper.make_tensor_value_info("told", 1, ["n", 1])
    graph = helper.make_graph(nodes, "network", [given], [told], constants)
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return model
