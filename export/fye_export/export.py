"""Exports a checkpoint to a bundle: cuts graphs, writes weights, compares with PyTorch, publishes."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fye_export import onnx_graph, weights
from fye_export.checkpoint import Checkpoint
from fye_export.config import MAX_FRAMES
from fye_export.graphs import GraphSpec, graph_specs, unconditional_attention
from fye_export.networks import UNet
from fye_export.onnxruntime_graph import lowered
from fye_rt.bundle import FORMAT, MANIFEST, PRECISIONS, VERSION, Bundle, sealed, symbols
from fye_rt.errors import ExportError, OptionError, OutputError
from fye_rt.files import atomic_folder, sha256
from fye_rt.options import GUIDANCE, Options
from fye_rt.schedule import SchedulerConfig
from fye_rt.timings import Progress, no_progress

WEIGHTS = "weights.safetensors"
# Largest relative RMS error of a graph against PyTorch with the checkpoint's own numbers. In float32 only the order of
# additions differs (1e-6 measured); float16 storage rounds each weight by up to 5e-4 of its value.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
# (frames, height, width). The UNet's levels do not halve the second shape evenly. Neither shape shrinks to a single
# position at the deepest level, where narrow models' group norms see two values and amplify rounding.
CHECKED_SHAPES = ((2, 128, 96), (3, 72, 104))


@dataclass(frozen=True, slots=True)
class GraphError:
    """Largest error against PyTorch of a graph as ONNX Runtime loads it, over all outputs and checked shapes."""

    relative_rms: float
    max_abs: float


def export(
    checkpoint_dir: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    precision: str = "fp32",
    size: tuple[int, int] = (512, 512),
    tolerance: float | None = None,
    guidance: float = GUIDANCE,
    shared_noise: float = 0.0,
    note: str = "",
    progress: Progress | None = None,
) -> Bundle:
    """Export a checkpoint, in the released layout or repacked.

    Args:
        checkpoint_dir: its folder, a file, or several folders and files; see docs/reference/checkpoints.md.
        output: folder of the bundle; a bundle in its place is replaced once the new one is complete.
        precision: precision of the stored weights, "fp32" or "fp16".
        size: default (height, width) in pixels to which portraits are fitted; multiples of 8.
        tolerance: largest accepted relative RMS error; by default `TOLERANCE` of the precision.
        guidance: default guidance scale stored in the bundle.
        shared_noise: default share of the noise's variance that all frames have in common, stored in the bundle.
        note: a line shown to users of the bundle.
        progress: called with (stage, done, total); stages that take long count graphs.

    Returns:
        The published bundle.

    Raises:
        CheckpointError: the checkpoint is incomplete or damaged.
        ExportError: a graph differs from PyTorch by more than the tolerance; nothing was published.
        OptionError: an option is not valid.
        OutputError: the folder holds something else, or cannot be written.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision={precision!r} is not valid; allowed: {', '.join(PRECISIONS)}")
    if any(side < 64 or side % 8 for side in size):
        raise OptionError(f"size={size[0]}x{size[1]} is not valid; both sides are multiples of 8, at least 64")
    Options(guidance=guidance, shared_noise=shared_noise)  # refuses invalid values
    output = Path(output)
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise OutputError(f"{output} is not empty and is no bundle, so it is not replaced; choose a new folder")
    tolerance = TOLERANCE[precision] if tolerance is None else tolerance
    report = progress or no_progress

    report("read the checkpoint", 0, 1)
    checkpoint = Checkpoint.open(*([checkpoint_dir] if isinstance(checkpoint_dir, str | Path) else checkpoint_dir))
    checkpoint.check()
    report("read the checkpoint", 1, 1)
    specs = graph_specs(checkpoint.config)
    with atomic_folder(output) as folder:
        graphs = {}
        for i, (name, spec) in enumerate(specs.items()):
            report("cut the graphs", i, len(specs))
            graphs[name] = onnx_graph.trace(spec, checkpoint.config)
        report("cut the graphs", len(specs), len(specs))
        report("write the weights", 0, 1)
        derived = _derived(checkpoint)
        stored = weights.layout(checkpoint, precision, {name for graph in graphs.values() for name in graph.weights})
        placed = weights.write(folder / WEIGHTS, stored, checkpoint, derived)
        report("write the weights", 1, 1)
        entries, worst = {}, {}
        for i, (name, spec) in enumerate(specs.items()):
            report("compare with PyTorch", i, len(specs))
            files = _save(graphs[name], name, folder, placed)
            error = _compare(spec, checkpoint, folder / files.get("onnxruntime", files[""]))
            entries[name] = _graph_entry(spec, files, error) | {
                "parameters": sum(math.prod(placed[weight].shape) for weight in graphs[name].weights)
            }
            worst[name] = error.relative_rms
        report("compare with PyTorch", len(specs), len(specs))
        if bad := {name: error for name, error in worst.items() if not error <= tolerance}:
            errors = ", ".join(f"{name} by {error:.1e}" for name, error in bad.items())
            raise ExportError(f"graphs differ from PyTorch beyond {tolerance:.0e}: {errors}; nothing was published")
        report("hash the files", 0, 1)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "model": checkpoint.config.as_dict(),
            "graphs": entries,
            "scheduler": SchedulerConfig().as_dict(),
            "max_frames": MAX_FRAMES,
            "size": list(size),
            "precision": precision,
            "weights": {
                "file": WEIGHTS,
                "shared": {name: tensor.name for tensor in stored for name in tensor.shared},
                "derived": {name: "to_out.0(to_v(unet.clip_fc.bias)) of the same attention" for name in derived},
            },
            "export": {
                "opset": onnx_graph.OPSET,
                "tolerance": tolerance,
                "checked_shapes": [list(shape) for shape in CHECKED_SHAPES],
                "versions": {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
            },
            "source": {"checkpoint_sha256": checkpoint.digest},
            "guidance": guidance,
            "shared_noise": shared_noise,
            "note": note,
            "files": {
                file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(folder.iterdir())
            },
        }
        (folder / MANIFEST).write_text(sealed(manifest))
        bundle = Bundle.load(folder, verify=False)  # before publishing: another export may replace the bundle after it
    report("hash the files", 1, 1)
    return replace(bundle, path=output)


