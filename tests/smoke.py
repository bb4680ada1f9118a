"""The shortest way through everything that an installed fye-rt does; tests/versions.py runs it at both ends of all
ranges.

Needs pytest alone, and none of the other tests' files. The package is the environment's own, not the checkout's.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fye_rt
from fye_rt import media
from fye_rt.bundle import shipped_bundles
from fye_rt.landmarks import Motion

ROOT = Path(__file__).resolve().parents[1]
PEOPLE = shipped_bundles() / "demo" / "people"
FAST = ("--bundle", str(shipped_bundles() / "tiny"), "--steps", "1", "--forecast", "off", "--quiet")
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".ppm": "PPM"}


def installed(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed here")


def fye(folder: Path, *arguments: object) -> str:
    """The standard output of a run that succeeds."""
    command = [sys.executable, "-m", "fye_rt", *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def landmarker() -> Path:
    installed("mediapipe")
    named = os.environ.get("FYE_LANDMARKER")
    path = Path(named) if named else ROOT.parent / "shared" / "models" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip("needs MediaPipe's face_landmarker.task: name it in FYE_LANDMARKER")
    return path


@pytest.fixture(scope="session")
def photograph() -> Path:
    """A face, among the sample data of matplotlib, which MediaPipe brings."""
    installed("matplotlib")
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="session")
def video(photograph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames in which that face moves to the right."""
    picture = media.read_image(photograph)
    path = tmp_path_factory.mktemp("video") / "driving.mp4"
    media.write_video(path, [np.roll(picture, 4 * k, axis=1) for k in range(4)], 8)
    return path


def frames_of(path: Path) -> tuple[int, ...]:
    return np.stack([frame for _, frame in media.read_video(path)]).shape


def test_the_package_under_test_is_the_installed_one() -> None:
    assert Path(sys.prefix) in Path(fye_rt.__file__).parents, f"{fye_rt.__file__} is not in {sys.prefix}"
    script = shutil.which("fye", path=str(Path(sys.executable).parent))
    assert script is not None
    told = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert told == f"fye-rt {fye_rt.version.__version__}\n"


def test_a_still_picture_follows_a_small_motion(tmp_path: Path) -> None:
    fye(tmp_path, "animate", PEOPLE / "portrait.png", PEOPLE / "landmarks", "-o", "a.mp4", *FAST, "--frames", "3")
    assert frames_of(tmp_path / "a.mp4")[0] == 3


def test_a_picture_in_every_format_is_read(tmp_path: Path) -> None:
    from PIL import Image, features

    formats = FORMATS | ({".avif": "AVIF"} if features.check("avif") else {})
    picture = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    for suffix, name in formats.items():
        Image.fromarray(picture).save(tmp_path / f"a{suffix}", name)
        read = media.read_image(tmp_path / f"a{suffix}").astype(int)
        assert read.shape == picture.shape and abs(read - picture).max() < 16, name


def test_a_heic_picture_is_read(tmp_path: Path) -> None:
    installed("pillow_heif")
    import pillow_heif

    picture = np.full((64, 96, 3), (200, 100, 50), np.uint8)
    pillow_heif.from_bytes("RGB", (96, 64), picture.tobytes()).save(tmp_path / "a.heic", quality=90)
    read = media.read_image(tmp_path / "a.heic").astype(int)
    assert read.shape == picture.shape and abs(read - picture).max() < 4


def test_a_portrait_follows_a_video(tmp_path: Path, photograph: Path, video: Path, landmarker: Path) -> None:
    options = ("--landmarker", landmarker, *FAST)
    fye(tmp_path, "animate", photograph, video, "-o", "a.mp4", *options, "--json", "a.json")
    assert frames_of(tmp_path / "a.mp4")[0] == 4
    assert json.loads((tmp_path / "a.json").read_text())["frames"] == 4


def test_the_landmarks_of_a_video_and_of_a_picture_are_found(
    tmp_path: Path, photograph: Path, video: Path, landmarker: Path
) -> None:
    fye(tmp_path, "landmarks", video, "-o", "v.npz", "--landmarker", landmarker, "--overlay", "v.mp4", "--quiet")
    fye(tmp_path, "landmarks", photograph, "-o", "p.npz", "--landmarker", landmarker, "--quiet")
    motion, still = Motion.load(tmp_path / "v.npz"), Motion.load(tmp_path / "p.npz")
    assert len(motion) == 4 and motion.valid.all() and len(still) == 1
    assert motion.fps == 8 and frames_of(tmp_path / "v.mp4")[0] == 4
    nose = motion.points[:, 1, 0] * motion.source_size[1]
    np.testing.assert_allclose(np.diff(nose), 4, atol=2)  # pixels


def test_fye_batch_makes_its_clips(tmp_path: Path) -> None:
    job = {"portrait": str(PEOPLE / "portrait.png"), "motion": str(PEOPLE / "landmarks")}
    lines = [json.dumps(job | {"name": name}) for name in ("one", "two")]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    fye(tmp_path, "batch", "jobs.jsonl", "-o", "clips", *FAST, "--frames", "2", "--workers", "2")
    assert [frames_of(tmp_path / "clips" / f"{name}.mp4")[0] for name in ("one", "two")] == [2, 2]


def test_every_graph_of_the_shipped_model_runs_on_every_cpu_backend(tmp_path: Path) -> None:
    packages = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "diffusers"}
    usable = [name for name, package in packages.items() if importlib.util.find_spec(package)]
    assert "onnxruntime" in usable
    for backend in usable:
        assert fye(tmp_path, "verify", shipped_bundles() / "tiny", "--backend", backend, "--quiet").endswith("ok\n")


def test_an_extra_keeps_the_installed_version_of_fye_rt() -> None:
    """What messages say, `pip install 'fye-rt[EXTRA]'`, asks no index for fye-rt, wherever it was installed from."""
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", "fye-rt[landmarks]"]
    told = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert told.returncode == 0 and "Would install" not in told.stdout, told.stderr


def test_fye_doctor_reports_no_problem(tmp_path: Path) -> None:
    states = {line[:28].strip(): line[29:36].strip() for line in fye(tmp_path, "doctor").splitlines()}
    assert "failed" not in states.values(), states
    assert states["videos"] == states["pictures"] == states["backend onnxruntime"] == "ok"


def test_graphs_are_cut_from_a_checkpoint_and_agree_with_pytorch(tmp_path: Path) -> None:
    for module in ("torch", "diffusers", "onnxscript"):
        installed(module)
    from fye_export import export, onnx_graph, weights
    from fye_export.checkpoint import Checkpoint
    from fye_export.graphs import graph_specs

    spec = importlib.util.spec_from_file_location("golden_files", ROOT / "tests" / "golden_files.py")
    assert spec is not None and spec.loader is not None
    golden_files = importlib.util.module_from_spec(spec)  # the module beside this file
    spec.loader.exec_module(golden_files)
    golden_files.write_checkpoint(tmp_path / "checkpoint")
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    checkpoint.check()
    specs = graph_specs(checkpoint.config)
    # a network of our own, one of transformers' and one of diffusers'; all seven take minutes
    for name in ("guider", "image_encoder", "vae_decoder"):
        graph = onnx_graph.trace(specs[name], checkpoint.config)
        stored = weights.layout(checkpoint, "fp32", set(graph.weights))
        placed = weights.write(tmp_path / export.WEIGHTS, stored, checkpoint, {})
        files = export._save(graph, name, tmp_path, placed)
        error = export._compare(specs[name], checkpoint, tmp_path / files.get("onnxruntime", files[""]))
        assert error.relative_rms < 1e-4, name
