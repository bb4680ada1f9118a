"""OpenVINO on the CPU, in float32, or in bfloat16 where the CPU computes it natively."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from fye_rt.backends import Arrays, Settings
from fye_rt.bundle import Bundle
from fye_rt.errors import BackendError

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# The denoiser runs hundreds of times at one shape, and is 1.3 times as fast if it is compiled for that shape alone;
# compiling takes as long as some twenty evaluations. The other graphs run once or a few times.
_STATIC = ("denoiser", "denoiser_cond")


class OpenVinoEngine:
    """One graph, compiled for all shapes, or for the shapes of its last run.

    Args:
        bundle: with the graph.
        graph: its name.
        compute: "fp32" or "bf16".
        threads: of the CPU; 0 means one per physical core.
    """

    def __init__(self, bundle: Bundle, graph: str, compute: str, threads: int) -> None:
        self.compute = compute
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[compute],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        # OpenVINO gives a tensor several names, and its first may be one of its own making
        self._outputs = tuple(output.name for output in bundle.graphs[graph].outputs)
        self._core = openvino.Core()
        self._file = bundle.file(graph)
        self._static = graph in _STATIC
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._request: Any = None if self._static else self._compile(self._core.read_model(self._file))

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `fye_rt.backends.Engine`."""
        if self._static and (shapes := {name: array.shape for name, array in inputs.items()}) != self._shapes:
            self._request = None  # gives its memory back before the next takes its own
            self._request, self._shapes = self._compile_static(shapes), shapes
        results = self._request.infer(dict(inputs), share_inputs=True)
        # the request reuses its output buffers
        return {name: np.array(results[name]) for name in self._outputs}

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._config).create_infer_request()

    def _compile_static(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        model = self._core.read_model(self._file)
        model.reshape(dict(shapes))
        for node in model.get_ops():
            if node.get_type_name() == "ScaledDotProductAttention":
                _set_apart(node)
        return self._compile(model)


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> OpenVinoEngine:
    """Open a graph of a bundle; OpenVINO's CPU plugin fuses its standard Attention by itself.

    Raises:
        BackendError: a compute precision that this CPU lacks, or a graph that OpenVINO refuses.
    """
    native = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    allowed = ("fp32", "bf16") if "BF16" in native else ("fp32",)
    compute = allowed[-1] if settings.compute == "auto" else settings.compute
    if compute not in allowed:
        raise BackendError(f"openvino does not compute in {compute} on this CPU; allowed: {', '.join(allowed)}")
    try:
        return OpenVinoEngine(bundle, graph, compute, settings.threads)
    except RuntimeError as error:
        reason = " ".join(str(error).split())  # it comes in five lines
        raise BackendError(f"openvino cannot open {graph}: {reason}; check with: fye verify {bundle.path}") from error


def _set_apart(attention: Any) -> None:
    """Give an attention that has as many queries as heads one query more, whose result is dropped.

    Compiled for static shapes in bf16, OpenVINO 2026.4 confuses the two axes of its fused attention where they are
    equal (error 3.0 where 0.02 is bf16's own): 8 frames, since the motion modules have 8 heads, or 8 positions.

    Args:
        attention: over (batch, heads, queries, head_dim), between the Transpose and Reshape that split and join the
            heads of (batch, queries, channels).
    """
    batch, heads, queries, head_dim = attention.input(0).get_shape()
    if queries != heads:
        return
    split = attention.input_value(0).get_node().input_value(0)  # (batch, queries, heads, head_dim)
    (joined,) = attention.output(0).get_target_inputs()
    tokens = opset13.reshape(split, np.array([batch, queries, heads * head_dim]), False)
    more = opset13.concat([tokens, opset13.slice(tokens, [0], [1], [1], [1])], 1)
    more = opset13.reshape(more, np.array([batch, queries + 1, heads, head_dim]), False)
    swap = np.array([0, 2, 1, 3])
    keys, values = attention.input_value(1), attention.input_value(2)
    attended = opset13.scaled_dot_product_attention(opset13.transpose(more, swap), keys, values)
    attended = opset13.reshape(
        opset13.transpose(attended, swap), np.array([batch, queries + 1, heads * head_dim]), False
    )
    attended = opset13.slice(attended, [0], [queries], [1], [1])
    attended = opset13.reshape(attended, np.array([batch, queries, heads, head_dim]), False)
    joined.get_node().output(0).replace(attended.output(0))
