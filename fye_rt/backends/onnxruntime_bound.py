"""ONNX Runtime sessions whose inputs and outputs have fixed addresses on a device.

Each input and output has one address per shape. It never changes, so the provider can replay a CUDA graph that reads
and writes there; a run at another shape does not touch it. After 16 shapes the next one starts anew.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fye_rt.bundle import Graph
from fye_rt.engine import GPU_PIXELS, Arrays, DeviceInput, Engine, return_freed_memory
from fye_rt.errors import BackendError

Shape = tuple[int, ...]
Shapes = tuple[tuple[str, Shape], ...]

_BOUND_SHAPES = 16  # each with its own memory; progressive windows have about a dozen lengths
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}

logger = logging.getLogger("fye_rt")


class OnnxRuntimeGpuEngine(Engine):
    """One graph on a device.

    Args:
        open_session: opens a session, with a CUDA graph for every shape (True) or without.
        graph: the graph, for its inputs and outputs.
        compute: "fp32" or "fp16".
        backend: name of the backend, for messages.
        device: ONNX Runtime's name of the device that holds inputs and outputs, "cuda" or "cpu".
        replayed: whether to try CUDA graphs.

    Raises:
        Exception: whatever `open_session` raises.
    """

    pixels = GPU_PIXELS

    def __init__(
        self,
        open_session: Callable[[bool], onnxruntime.InferenceSession],
        graph: Graph,
        compute: str,
        backend: str,
        device: str,
        replayed: bool,
    ) -> None:
        self.compute = compute
        self._open_session, self._graph, self._backend, self._device = open_session, graph, backend, device
        self._replayed = replayed
        self._open()

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph and return its outputs by name; raises BackendError if it fails, mostly for lack of memory."""
        shapes = tuple((name, tuple(inputs[name].shape)) for name in self._inputs)
        try:
            return self._run(shapes, inputs)
        except Exception as error:  # the provider raises half a dozen unrelated types
            reason = " ".join(str(error).split())
            if not self._replayed:
                raise BackendError(
                    f"{self._backend} cannot run {self._graph.name}: {reason}; make smaller clips, or use "
                    "backend='onnxruntime'"
                ) from error
        self._give_up_replay(reason)
        return self.run(inputs)

    def to_device(self, array: NDArray[np.float32]) -> DeviceInput:
        """Wrap an input of many runs, so that it is copied to the device once."""
        return DeviceInput(array)

    def _forget(self) -> None:
        """Give back the memory of all shapes; CUDA graphs end with their session alone."""
        if self._replayed:
            self._open()
        else:
            self._bound.clear()
            self._places.clear()

    def _open(self) -> None:
        self._places: dict[tuple[str, Shape], _Place] = {}
        self._bound: dict[Shapes, tuple[Any, Any]] = {}
        self._session: Any = None  # an old session frees its memory before the new one allocates its own
        try:
            self._session = self._open_session(self._replayed)
        except BackendError:
            raise
        except Exception as error:
            if not self._replayed:
                raise
            reason = " ".join(str(error).split())
        if self._session is None:
            self._give_up_replay(reason)
            return
        return_freed_memory()
        self._inputs = [each.name for each in self._session.get_inputs()]
        specs = (*self._session.get_inputs(), *self._session.get_outputs())
        self._types = {each.name: _TYPES[each.type] for each in specs}

    def _give_up_replay(self, reason: str) -> None:
        logger.warning("%s runs without a CUDA graph, and a little slower (%s)", self._graph.name, reason)
        self._replayed = False
        self._open()

    def _run(self, shapes: Shapes, inputs: Mapping[str, Any]) -> Arrays:
        outputs = self._graph.output_shapes(dict(shapes))
        if shapes not in self._bound:
            if len(self._bound) >= _BOUND_SHAPES:
                self._forget()
            self._bound[shapes] = self._bind(shapes, outputs)
        binding, options = self._bound[shapes]
        for name, shape in shapes:
            self._place(name, shape).put(inputs[name])
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
        # numpy() of CPU memory is a view, which the next run overwrites
        return {name: np.array(self._place(name, shape).value.numpy()) for name, shape in outputs.items()}

    def _bind(self, inputs: Shapes, outputs: Mapping[str, Shape]) -> tuple[Any, Any]:
        binding, options = self._session.io_binding(), onnxruntime.RunOptions()
        for name, shape in inputs:
            binding.bind_ortvalue_input(name, self._place(name, shape).value)
        for name, shape in outputs.items():
            binding.bind_ortvalue_output(name, self._place(name, shape).value)
        if self._replayed:
            options.add_run_config_entry("gpu_graph_id", str(len(self._bound) + 1))
        return binding, options

    def _place(self, name: str, shape: Shape) -> "_Place":
        if (name, shape) not in self._places:
            self._places[name, shape] = _Place(shape, self._types[name], self._device)
        return self._places[name, shape]


class _Place:
    """Fixed device memory of one input or output at one shape."""

    def __init__(self, shape: Shape, dtype: Any, device: str) -> None:
        self.value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)
        self._dtype, self._device = dtype, device
        self._holds: DeviceInput | None = None

    def put(self, array: Any) -> None:
        """Copy an array or a `DeviceInput`, unless this DeviceInput is stored already."""
        if not isinstance(array, DeviceInput):
            self.value.update_inplace(np.ascontiguousarray(array, self._dtype))
            self._holds = None
        elif self._holds is not array:
            self.value.update_inplace(array.value(self._copied, self._dtype))
            self._holds = array

    def _copied(self, array: NDArray[np.float32], dtype: Any) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, dtype), self._device, 0)
