"""Opening a bundle adds little more than its weights to the memory of the process."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from fye_bench.speed.session_options import Candidate, keep_inputs, measure_opening
from fye_bench.speed.worker import Worker
from fye_export import onnx_graph
from fye_export.onnx_graph import Weight
from fye_rt import backends
from fye_rt.bundle import FORMAT, GRAPHS, MANIFEST, VERSION, sealed
from fye_rt.files import sha256
from fye_rt.schedule import SchedulerConfig

WIDTH = 640
# The shapes that hold most of the released model's weights: 3x3 convolutions, and the linear layers of a GEGLU
SHAPES = [(WIDTH, WIDTH, 3, 3)] * 3 + [(4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)] * 4
NAMES = [f"layer.{i}" for i in range(len(SHAPES))]
PARAMETERS = sum(int(np.prod(shape)) for shape in SHAPES)  # 97 MB in float32; a session costs 4 MB besides


def write_bundle(folder: Path, precision: str) -> Path:
    """A bundle whose graphs are all one: a few layers with weights of a realistic size."""
    folder.mkdir()
    weights = write_weights(folder / "weights.safetensors", {"fp32": "float32", "fp16": "float16"}[precision])
    onnx_graph.save(layers(), folder / "layers.onnx", "weights.safetensors", weights)
    graph = {"file": "layers.onnx", "variants": {}, "inputs": [], "outputs": [], "parameters": PARAMETERS}
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(folder.iterdir())}
    manifest = {"format": FORMAT, "version": VERSION, "model": {}, "graphs": dict.fromkeys(GRAPHS, graph)}
    manifest |= {"scheduler": SchedulerConfig().as_dict(), "max_frames": 32, "size": [128, 128], "precision": precision}
    manifest |= {"weights": {"file": "weights.safetensors"}, "files": files}
    (folder / MANIFEST).write_text(sealed(manifest))
    return folder


def write_weights(path: Path, dtype: str) -> dict[str, Weight]:
    rng, weights = np.random.default_rng(0), {}
    with path.open("wb") as file:
        for name, shape in zip(NAMES, SHAPES, strict=True):
            array = rng.standard_normal(shape, np.float32).astype(dtype)
            weights[name] = Weight(dtype, shape, file.tell(), array.nbytes)
            file.write(array.data)
    return weights


def layers() -> onnx_graph.Graph:
    float32 = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", shape=ir.Shape((1, WIDTH, 16, 16)), type=float32)
    weights = [ir.Value(name=n, shape=ir.Shape(shape), type=float32) for n, shape in zip(NAMES, SHAPES, strict=True)]
    rows = ir.tensor(np.array([-1, WIDTH], np.int64), name="rows")
    shape = ir.Value(name="rows", shape=rows.shape, type=ir.TensorType(rows.dtype), const_value=rows)
    nodes, y = [], x
    for weight in weights[:3]:
        nodes.append(ir.Node("", "Conv", [y, weight], [ir.AttrInt64s("pads", [1, 1, 1, 1])]))
        y = nodes[-1].outputs[0]
    nodes.append(ir.Node("", "Reshape", [y, shape]))
    for weight in weights[3:]:
        nodes.append(ir.Node("", "Gemm", [nodes[-1].outputs[0], weight], [ir.AttrInt64("transB", 1)]))
    out = nodes[-1].outputs[0]
    out.name, out.type, out.shape = "y", float32, ir.Shape((256, WIDTH))
    graph = ir.Graph([x, *weights], [out], nodes=nodes, initializers=[shape], opset_imports={"": onnx_graph.OPSET})
    return onnx_graph.Graph(ir.Model(graph, ir_version=11), tuple(NAMES), {})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_opening_a_graph_takes_at_most_1_15_times_its_weights_of_memory(tmp_path: Path, precision: str) -> None:
    bundle = write_bundle(tmp_path / "bundle", precision)
    with Worker() as worker:
        seen = measure_opening(Candidate(bundle, "onnxruntime", "fp32"), worker, ["denoiser"])
    assert seen["weights_bytes"] == 4 * PARAMETERS
    # below half, the weights would not be in memory, and the first evaluation would bring them
    assert 0.5 < seen["added"] <= 1.15


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_holds_float32_weights_once_and_float16_weights_twice(
    tmp_path: Path, precision: str, compute: str
) -> None:
    pytest.importorskip("openvino")
    if compute not in backends.computes("openvino"):
        pytest.skip(f"this CPU does not compute in {compute}")
    bundle = write_bundle(tmp_path / "bundle", precision)
    with Worker() as worker:
        worker.call(backends.computes, "openvino")  # loads the library, whose own memory is not of the weights
        opened = measure_opening(Candidate(bundle, "openvino", compute), worker, ["denoiser"])
        _, run = worker.watch(keep_inputs, {"x": np.zeros((1, WIDTH, 16, 16), np.float32)})
    packed = {"fp32": 1.0, "bf16": 0.5}[compute]
    expanded = {"fp32": 0.0, "fp16": 1.0}[precision]
    held = opened["added"] + run.added / (4 * PARAMETERS)
    # 11 MB are the session's and the layers' outputs; memory that compiling has freed is 5 MB more
    assert 0.9 * packed < held <= packed + expanded + 0.15
