"""OpenVINO on the CPU, in float32, or in bfloat16 where the CPU computes it natively."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
from openvino import opset13

from fye_rt.backends.precision import resolve_precision
from fye_rt.bundle import Bundle
from fye_rt.engine import CPU_PIXELS, Arrays, Engine, Settings, return_freed_memory
from fye_rt.errors import BackendError

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# The denoiser runs hundreds of times at one shape, and is 1.3 times as fast when compiled for that shape alone;
# compiling takes as long as about twenty evaluations. The other graphs run once or a few times.
_STATIC = ("denoiser", "denoiser_cond")
_SHORT_ROW = 32  # keys: all temporal attention has at most 32 frames; its scores are about as large as its queries
_SMALL_PLANE = 64  # positions


class OpenVinoEngine(Engine):
    """One graph, compiled for all shapes, or, if it is a denoiser, for the shapes of its last run."""

    pixels = CPU_PIXELS

    def __init__(self, bundle: Bundle, graph: str, compute: str, threads: int) -> None:
        """Prepare a graph in "fp32" or "bf16", with so many CPU threads; 0 for OpenVINO's default."""
        self.compute = compute
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[compute],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        # OpenVINO gives a tensor several names, and may have made up the first itself
        self._outputs = tuple(output.name for output in bundle.graphs[graph].outputs)
        self._core = openvino.Core()
        self._file = bundle.file(graph)
        self._static = graph in _STATIC
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._request: Any = None
        if not self._static:
            self._request = self._compile(self._core.read_model(self._file))
            return_freed_memory()

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph and return its outputs by name; a denoiser is compiled again for other shapes."""
        if self._static and (shapes := {name: array.shape for name, array in inputs.items()}) != self._shapes:
            self._request = None  # frees its memory before the next one allocates its own
            self._request, self._shapes = self._compile_static(shapes), shapes
            return_freed_memory()
        results = self._request.infer(dict(inputs), share_inputs=True)
        # the request reuses its output buffers
        return {name: np.array(results[name]) for name in self._outputs}

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._config).create_infer_request()

    def _compile_static(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        model = self._core.read_model(self._file)
        model.reshape(dict(shapes))
        for node in model.get_ops():
            operation = node.get_type_name()
            if operation == "ScaledDotProductAttention":
                _, heads, queries, _ = node.input(0).get_shape()
                if queries == heads or node.input(1).get_shape()[2] <= _SHORT_ROW:
                    _write_out_attention(node)
            elif operation == "GroupNormalization" and self.compute == "bf16":
                _write_out_group_norm(node)
        return self._compile(model)


def computes() -> tuple[str, ...]:
    """Return the compute precisions on this machine."""
    native = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", "bf16") if "BF16" in native else ("fp32",)


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> OpenVinoEngine:
    """Open a graph of a bundle; OpenVINO's CPU plugin itself fuses the standard Attention.

    Raises:
        BackendError: this CPU lacks the compute precision, or OpenVINO refuses the graph.
    """
    compute = resolve_precision("openvino", computes(), settings.compute)
    try:
        return OpenVinoEngine(bundle, graph, compute, settings.threads)
    except RuntimeError as error:
        reason = " ".join(str(error).split())  # OpenVINO's message has five lines
        raise BackendError(f"openvino cannot open {graph}: {reason}; {bundle.remedy}") from error


def _write_out_attention(attention: Any) -> None:
    """Replace an attention over query, key and value, (batch, heads, tokens, head_dim) each, by products and a softmax.

    For rows this short OpenVINO's fused attention takes 1.5 to 2.5 times as long. In bf16 it confuses queries and heads
    if their numbers are equal (OpenVINO 2026.4: error 3.0, where bf16 itself has 0.02). The keys are not the last axis
    of the scores because a softmax over a short last axis is five times slower.
    """
    query, key, value = (attention.input_value(i) for i in range(3))
    scale = np.float32(attention.input(0).get_shape()[3] ** -0.5)
    scores = opset13.matmul(opset13.multiply(key, scale), query, False, True)  # (batch, heads, keys, queries)
    attended = opset13.matmul(opset13.softmax(scores, 2), value, True, False)
    attention.output(0).replace(attended.output(0))


def _write_out_group_norm(norm: Any) -> None:
    """Replace a group norm over (batch, channels, height, width) by operators that OpenVINO computes fast in bf16.

    Normalising rows is five times as fast as normalising planes, which OpenVINO would do by itself. Scale and shift of
    small planes are broadcast over them: one number for every 16 elements is 15 times slower than one per element.
    """
    batch, channels, height, width = shape = norm.input(0).get_shape()
    attributes = norm.get_attributes()
    groups = attributes["num_groups"]
    rows = np.array([batch * groups, channels // groups * height * width])
    normed = opset13.mvn(
        opset13.reshape(norm.input_value(0), rows, False), np.array([1]), True, attributes["epsilon"], "INSIDE_SQRT"
    )
    scale, shift = (opset13.reshape(norm.input_value(i), np.array([1, channels, 1, 1]), False) for i in (1, 2))
    if height * width <= _SMALL_PLANE:
        scale, shift = (opset13.broadcast(v, np.array([1, channels, height, width])) for v in (scale, shift))
    normed = opset13.reshape(normed, np.array(shape), False)
    norm.output(0).replace(opset13.add(opset13.multiply(normed, scale), shift).output(0))
