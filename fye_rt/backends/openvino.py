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


class OpenVinoEngine:
    """One compiled model."""

    def __init__(self, compiled: "openvino.CompiledModel") -> None:
        self._request = compiled.create_infer_request()
        self._outputs = [output.get_any_name() for output in compiled.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """See `fye_rt.backends.Engine`."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        # the request reuses its output buffers
        return {name: np.array(results[name]) for name in self._outputs}


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> OpenVinoEngine:
    """Open a graph of a bundle; OpenVINO's CPU plugin fuses its standard Attention by itself.

    Raises:
        BackendError: a compute precision that this CPU lacks, or a graph that OpenVINO refuses.
    """
    core = openvino.Core()
    native = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    compute = settings.compute
    if compute == "auto":
        compute = "bf16" if "BF16" in native else "fp32"
    if compute not in _HINTS or (compute == "bf16" and "BF16" not in native):
        allowed = "fp32, bf16" if "BF16" in native else "fp32"
        raise BackendError(f"openvino does not compute in {compute} on this CPU; allowed: {allowed}")
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[compute],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }
    if settings.threads:
        config["INFERENCE_NUM_THREADS"] = settings.threads
    try:
        return OpenVinoEngine(core.compile_model(core.read_model(bundle.file(graph)), "CPU", config))
    except RuntimeError as error:
        raise BackendError(f"openvino cannot open {graph}: {error}; check with: fye verify {bundle.path}") from error
