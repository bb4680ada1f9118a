"""What doctor says of an installation: that a part works only after trying it, and of a broken one what is wrong."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import fye_rt
from fye_rt import machine, media
from fye_rt.animator import Animator
from fye_rt.backends import gpu
from fye_rt.cli import doctor
from fye_rt.cli.doctor import ABSENT, FACT, FAILED, OK, Line
from fye_rt.cli.main import main
from fye_rt.options import ClipRequest, Options
from tests.fye_rt.command_line import BUNDLES, TINY, Fye, python
from tests.fye_rt.faults import flip

CORE = ("numpy", "onnxruntime", "av", "pillow", "opencv-contrib-python", "opencv", "pictures", "videos")


@pytest.fixture(autouse=True)
def no_landmarker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, where nobody has downloaded anything yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FYE_LANDMARKER", raising=False)
    monkeypatch.setattr(gpu, "gpus", lambda: gpu.Found((), "", "there is no NVIDIA driver"))
    doctor._small_bundle.cache_clear()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only packages that are imported anyhow: those of the extras take seconds."""
    monkeypatch.setattr(machine, "PACKAGES", machine.PACKAGES[:5])
    monkeypatch.setattr("fye_rt.backends.BACKENDS", {"onnxruntime": ("fye_rt.backends.onnxruntime", "onnxruntime")})


def examined() -> dict[str, Line]:
    return {line.part: line for line in doctor.examine()}


@pytest.mark.slow
def test_doctor_tries_all_that_is_installed(fye: Fye, opencv: None) -> None:
    output = fye("doctor")
    assert fye.err == ""
    printed = {line[:28].strip(): line[29:].split(maxsplit=1) for line in output.splitlines()}
    for what in (*CORE, "shipped bundle", "backend onnxruntime"):
        assert printed[what][0] == OK, printed[what]
    for extra in ("mediapipe", "openvino", "torch", "diffusers", "transformers", "onnx"):
        assert printed[extra][0] == (OK if machine.installed_version(extra) else ABSENT), printed[extra]
    assert printed["backend openvino"][0] == printed["openvino"][0]
    assert printed["gpu"] == [ABSENT, "none: there is no NVIDIA driver"]
    assert printed["landmarker"][0] == ABSENT and "run: fye doctor --get landmarker" in printed["landmarker"][1]


