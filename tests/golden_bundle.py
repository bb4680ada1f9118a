"""The golden checkpoint's export. It takes minutes, so it is kept under a name that changes with its sources."""

import gc
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from fye_export import export, onnx_graph
from fye_export.config import ModelConfig
from fye_export.graphs import GraphSpec
from fye_export.onnx_graph import Graph
from fye_rt import machine
from fye_rt.files import atomic_folder, locked

ROOT = Path(__file__).resolve().parents[1]
# what decides what is exported
SOURCES = (
    "export/fye_export/*.py",
    "fye_rt/bundle.py",
    "fye_rt/schedule.py",
    "tests/golden_*.py",
    "tests/data/golden/**/*",
)
LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy", "onnxruntime")


def exported(checkpoint: Path) -> Path:
    """A folder in build/ with the bundle and the graphs it was made of; several processes may ask at once."""
    folder = ROOT / "build" / "tests" / f"golden-{_key()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), lambda: None):
        if not folder.exists():
            with atomic_folder(folder) as temporary:
                _export(checkpoint, temporary)
            gc.freeze()  # tracing leaves a million objects in PyTorch's caches; later collections need not visit them
    return folder


def traces(folder: Path) -> dict[str, Graph]:
    """The graphs in a folder of `exported`, by name."""
    graphs = pickle.loads((folder / "traces.pickle").read_bytes())
    return {
        name: replace(graph, model=ir.from_proto(onnx.ModelProto.FromString(graph.model)))
        for name, graph in graphs.items()
    }


def _export(checkpoint: Path, folder: Path) -> None:
    graphs = {}
    cut = onnx_graph.trace

    def trace(spec: GraphSpec, config: ModelConfig) -> Graph:
        graph = cut(spec, config)
        graphs[spec.name] = replace(graph, model=ir.to_proto(graph.model).SerializeToString())
        return graph

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "trace", trace)
        export.export(checkpoint, folder / "bundle", size=(128, 128))
    (folder / "traces.pickle").write_bytes(pickle.dumps(graphs))


def _key() -> str:
    whole = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(filter(Path.is_file, ROOT.glob(pattern))):
            whole.update(path.read_bytes())
    for library in LIBRARIES:
        whole.update(f"{library} {machine.installed_version(library)}".encode())
    return whole.hexdigest()[:16]
