"""PyTorch engines: run a bundle's weights in the networks that it was cut from, on a GPU if there is one.

On a GPU the networks use the kernels of `fye_kernels` and channels-last memory. One CUDA graph per shape replays an
evaluation of the denoiser, one kernel then moves the latents, and a second stream decodes frames.
"""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from fye_export import networks
from fye_export.config import ModelConfig
from fye_export.graphs import GraphSpec, graph_specs
from fye_rt.backends.jump_row import SLOTS
from fye_rt.backends.precision import resolve_precision
from fye_rt.bundle import Bundle
from fye_rt.engine import CPU_PIXELS, GPU_PIXELS, Arrays, Denoising, DeviceArray, Engine, Settings, Workspace
from fye_rt.errors import BackendError, not_finite
from fye_torch import graphs, switches
from fye_torch.arrays import TorchArray
from fye_torch.loop import Buffers, TorchWorkspace

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_UNCONDITIONAL = ".unconditional"
_DENOISERS = ("denoiser", "denoiser_cond")
_VARYING = 2  # leading inputs that change from step to step: latents and timestep; the others are held

logger = logging.getLogger("fye_rt")

# networks that graphs share, alive as long as a graph uses them
_shared: WeakValueDictionary[tuple[str, str, str, str], nn.Module] = WeakValueDictionary()


