"""ONNX Runtime on the CPU, in float32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from fye_rt.backends.precision import resolve_precision
from fye_rt.bundle import Bundle
from fye_rt.engine import CPU_PIXELS, Arrays, Engine, Settings, return_freed_memory
from fye_rt.errors import BackendError


class OnnxRuntimeEngine(Engine):
    """One graph in one inference session."""

    compute = "fp32"
    pixels = CPU_PIXELS

    def __init__(self, file: Path, options: onnxruntime.SessionOptions) -> None:
        """Load `file`; its weights are stored beside it."""
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        return_freed_memory()
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph and return its outputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


def computes() -> tuple[str, ...]:
    """Return the compute precisions on this machine."""
    return ("fp32",)


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> OnnxRuntimeEngine:
    """Open a graph; raises BackendError if the compute precision is not float32, or ONNX Runtime refuses the graph."""
    resolve_precision("onnxruntime", computes(), settings.compute)
    try:
        return OnnxRuntimeEngine(bundle.file(graph, "onnxruntime"), session_options(settings.threads))
    except Exception as error:  # the provider raises half a dozen unrelated types
        raise BackendError(f"onnxruntime cannot open {graph}: {error}; {bundle.remedy}") from error


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of every session; `threads` is as in `fye_rt.engine.Settings`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # All other options keep ONNX Runtime's defaults; bench/results/session_options.json compares them one by one.
    # Without prepacking, a graph mapped from float32 holds 0.62 instead of 1.08 times its weights, and is 1.03 times
    # slower; without layout optimisation, 0.55 times, and 1.2 times slower.
    # Weights outside the arena are no slower, and opening a graph from float16 needs a little less memory.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # Each session has its own threads. If they spin after a run, they take the cores from the next graph's threads.
    # With this, the portrait and the motion take half as long; steps, all of one graph, take no longer.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
