"""OpenVINO on the CPU, in float32, or in bfloat16 where the CPU computes it natively."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from fye_rt.backends import Arrays, Settings
from fye_rt.bundle import Bundle
from fye_rt.errors import BackendError

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# The denoiser runs hundreds of times at one shape, and is 1.3 times as fast if it is compiled for that shape alone;
# compiling takes as long as some twenty evaluations. The other graphs run once or a few times.
_STATIC = ("denoiser", "denoiser_cond")
# Compiled for static shapes in bf16, OpenVINO 2026.4's fused attention is wrong over exactly this many keys (error 3.0
# where 0.02 is bf16's own; 1 to 7 and 9 to 32 are right). Without fusion it is right, and 1.2 times as
# slow.
_WRONG_KEYS = 8


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

    def _compile(self, model: Any, **config: str) -> Any:
        return self._core.compile_model(model, "CPU", {**self._config, **config}).create_infer_request()

    def _compile_static(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        model = self._core.read_model(self._file)
        model.reshape(dict(shapes))
        attentions = [node for node in model.get_ops() if node.get_type_name() == "ScaledDotProductAttention"]
        keys = {attention.input(1).get_shape()[2] for attention in attentions}
        wrong = self.compute == "bf16" and _WRONG_KEYS in keys
        return self._compile(model, **({"SNIPPETS_MODE": "DISABLE"} if wrong else {}))


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
        raise BackendError(f"openvino cannot open {graph}: {error}; check with: fye verify {bundle.path}") from error