class TorchEngine(Engine):
    """An engine that runs one graph as a PyTorch module."""

    def __init__(
        self, module: nn.Module, spec: GraphSpec, device: torch.device, compute: str, operations: Any = None
    ) -> None:
        """Take a module on `device` in the precision of `compute`, and the operations it calls; see `assemble`."""
        self.compute, self._operations = compute, operations
        self.module, self._spec, self._device = module, spec, device
        self._on_gpu = self.decodes_beside = on_gpu(device)
        self.pixels = GPU_PIXELS if self._on_gpu else CPU_PIXELS
        self._memory = graphs.Memory(spec.name) if self._on_gpu and spec.name in _DENOISERS else None
        self._call = self._replayed(module, _VARYING)
        self._buffers: OrderedDict[Any, tuple[Buffers, Callable[..., Any]]] = OrderedDict()
        self._stream: Any = None

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph; see `fye_rt.engine.Engine.run`."""
        with self._running():
            outputs = self._outputs(inputs)
            return {name: np.ascontiguousarray(output.float().cpu().numpy()) for name, output in outputs.items()}

    def run_on_device(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the graph; see `fye_rt.engine.Engine.run_on_device`."""
        if not self._on_gpu or self._memory is not None:  # a later run overwrites what a replayed graph returned
            return self.run(inputs)
        with self._running():
            return {name: TorchArray(_dense(output)) for name, output in self._outputs(inputs).items()}

    def _outputs(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        outputs = self._call(*(self._put(inputs[tensor.name]) for tensor in self._spec.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {tensor.name: output for tensor, output in zip(self._spec.outputs, outputs, strict=True)}

    def to_device(self, array: NDArray[np.float32] | DeviceArray) -> Any:
        """Copy an array to the GPU, channels-last if it has 4 dimensions; on the CPU return the array itself."""
        if not self._on_gpu:
            return super().to_device(array)
        with self._running():
            return _dense(self._put(array))

    def workspace(self, denoising: Denoising) -> Workspace | None:
        """Create a workspace on the GPU; None without kernels or if the ring has more slots than they support."""
        if self._memory is not None:
            self._memory.begin(denoising.evaluations * len(denoising.windows))
        if self._operations is None or denoising.ring > SLOTS:
            return None

        def held_inputs(inputs: Mapping[str, Any]) -> list[Tensor]:
            return [self._put(inputs[tensor.name]) for tensor in self._spec.inputs[_VARYING:]]

        with self._running():
            buffers, whole = self._buffers_for(denoising.shape, denoising.ring, denoising.face is not None)
            network, step = partial(self._evaluate, self._call), self._operations.forecast_step
            return TorchWorkspace(buffers, whole, network, step, held_inputs, denoising, self._running)

    def begin_decoding(self, latents: NDArray[np.float32]) -> Callable[[], NDArray[np.uint8]]:
        """Begin to decode latents, on a GPU in a separate stream; see `fye_rt.engine.Engine.begin_decoding`."""
        if not self.decodes_beside:
            return super().begin_decoding(latents)
        with self._running():
            if self._stream is None:
                self._stream = torch.cuda.Stream(priority=graphs.LOW)  # the next piece's evaluations go first
            self._stream.wait_stream(torch.cuda.current_stream())  # it may still be copying the weights
            with torch.cuda.stream(self._stream):
                host_latents = self._pinned(torch.from_numpy(latents))
                frames = self._call(host_latents.to(self._device, _DTYPES[self.compute], non_blocking=True)).float()
                finite = self._pinned(frames.isfinite().all()).numpy()
                pixels = self._pinned((frames * 255).clamp_(0, 255).to(torch.uint8).contiguous()).numpy()
                done = torch.cuda.Event()
                done.record()

        def wait() -> NDArray[np.uint8]:
            done.synchronize()
            if not finite:
                raise not_finite("vae_decoder")
            return pixels

        return wait

    def warming_up(self) -> AbstractContextManager[None]:
        """Have all engines look for their fastest convolutions; see `fye_rt.engine.Engine.warming_up`."""
        return switches.SEARCH if self._on_gpu else super().warming_up()

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Context of all work on the device: on a GPU no other thread captures a graph meanwhile."""
        with alone(self._device), torch.inference_mode(), self._precision():
            yield

    def _precision(self) -> AbstractContextManager[None]:
        """Return the context in which the network runs or is captured."""
        return switches.FLOAT32 if self.compute == "fp32" else nullcontext()

    def _evaluate(
        self, call: Callable[..., Any], latents: Tensor, timestep: Tensor, *held_inputs: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        outputs = call(latents.to(_DTYPES[self.compute]), timestep, *held_inputs)
        return outputs if len(outputs) == 2 else (None, outputs[0])

    def _buffers_for(self, shape: tuple[int, ...], slots: int, masked: bool) -> tuple[Buffers, Callable[..., Any]]:
        """Return device tensors and evaluation for clips of a shape; those last used stay on the device."""
        key = shape, slots, masked
        if key not in self._buffers:
            while len(self._buffers) >= graphs.SHAPES:
                self._buffers.popitem(last=False)
            buffers = Buffers(self._device, shape, slots, masked)
            whole = partial(self._evaluate, self.module, buffers.latents, buffers.timestep)
            self._buffers[key] = buffers, self._replayed(whole, 0)
        self._buffers.move_to_end(key)
        return self._buffers[key]

    def _replayed(self, function: Callable[..., Any], varying: int) -> Callable[..., Any]:
        return function if self._memory is None else graphs.Replayed(function, self._memory, varying)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """Copy to pinned memory of the host, with which a stream exchanges data without blocking others or the host."""
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._device.type == "cuda")
        return pinned.copy_(tensor, non_blocking=True)

    def _put(self, array: Any) -> Tensor:
        if isinstance(array, Tensor):
            return array
        if isinstance(array, TorchArray):
            return array.tensor.to(self._device, _DTYPES[self.compute])
        array = np.asarray(array)
        if not array.flags.writeable:  # PyTorch has no read-only tensors and would warn
            array = array.copy()
        tensor = torch.from_numpy(array).to(self._device)
        return tensor.to(_DTYPES[self.compute]) if tensor.is_floating_point() else tensor


def on_gpu(device: torch.device) -> bool:
    """Return whether a device is a GPU, with streams, graphs and memory of its own."""
    return device.type == "cuda"


def alone(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of work on a device, in which no other thread captures a graph."""
    return graphs.ALONE if on_gpu(device) else nullcontext()


def _dense(tensor: Tensor) -> Tensor:
    """Return a tensor that keeps no larger one in memory, channels-last if it has 4 dimensions."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)


def computes() -> tuple[str, ...]:
    """Return the compute precisions of this backend on this machine; see `fye_rt.backends.computes`."""
    return ("fp32", "bf16", "fp16") if torch.cuda.is_available() else ("fp32",)


def unusable(bundle: Bundle | None = None) -> str:
    """Explain why PyTorch should not be chosen on this machine; "" if it may be; see `fye_rt.backends.choose`."""
    return "" if torch.cuda.is_available() else "this PyTorch uses no GPU, and ONNX Runtime is faster on a CPU"


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> TorchEngine:
    """Open a graph of a bundle; `settings.threads` applies to the whole process.

    Raises:
        BackendError: the compute precision is not available here, or weights do not fit the networks.
    """
    compute = resolve_precision("torch", computes(), settings.compute)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    config = ModelConfig.from_dict(dict(bundle.model))
    spec = graph_specs(config)[graph]
    operations = _operations(device, compute)
    parts = [_network(bundle, config, name, device, compute, operations) for name in spec.networks]
    engine = assemble(spec, parts, device, compute, operations)
    if graph == "denoiser":
        stored = _tensors(bundle, tuple(f"{network}." for network in spec.networks))
        with alone(device):
            for name, vector in stored.items():
                if name.endswith(_UNCONDITIONAL):  # keep the vector computed from the checkpoint
                    engine.module.get_buffer(name).copy_(vector)
    return engine


def assemble(
    spec: GraphSpec, parts: Sequence[nn.Module], device: torch.device, compute: str, operations: Any
) -> TorchEngine:
    """Build the engine of a graph from its networks.

    Args:
        spec: the graph.
        parts: its networks on `device` in the precision of `compute`, passed through `with_kernels` if there are
            `operations`.
        device: device of the networks.
        compute: "fp32", "bf16" or "fp16".
        operations: `fye_torch.modules.Operations`, or None.
    """
    module = spec.module
    if operations is not None and spec.name in _DENOISERS:
        from fye_torch.modules import Denoiser

        module = partial(Denoiser, guided=spec.name == "denoiser", operations=operations)
    with alone(device), torch.inference_mode(False), torch.no_grad():
        return TorchEngine(module(*parts).eval(), spec, device, compute, operations)


def with_kernels(network: nn.Module, name: str, operations: Any) -> nn.Module:
    """Make a network call `operations`, channels-last; it stays as it is if it uses none of them, or they are None."""
    if operations is None or name not in ("unet", "referencenet", "vae"):
        return network
    from fye_torch.modules import switched

    return switched(network.to(memory_format=torch.channels_last), operations)  # type: ignore[call-overload]


def _operations(device: torch.device, compute: str) -> Any:
    """Choose the operations that the networks call in place of PyTorch; None on a CPU.

    Float32 attention stays PyTorch's: the kernels' tiles, sized for half precision, exceed the shared memory of some
    GPUs and the registers of all.
    """
    if device.type == "cpu":
        return None
    try:
        from fye_torch.modules import KERNELS, PLAIN
    except ImportError as error:
        logger.warning("without the kernels (%s) the GPU is slower; run: pip install 'fye-rt[kernels]'", error)
        return None
    if compute != "fp32":
        return KERNELS
    attention = ("reference_attention", "temporal_attention")
    return dataclasses.replace(KERNELS, **{name: getattr(PLAIN, name) for name in attention})


def _network(
    bundle: Bundle, config: ModelConfig, name: str, device: torch.device, compute: str, operations: Any
) -> nn.Module:
    key = (bundle.digest, name, str(device), compute)
    network = _shared.get(key)
    if network is None:
        network = _load(bundle, config, name, device, _DTYPES[compute])
        with alone(device):
            network = _shared[key] = with_kernels(network, name, operations)
    return network


def _load(bundle: Bundle, config: ModelConfig, name: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        network = networks.build(config, name)
    prefix = f"{name}."
    state = {key.removeprefix(prefix): tensor for key, tensor in _tensors(bundle, (prefix,)).items()}
    with alone(device):
        state = {key: tensor.to(device, dtype) for key, tensor in state.items() if not key.endswith(_UNCONDITIONAL)}
    try:
        surplus = network.load_state_dict(state, strict=False, assign=True).unexpected_keys
    except RuntimeError as error:
        raise BackendError(
            f"{bundle.path}: weights don't fit the networks ({error}); export the bundle again"
        ) from error
    if surplus:
        raise BackendError(f"{bundle.path}: no network has {surplus[0]}; export the bundle again")
    for module in network.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:  # no graph reads it, so no bundle has it
                setattr(module, key, nn.Parameter(torch.empty(0, device=device), requires_grad=False))
    return network.requires_grad_(False)


def _tensors(bundle: Bundle, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the tensors of some networks by name; a shared tensor appears under each of its names."""
    shared = bundle.manifest["weights"].get("shared", {})
    with safe_open(bundle.path / bundle.weights, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
        for name, original in shared.items():
            if name.startswith(prefixes):
                tensors[name] = tensors[original] if original in tensors else file.get_tensor(original)
    return tensors