def test_a_missing_package_is_absent_and_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, fye: Fye) -> None:
    installed = machine.installed_version
    absent = ("mediapipe", "openvino", "torch", "diffusers", "transformers", "onnx")
    monkeypatch.setattr(machine, "installed_version", lambda name: None if name in absent else installed(name))
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name in absent else installed(name))
    for module in ("openvino", "torch"):
        monkeypatch.setitem(sys.modules, f"fye_rt.backends.{module}", None)
    lines = examined()
    for package in absent:
        extra = {"mediapipe": "landmarks", "openvino": "openvino"}.get(package, "export")
        how = f"not installed; run: pip install 'fye-rt[{extra}]'"
        assert (lines[package].state, lines[package].how) == (ABSENT, how)
    assert lines["backend openvino"].state == ABSENT
    assert lines["backend openvino"].how.endswith("run: pip install 'fye-rt[openvino]'")
    assert lines["fye-rt"].state == FACT and fye_rt.version.__version__ in lines["fye-rt"].how
    assert lines["backend onnxruntime-cuda"].how == "not usable: there is no NVIDIA driver"
    assert not [line for line in lines.values() if line.broken]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TypeError("open() got an unexpected keyword argument 'metadata_errors'"), "TypeError: open() got"),
        (AttributeError("'Type' object\nhas no attribute\n\t'type'"), "AttributeError: 'Type' object has no attribute"),
        (OverflowError("x" * 5000), "OverflowError: xxxx"),
    ],
)
def test_a_broken_pyav_is_reported_in_one_line(
    error: Exception, told: str, few: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(av, "open", broken)
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out.splitlines()
    (line,) = (line for line in output if line.startswith("videos"))
    assert told in line and line[29:].startswith(FAILED) and len(line) < 400
    assert [line for line in output if line.startswith("shipped bundle")]  # the others are tried all the same


@pytest.mark.parametrize(
    ("reader", "what", "fault"),
    [
        ("read_video", "videos", lambda frames: list(frames)[:2]),
        ("read_image", "pictures", lambda image: np.ascontiguousarray(image[..., ::-1])),
    ],
    ids=["loses frames", "swaps colours"],
)
def test_a_reader_with_a_fault_fails(
    reader: str, what: str, fault: Callable[[Any], Any], few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = getattr(media, reader)
    monkeypatch.setattr(media, reader, lambda path: fault(read(path)))
    assert examined()[what].state == FAILED


def test_a_pillow_without_webp_fails(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE, "WEBP")
    line = examined()["pictures"]
    assert line.state == FAILED and line.broken


def test_a_damaged_bundle_fails_with_its_backends(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    flip(tmp_path / "tiny" / "guider.onnx", 100)
    monkeypatch.setattr("fye_rt.bundle.shipped_bundles", lambda: tmp_path)
    monkeypatch.setattr("fye_rt.cli.demo.shipped_bundles", lambda: tmp_path)
    lines = examined()
    for what in ("shipped bundle", "backend onnxruntime"):
        assert lines[what].state == FAILED and lines[what].broken and "guider.onnx" in lines[what].how


def test_a_broken_extra_fails_and_the_core_goes_on(few: None, monkeypatch: pytest.MonkeyPatch, fye: Fye) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "openvino"))
    monkeypatch.setattr("fye_rt.backends.BACKENDS", {"openvino": ("fye_rt.backends.openvino", "openvino")})
    for module in ("openvino", "fye_rt.backends.openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    lines = examined()
    assert (lines["openvino"].state, lines["backend openvino"].state) == (FAILED, FAILED)
    fye("doctor")  # exit code 0


def test_a_damaged_face_model_fails(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "face_landmarker.task").write_bytes(b"<html>not found</html>")
    monkeypatch.setenv("FYE_LANDMARKER", str(tmp_path / "face_landmarker.task"))
    line = examined()["landmarker"]
    assert line.state == FAILED and "face_landmarker.task" in line.how and not line.broken


def test_a_face_model_that_works_has_found_a_face(few: None, landmarker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mediapipe")
    monkeypatch.setenv("FYE_LANDMARKER", str(landmarker))
    assert (line := examined()["landmarker"]).state == OK and line.how == f"{landmarker} finds a face"


def test_opencv_without_its_system_libraries_tells_what_to_install(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    line = examined()["opencv"]
    assert line.state == FAILED and line.broken and "libgl1 libglib2.0-0" in line.how


@pytest.mark.parametrize("package", ["pillow", "av", "onnxruntime"])
def test_a_broken_package_of_the_core_fails(package: str, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"pillow": "PIL"}.get(package, package), None)
    line = examined()[package]
    assert line.state == FAILED and line.broken and "ModuleNotFoundError" in line.how


def test_doctor_runs_without_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None\nfrom fye_rt.cli.main import main; sys.exit(main(['doctor']))"
    result = python("-c", code)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines()[-1].split()[:2] == ["numpy", FAILED]


@pytest.mark.parametrize("option", [("--get", "checkpoint"), ("--url", "https://example.org/face_landmarker.task")])
def test_doctor_downloads_nothing_but_the_landmarker(option: tuple[str, str], fye: Fye) -> None:
    assert "landmarker" in fye.refuses("doctor", *option)


def test_the_demo_needs_no_face_model(animator: Animator, undenoised: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FYE_LANDMARKER", "nowhere")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    portraits = sorted((BUNDLES / "demo").glob("*/portrait.png"))
    motions = sorted((BUNDLES / "demo").glob("*/landmarks"))
    assert len(portraits) == len(motions) == 4
    for portrait, motion in zip(portraits, [*motions[1:], motions[0]], strict=True):
        request = ClipRequest(portrait=portrait, motion=motion, options=Options(steps=1), frames=1)
        assert len(animator.animate(request)) == 1
