import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fye_export import export, onnx_graph, random_checkpoint
from fye_export.checkpoint import PE, Checkpoint
from fye_export.graphs import graph_specs
from fye_rt import Animator, Bundle, Options
from fye_rt.bundle import GRAPHS, MANIFEST
from fye_rt.errors import BundleError, CheckpointError, ExportError, OptionError, OutputError
from tests.fye_export.checkpoint_files import GUIDER, change

ROOT = Path(__file__).resolve().parents[2]
Traces = dict[str, onnx_graph.Graph]


@pytest.fixture
def traced(golden_traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of the golden checkpoint take the graphs that were cut for `golden_bundle`."""
    monkeypatch.setattr(onnx_graph, "trace", lambda spec, config: golden_traces[spec.name])


@pytest.fixture
def guider_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports have one graph, for tests in which none is published."""
    monkeypatch.setattr(export, "graph_specs", lambda config: {"guider": graph_specs(config)["guider"]})


@pytest.fixture
def uncompared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports take PyTorch's agreement for granted, for tests of how they are published."""
    monkeypatch.setattr(export, "_compare", lambda *_: export.GraphError(0.0, 0.0))


@pytest.fixture(scope="module")
def manifest(golden_bundle: Path) -> dict[str, Any]:
    return json.loads((golden_bundle / MANIFEST).read_text())


def left_in(folder: Path) -> list[str]:
    """What is there, hidden or not; nothing if the folder was never made."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_every_graph_records_its_error_against_pytorch_at_two_shapes(manifest: dict[str, Any]) -> None:
    assert set(manifest["graphs"]) == set(GRAPHS) and manifest["export"]["tolerance"] == 1e-4
    (_, *first), (_, *second) = shapes = manifest["export"]["checked_shapes"]
    assert first != second
    assert any(size // 8 % 8 for _, *sizes in shapes for size in sizes)  # one that the levels do not halve evenly
    for entry in manifest["graphs"].values():
        assert 0 < entry["error"]["relative_rms"] < 1e-5  # float32 in another order: 1e-6 measured
        assert 0 < entry["error"]["max_abs"] < 1e-3


def test_the_manifest_records_checkpoint_model_size_and_precision(
    manifest: dict[str, Any], golden_checkpoint: Path
) -> None:
    checkpoint = Checkpoint.open(golden_checkpoint)
    assert manifest["source"]["checkpoint_sha256"] == checkpoint.digest
    assert manifest["model"] == json.loads(json.dumps(checkpoint.config.as_dict()))
    assert manifest["size"] == [128, 128] and manifest["precision"] == "fp32"
    assert manifest["export"]["opset"] == 23


def test_the_weights_of_a_bundle_are_those_of_the_checkpoint(golden_bundle: Path, golden_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(golden_checkpoint)
    shared = Bundle.load(golden_bundle).manifest["weights"]["shared"]
    unread = set()
    with safe_open(golden_bundle / "weights.safetensors", "pt") as weights:
        names = set(weights.keys())
        for network in ("unet", "referencenet", "lmk_guider", "vae", "image_encoder"):
            for key, tensor in checkpoint.tensors(network).items():
                name = f"{network}.{key}"
                name = shared.get(name, name)
                if name in names:
                    assert torch.equal(weights.get_tensor(name), tensor.float())
                else:
                    unread.add(name)
    last = "referencenet.up_blocks.3.attentions.2.proj_out"  # behind the last attention that is looked at
    vision = "image_encoder.vision_model.post_layernorm"
    ends = {f"{part}.{kind}" for part in (last, vision) for kind in ("weight", "bias")}
    assert unread == ends | {"image_encoder.visual_projection.weight"}


@pytest.mark.slow
def test_float16_storage_halves_the_file_and_keeps_values_that_float16_holds(
    traced: None, golden_bundle: Path, golden_checkpoint: Path, tmp_path: Path
) -> None:
    half = export.export(
        golden_checkpoint, tmp_path / "bundle", precision="fp16", size=(128, 128), guidance=2.0, shared_noise=0.5
    )
    full = Bundle.load(golden_bundle)
    assert (half.precision, full.precision) == ("fp16", "fp32") and (half.guidance, full.guidance) == (2.0, 3.5)
    assert (half.shared_noise, full.shared_noise) == (0.5, 0.0)
    sizes = [(bundle.path / bundle.weights).stat().st_size for bundle in (half, full)]
    assert sizes[0] < 0.53 * sizes[1]  # positional encodings and the file's header stay as they are
    with safe_open(half.path / half.weights, "pt") as weights:
        dtypes = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 (not a dict)
    exact = {name for name in dtypes if name.endswith((PE, ".unconditional"))}
    assert {dtypes[name] for name in exact} == {"F32"}
    assert {dtypes[name] for name in set(dtypes) - exact} == {"F16"}

    def run(bundle: Bundle) -> np.ndarray:
        with Animator(bundle, "onnxruntime") as animator:
            images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
            portrait, motion = animator.encode_portrait(images[0]), animator.encode_motion(images)
            return animator.denoise(portrait, motion, options=Options(steps=1, guidance=2.0, shared_noise=0.0))

    # the golden checkpoint's values are float16 already: the very same numbers are computed with
    assert np.array_equal(run(Bundle.load(half.path)), run(full))


def test_a_graph_with_wrong_weights_is_refused(
    traced: None, guider_only: None, golden_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.weights.write

    def write_wrong(path: Path, *args: Any) -> dict[str, onnx_graph.Weight]:
        placed = write(path, *args)
        bias = placed["lmk_guider.conv_out.bias"]
        with path.open("r+b") as file:
            file.seek(bias.offset)
            file.write(np.full(bias.shape, 1, np.float32).tobytes())
        return placed

    monkeypatch.setattr(export.weights, "write", write_wrong)
    with pytest.raises(ExportError, match="guider by"):
        export.export(golden_checkpoint, tmp_path / "bundle")
    assert left_in(tmp_path) == []


def test_a_graph_that_returns_infinity_is_refused(guider_only: None, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    random_checkpoint.write(checkpoint, random_checkpoint.PRESETS["tiny"], dtype=torch.float32)
    change(checkpoint / GUIDER, lambda state: {name: 1e20 * tensor for name, tensor in state.items()})
    with np.errstate(all="ignore"), pytest.raises(ExportError, match="guider by inf"):
        export.export(checkpoint, tmp_path / "out" / "bundle")
    assert left_in(tmp_path / "out") == []


def test_a_graph_beyond_the_tolerance_is_named_and_an_existing_bundle_stays(
    traced: None, guider_only: None, golden_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    (output / MANIFEST).write_bytes(b"the older bundle")
    with pytest.raises(ExportError, match=r"beyond 0e\+00: guider by \d\.\de-\d\d; nothing was published"):
        export.export(golden_checkpoint, output, tolerance=0)
    assert (output / MANIFEST).read_bytes() == b"the older bundle" and left_in(tmp_path) == ["bundle"]


def test_an_export_of_a_refused_checkpoint_leaves_no_files(golden_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        export.export(tmp_path / "absent", tmp_path / "bundle")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, "precision='int8' is not valid; allowed: fp32, fp16"),
        ({"size": (512, 500)}, "size=512x500 is not valid"),
        ({"size": (56, 512)}, "size=56x512 is not valid"),
        ({"guidance": -1.0}, "guidance=-1.0 is not valid"),
        ({"shared_noise": 1.1}, "shared_noise=1.1 is not valid"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_read(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        export.export(tmp_path / "absent", tmp_path / "bundle", **settings)


def test_a_folder_that_is_no_bundle_is_never_replaced(golden_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is no bundle"):
        export.export(golden_checkpoint, tmp_path)
    assert left_in(tmp_path) == ["thesis.tex"]


def test_progress_of_an_export_completes_each_stage_in_its_order(
    traced: None, uncompared: None, golden_checkpoint: Path, tmp_path: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    export.export(golden_checkpoint, tmp_path / "bundle", progress=lambda *step: steps.append(step))
    stages = {"read the checkpoint": 1, "cut the graphs": len(GRAPHS), "write the weights": 1}
    stages |= {"compare with PyTorch": len(GRAPHS), "hash the files": 1}
    assert steps == [(stage, done, total) for stage, total in stages.items() for done in range(total + 1)]


@pytest.mark.slow
def test_two_concurrent_exports_into_one_folder_leave_one_complete_bundle(
    traced: None, uncompared: None, golden_checkpoint: Path, tmp_path: Path
) -> None:
    output, start = tmp_path / "bundle", threading.Barrier(2)

    def run(precision: str) -> Bundle:
        start.wait()
        return export.export(golden_checkpoint, output, precision=precision)

    with ThreadPoolExecutor(2) as both:
        results = list(both.map(run, ("fp32", "fp16")))
    assert [type(result) for result in results] == [Bundle, Bundle]
    assert left_in(tmp_path) == ["bundle"] and Bundle.load(output).precision in ("fp32", "fp16")


KILLED = """
import os, signal, sys
from fye_export import export
specs = export.graph_specs
export.graph_specs = lambda config: {"guider": specs(config)["guider"]}  # one is enough to be killed over
def progress(stage, done, total):
    if stage == "hash the files":  # when all is written but the manifest
        os.kill(os.getpid(), signal.SIGKILL)
export.export(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.mark.slow
def test_a_killed_export_leaves_no_folder_that_loads(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    command = [sys.executable, "-c", KILLED, str(tiny_checkpoint), str(output)]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, env=paths, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".bundle.") and (left / "weights.safetensors").stat().st_size > 0
    for folder in (output, left):
        with pytest.raises(BundleError, match="is not a bundle"):
            Bundle.load(folder)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a full disk: no file of this process can grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_reported_and_leaves_no_files(
    traced: None, uncompared: None, golden_checkpoint: Path, tmp_path: Path
) -> None:
    with largest_file(1_000_000), pytest.raises(OutputError, match=r"cannot write .*bundle"):
        export.export(golden_checkpoint, tmp_path / "bundle")
    assert left_in(tmp_path) == []