def _derived(checkpoint: Checkpoint) -> dict[str, Tensor]:
    with torch.inference_mode():
        unet = cast(UNet, checkpoint.load("unet"))
        return {f"unet.{name}.unconditional": vector.clone() for name, vector in unconditional_attention(unet).items()}


def _save(graph: onnx_graph.Graph, name: str, folder: Path, placed: Mapping[str, onnx_graph.Weight]) -> dict[str, str]:
    """Write the standard graph and ONNX Runtime's variant; returns file names by engine, "" for the standard graph."""
    files = {"": f"{name}.onnx"}
    onnx_graph.save(graph, folder / files[""], WEIGHTS, placed)
    if variant := lowered(graph):
        files["onnxruntime"] = f"{name}.onnxruntime.onnx"
        onnx_graph.save(variant, folder / files["onnxruntime"], WEIGHTS, placed)
    return files


def _compare(spec: GraphSpec, checkpoint: Checkpoint, file: Path) -> GraphError:
    """Run PyTorch, then ONNX Runtime on the file that its backend loads, with the same random inputs."""
    import onnxruntime

    cases = list(_cases(spec))
    expected = _run_torch(spec, checkpoint, cases)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")  # for two runs a second copy does not pay
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    pairs = [
        pair
        for inputs, outputs in zip(cases, expected, strict=True)
        for pair in zip(session.run(None, inputs), outputs, strict=True)
    ]
    return GraphError(
        relative_rms=max(_relative_rms(actual, exact) for actual, exact in pairs),
        max_abs=max(float(np.abs(actual - exact).max()) for actual, exact in pairs),
    )


def _cases(spec: GraphSpec) -> Iterator[dict[str, NDArray[Any]]]:
    for shape in CHECKED_SHAPES:
        seed = hashlib.sha256(f"{spec.name} {shape}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
        sizes = symbols(*shape)
        inputs: dict[str, NDArray[Any]] = {}
        for tensor in spec.inputs:
            dims = [sizes[d] if isinstance(d, str) else d for d in tensor.shape]
            if tensor.dtype == "int64":
                inputs[tensor.name] = rng.integers(0, 1000, dims)
            else:
                inputs[tensor.name] = rng.standard_normal(dims, dtype=np.float32)
        yield inputs


def _run_torch(
    spec: GraphSpec, checkpoint: Checkpoint, cases: list[dict[str, NDArray[Any]]]
) -> list[list[NDArray[np.float32]]]:
    with torch.inference_mode():
        module: nn.Module = spec.module(*(checkpoint.load(name) for name in spec.networks)).eval()
        results = []
        for inputs in cases:
            outputs = module(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
            results.append([output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))])
    return results


def _relative_rms(actual: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Compute the relative RMS error; NaN gives infinity, which never passes a comparison."""
    error = float(np.sqrt(np.mean((actual - exact) ** 2, dtype=np.float64)))
    scale = float(np.sqrt(np.mean(exact**2, dtype=np.float64)))
    return error / scale if np.isfinite(error) and scale > 0 else float("inf")


def _graph_entry(spec: GraphSpec, files: Mapping[str, str], error: GraphError) -> dict[str, Any]:
    return {
        "file": files[""],
        "variants": {engine: file for engine, file in files.items() if engine},
        "inputs": [asdict(tensor) for tensor in spec.inputs],
        "outputs": [asdict(tensor) for tensor in spec.outputs],
        "error": asdict(error),
    }
