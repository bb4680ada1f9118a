import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fye_rt
from fye_rt import cli, media
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, sealed, sha256
from fye_rt.landmarks import LANDMARKER_URL, Motion

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "engines" / "bundles"
TINY = BUNDLES / "tiny"
PORTRAIT = BUNDLES / "demo" / "portrait.png"
LANDMARKS = BUNDLES / "demo" / "landmarks"
FAST = ("--bundle", str(TINY), "--steps", "1", "--frames", "2")


class Fye:
    """Runs `fye` in this process and keeps what it said."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> str:
        """The standard output of a run that succeeds."""
        code = cli.main([str(argument) for argument in arguments])
        out, self.err = self._capture.readouterr()
        assert code == 0, self.err
        return out

    def refuses(self, *arguments: object) -> str:
        """The one line of a run that ends with a user's mistake."""
        code = cli.main([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        assert (code, out) == (2, "") and err.startswith("fye: ") and err.count("\n") == 1, (code, out, err)
        return err


@pytest.fixture
def fye(capsys: pytest.CaptureFixture[str]) -> Fye:
    return Fye(capsys)


@pytest.fixture(scope="module")
def motion(data: Path) -> Motion:
    with np.load(data / "landmarks" / "landmarks.npz") as recorded:
        return Motion(
            points=recorded["tmpl_lmks"],
            mesh=recorded["tmpl_lmks3d"],
            pose=recorded["tmpl_trans_mat"],
            blendshapes=recorded["tmpl_bs"],
            times=np.arange(10) / 7.0,
            fps=7.0,
            source_size=(256, 256),
            valid=np.ones(10, np.bool_),
        )


@pytest.fixture(scope="module")
def still(motion: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A motion file of one frame, which may stand for a portrait's landmarks."""
    path = tmp_path_factory.mktemp("still") / "still.npz"
    motion[:1].save(path)
    return path


@pytest.fixture(scope="module")
def landmarker(shared: Path) -> Path:
    path = shared / "models" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip("needs MediaPipe's face_landmarker.task in ../shared/models")
    return path


@pytest.fixture(scope="module")
def carphone(shared: Path) -> Path:
    path = shared / "media" / "carphone.mp4"
    if not path.is_file():
        pytest.skip("needs the talking head carphone.mp4 in ../shared/media")
    return path


@pytest.fixture
def undenoised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey latents at once: for tests of what stands before and after the one slow stage."""

    def denoise(self: Animator, portrait: Any, motion: Any, options: Any, progress: Callable[[int, int], None]) -> Any:
        progress(1, 1)
        return np.zeros((1, 4, len(motion), portrait.size[0] // 8, portrait.size[1] // 8), np.float32)

    monkeypatch.setattr(Animator, "denoise", denoise)


def in_a_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fye_rt", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


# what it does


def test_the_version_is_the_package_s(fye: Fye) -> None:
    assert fye("--version") == f"fye-rt {fye_rt.__version__}\n"


def test_without_a_command_it_lists_the_commands(fye: Fye) -> None:
    listed = fye()
    for command in ("demo", "animate", "landmarks", "export", "verify", "bench", "doctor"):
        assert f"\n  {command} " in listed


def test_animate_writes_all_that_was_asked_for(fye: Fye, tmp_path: Path) -> None:
    out, sheet, report = tmp_path / "out.mp4", tmp_path / "sheet.png", tmp_path / "report.json"
    also = ("--contact-sheet", sheet, "--json", report, "--compare", "--windows", "context", "--low-memory")
    sizes = ("--steps", 3, "--frames", 5, "--window-size", 3, "--window-overlap", 1)
    said = fye("animate", PORTRAIT, LANDMARKS, "-o", out, "--bundle", TINY, *sizes, *also)
    assert str(out) in said and "5 frames of 128x128 at 7 fps" in said
    frames = [frame for _, frame in media.read_video(out)]
    assert len(frames) == 5 and frames[0].shape == (128, 128, 3)
    beside = [frame for _, frame in media.read_video(tmp_path / "out_compare.mp4")]
    assert len(beside) == 5 and beside[0].shape == (128, 3 * 128, 3)
    portrait = media.read_image(PORTRAIT).astype(int)
    assert np.abs(beside[0][:, :128] - portrait).mean() < 3  # H.264 at visually lossless quality
    assert media.read_image(sheet).shape[0] > 3 * 128
    facts = json.loads(report.read_text())
    assert facts["network_evaluations"] == 6  # 3 steps of 2 windows: 0-2, 2-4
    assert facts["options"]["steps"] == 3 and facts["options"]["window_size"] == 3
    assert (facts["frames"], facts["size"], facts["fps"]) == (5, [128, 128], 7.0)
    assert facts["bundle"]["digest"] == Bundle.load(TINY).digest
    assert facts["backend"] in ("onnxruntime", "openvino")
    assert set(facts["timings"]) == {"read", "landmarks", "encode_portrait", "encode_motion", "denoise", "decode"}
    assert facts["peak_memory_bytes"] > 10e6 and facts["environment"]["fye_rt"] == fye_rt.__version__


@pytest.mark.usefixtures("undenoised")
def test_a_motion_of_one_frame_makes_a_clip_of_the_size_asked_for(fye: Fye, still: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    fye("animate", PORTRAIT, still, "-o", out, *FAST, "--portrait-landmarks", still, "--size", "64x72")
    frames = [frame for _, frame in media.read_video(out)]
    assert [frame.shape for frame in frames] == [(64, 72, 3)]


@pytest.mark.usefixtures("undenoised")
def test_a_portrait_s_landmarks_may_be_a_legacy_template(fye: Fye, golden: Path, tmp_path: Path) -> None:
    template, own = golden / "template_synthetic.npy", golden / "ref_lmk_synthetic.npy"
    fye("animate", PORTRAIT, template, "-o", tmp_path / "a.mp4", *FAST, "--portrait-landmarks", own, "--size", "64x64")
    assert media.probe_video(tmp_path / "a.mp4").frames == 2


def test_a_picture_of_a_person_follows_a_driving_video(
    fye: Fye, carphone: Path, landmarker: Path, tmp_path: Path
) -> None:
    hopper = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    size = ("--frames", 4, "--steps", 2, "--size", "128x128")
    fye("animate", hopper, carphone, "-o", out, "--bundle", TINY, *size, "--landmarker", landmarker, "--json", report)
    times, frames = zip(*media.read_video(out), strict=True)
    np.testing.assert_allclose(times, np.arange(4) * 1001 / 30000, atol=1e-4)  # ticks of 1/90000 s
    assert frames[0].shape == (128, 128, 3)
    assert json.loads(report.read_text())["network_evaluations"] == 2


def test_landmarks_of_a_video_are_written_and_drawn_on_it(
    fye: Fye, carphone: Path, landmarker: Path, tmp_path: Path
) -> None:
    found, drawn = tmp_path / "m.npz", tmp_path / "drawn.mp4"
    said = fye("landmarks", carphone, "-o", found, "--frames", 3, "--landmarker", landmarker, "--overlay", drawn)
    assert "3 frames at 29.97 fps, 0 of them interpolated" in said
    assert len(Motion.load(found)) == 3
    marked = [frame.astype(int) for _, frame in media.read_video(drawn)]
    plain = [frame.astype(int) for _, frame in media.read_video(carphone, max_frames=3)]
    assert len(marked) == 3
    for image, points, before in zip(marked, Motion.load(found).points, plain, strict=True):
        low, high = points[:, :2].min(0) * (176, 144), points[:, :2].max(0) * (176, 144)
        changed = np.abs(image - before).max(axis=2) > 60
        rows, columns = np.nonzero(changed)
        assert len(rows) > 100
        assert (columns > low[0] - 4).all() and (columns < high[0] + 4).all()  # 2 px of chroma, and its filter
        assert (rows > low[1] - 4).all() and (rows < high[1] + 4).all()


def test_landmarks_of_a_picture_are_one_frame_and_an_overlay(fye: Fye, landmarker: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("skimage.data").astronaut()
    media.write_image(tmp_path / "a.png", image)
    drawn = tmp_path / "drawn.png"
    fye("landmarks", tmp_path / "a.png", "-o", tmp_path / "m.npz", "--landmarker", landmarker, "--overlay", drawn)
    assert len(Motion.load(tmp_path / "m.npz")) == 1
    assert (media.read_image(drawn) != image).any(axis=2).sum() > 500


def test_verify_runs_every_graph_and_says_ok(fye: Fye) -> None:
    said = fye("verify", TINY).splitlines()
    for graph in Bundle.load(TINY).graphs:
        assert sum(line.startswith(f"{graph} ") for line in said) == 1
    assert said[-1] == "ok"


def test_verify_refuses_weights_that_are_not_numbers_even_with_the_right_hash(fye: Fye, bundle: Path) -> None:
    weights = bundle / Bundle.load(bundle).weights
    content = bytearray(weights.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    content[start:] = b"\xff" * (len(content) - start)  # NaN in float16 and in float32
    weights.write_bytes(content)
    edit(bundle, lambda manifest: manifest["files"][weights.name].update(sha256=sha256(weights)))
    assert "NaN" in fye.refuses("verify", bundle)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for `fye_export.export`, which takes minutes; keeps what it was called with."""
    calls: list[Any] = []

    def export(*arguments: Any, progress: Callable[[str, float], None], **options: Any) -> Bundle:
        progress("reading the checkpoint", 0.5)
        calls.append((arguments, options))
        return Bundle.load(TINY)

    monkeypatch.setitem(sys.modules, "fye_export.export", SimpleNamespace(export=export))
    return calls


def test_export_hands_its_options_to_the_exporter(fye: Fye, exporter: list[Any]) -> None:
    said = fye("export", "in", "-o", "out", "--precision", "fp16", "--size", "256x128")
    assert exporter == [((Path("in"), Path("out")), {"precision": "fp16", "size": (256, 128)})]
    assert said.startswith("out: ") and "MB" in said


def test_bench_hands_all_its_arguments_on(fye: Fye, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "fye_bench.latency", SimpleNamespace(main=seen.append))
    fye("bench", "--frames", "3", "DIR", "--help")
    assert seen == [["--frames", "3", "DIR", "--help"]]


def test_doctor_tells_what_is_there_and_how_to_get_what_is_not(
    fye: Fye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FYE_LANDMARKER", raising=False)
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "fye_rt.backends.openvino", None)
    lines = dict(line.split(maxsplit=1) for line in fye("doctor").replace("backend ", "backend-").splitlines())
    for part in (LANDMARKER_URL, str(tmp_path / "fye" / "face_landmarker.task")):
        assert part in lines["landmarker"]
    assert "libgl1 libglib2.0-0" in lines["opencv"]
    assert lines["backend-onnxruntime"] == "ready"
    assert "pip install 'fye-rt[openvino]'" in lines["backend-openvino"]
    assert fye_rt.__version__ in lines["fye-rt"] and lines["numpy"] == np.__version__


def test_progress_is_shown_on_a_terminal_and_not_with_quiet(
    fye: Fye, exporter: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for options, shown in (((), True), (("--quiet",), False)):
        screen = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            fye("export", "in", "-o", "out", *options)
        assert ("reading the checkpoint" in screen.getvalue()) is shown
    fye("export", "in", "-o", "out")
    assert fye.err == ""  # no terminal


def test_a_logged_warning_becomes_one_line_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving = tmp_path / "moving.gif"
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    pictures[0].save(moving, save_all=True, append_images=pictures[1:])
    for _ in range(2):
        assert cli.main(["animate", str(moving), "/no/such", "-o", str(tmp_path / "out.mp4"), *FAST]) == 2
        warning, mistake = capsys.readouterr().err.splitlines()
        assert warning.startswith("fye: ") and "holds several pictures" in warning and "/no/such" in mistake


# what it refuses


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dance"], "No such command 'dance'"),
        (["animate"], "PORTRAIT"),
        (["animate", "a.png", "b.npz"], "--output"),
        (["verify", ".", "--speed", "9"], "No such option"),
    ],
)
def test_a_wrong_call_is_one_line_that_names_the_help(fye: Fye, arguments: list[str], said: str) -> None:
    line = fye.refuses(*arguments)
    assert said in line and "--help" in line


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--steps", "0", "1 to 1000"),
        ("--steps", "many", "integer"),
        ("--guidance", "nan", "guidance"),
        ("--seed", "-1", "seed"),
        ("--window-size", "33", "1 to 32"),
        ("--window-overlap", "24", "window_overlap"),
        ("--windows", "doors", "context, reference, tiles"),
        ("--forecast", "fast", "off"),
        ("--compute", "int4", "fp32"),
        ("--backend", "abacus", "onnxruntime"),
        ("--threads", "-1", "--threads"),
        ("--frames", "0", "--frames"),
        ("--size", "big", "512x384"),
        ("--size", "99999x99999", "64 to 2048"),
        ("--size", "100x100", "multiples of 8"),
        ("--bundle", "/no/such", "/no/such"),
        ("--contact-sheet", "sheet.pdf", ".png"),
        ("--json", "/no/such/report.json", "/no/such"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(fye: Fye, tmp_path: Path, option: str, value: str, said: str) -> None:
    line = fye.refuses("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", "--bundle", TINY, option, value)
    assert said in line
    assert not list(tmp_path.iterdir())


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_jpeg(path: Path) -> None:
    media.write_image(path, np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8))
    truncated(path)


def truncated_mp4(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    media.write_video(path, [np.roll(noise, shift, 1) for shift in range(20)], 25)
    truncated(path)


def mp4_without_frames(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        container.start_encoding()


def mp4_without_picture(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


BAD_PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.png": (lambda path: None, "does not exist"),
    "folder.png": (lambda path: path.mkdir(), "folder"),
    "empty.png": (lambda path: path.touch(), "empty"),
    "text.png": (lambda path: path.write_text("not a picture\n" * 50), "not an image"),
    "cut.jpg": (truncated_jpeg, "damaged"),
    "none.png": (lambda path: path.write_bytes(png_header(0, 0)), "image"),
    "huge.png": (lambda path: path.write_bytes(png_header(20_000, 20_000)), "limit"),
    "dot.png": (lambda path: media.write_image(path, np.zeros((1, 1, 3), np.uint8)), "1x1"),
    "line\nbreak \x1b[31m.png": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_portrait_is_one_line_and_leaves_no_file(fye: Fye, tmp_path: Path, name: str) -> None:
    make, said = BAD_PICTURES[name]
    make(tmp_path / name)
    line = fye.refuses("animate", tmp_path / name, LANDMARKS, "-o", tmp_path / "out.mp4", *FAST)
    assert said in line and line[:-1].isprintable()
    assert not list(tmp_path.glob("*out*"))


BAD_MOTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.mp4": (lambda path: None, "does not exist"),
    "text.mp4": (lambda path: path.write_text("not a video\n" * 50), "not a video"),
    "cut.mp4": (truncated_mp4, "cut short"),
    "none.mp4": (mp4_without_frames, "no frames"),
    "sound.mp4": (mp4_without_picture, "no picture"),
    "text.npz": (lambda path: path.write_text("not a motion"), "not a motion"),
    "text.npy": (lambda path: path.write_text("not a template"), "not a landmark template"),
    "empty": (lambda path: path.mkdir(), "no pictures"),
}


@pytest.mark.parametrize("command", ["animate", "landmarks"])
@pytest.mark.parametrize("name", BAD_MOTIONS)
def test_a_bad_motion_is_one_line_and_leaves_no_file(fye: Fye, tmp_path: Path, name: str, command: str) -> None:
    make, said = BAD_MOTIONS[name]
    make(tmp_path / name)
    if command == "animate":
        line = fye.refuses("animate", PORTRAIT, tmp_path / name, "-o", tmp_path / "out.mp4", "--bundle", TINY)
    else:
        line = fye.refuses("landmarks", tmp_path / name, "-o", tmp_path / "out.npz")
    assert said in line
    assert not list(tmp_path.glob("*out*"))


def test_a_motion_beyond_the_limit_is_refused_with_its_number(fye: Fye, motion: Motion, tmp_path: Path) -> None:
    arrays = {name: getattr(motion, name)[np.zeros(601, int)] for name in ("points", "mesh", "pose", "blendshapes")}
    times, valid = np.arange(601) / 7.0, np.ones(601, np.bool_)
    Motion(**arrays, times=times, fps=7.0, source_size=(256, 256), valid=valid).save(tmp_path / "long.npz")
    line = fye.refuses("animate", PORTRAIT, tmp_path / "long.npz", "-o", tmp_path / "out.mp4", "--bundle", TINY)
    assert "601" in line and "600" in line and "--frames" in line


def test_a_template_with_a_malicious_pickle_does_not_run(fye: Fye, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    np.save(tmp_path / "template.npy", np.array([Attack()], object), allow_pickle=True)
    line = fye.refuses("animate", PORTRAIT, tmp_path / "template.npy", "-o", tmp_path / "out.mp4", *FAST)
    assert "template.npy" in line and not ran.exists()


def test_a_video_without_a_face_is_one_line_although_mediapipe_logs(landmarker: Path, tmp_path: Path) -> None:
    media.write_video(tmp_path / "black.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3, 25)
    arguments = ("landmarks", tmp_path / "black.mp4", "-o", tmp_path / "out.npz")
    quiet = in_a_process(*arguments, FYE_LANDMARKER=str(landmarker))
    assert quiet.returncode == 2 and quiet.stdout == ""
    assert quiet.stderr.startswith("fye: ") and quiet.stderr.count("\n") == 1 and "no face" in quiet.stderr
    assert not (tmp_path / "out.npz").exists()
    verbose = in_a_process(*arguments, "--verbose", FYE_LANDMARKER=str(landmarker))
    assert verbose.returncode == 2 and verbose.stderr.count("\n") > 1


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped bundle to do damage to."""
    return Path(shutil.copytree(TINY, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    del manifest["sha256"]
    (bundle / "bundle.json").write_text(sealed(manifest))


def flip_a_byte(bundle: Path) -> None:
    weights = bundle / Bundle.load(bundle).weights
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def climb_out(bundle: Path) -> None:
    graph = bundle / "guider.onnx"
    graph.rename(bundle.parent / "guider.onnx")

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["../guider.onnx"] = manifest["files"].pop("guider.onnx")
        manifest["graphs"]["guider"]["file"] = "../guider.onnx"

    edit(bundle, change)


BAD_BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no bundle": (lambda bundle: (bundle / "bundle.json").unlink(), "is not a bundle"),
    "flipped byte": (flip_a_byte, "hash"),
    "missing file": (lambda bundle: (bundle / "guider.onnx").unlink(), "guider.onnx"),
    "missing graph": (lambda bundle: edit(bundle, lambda manifest: manifest["graphs"].pop("guider")), "guider"),
    "unknown version": (lambda bundle: edit(bundle, lambda manifest: manifest.update(version=99)), "version 99"),
    "climbing path": (climb_out, "../guider.onnx"),
    "not JSON": (lambda bundle: (bundle / "bundle.json").write_text("{"), "not JSON"),
}


@pytest.mark.parametrize("damage", BAD_BUNDLES)
def test_a_bad_bundle_is_one_line_and_leaves_no_file(fye: Fye, bundle: Path, tmp_path: Path, damage: str) -> None:
    break_it, said = BAD_BUNDLES[damage]
    break_it(bundle)
    line = fye.refuses("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", "--bundle", bundle)
    assert said in line and said in fye.refuses("verify", bundle)
    assert not list(tmp_path.glob("*out*"))


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    fye: Fye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "load", lambda *_: pytest.fail("work has begun"))
    driving = tmp_path / "driving.mp4"
    driving.touch()
    (tmp_path / "folder.mp4").mkdir()
    for out, said in (
        ("out.avi", ".mp4"),
        ("no/out.mp4", "folder that exists"),
        ("folder.mp4", "is a folder"),
        ("driving.mp4", "another name"),
    ):
        assert said in fye.refuses("animate", PORTRAIT, driving, "-o", tmp_path / out)
    assert "another name" in fye.refuses("landmarks", driving, "-o", tmp_path / "m.npz", "--overlay", driving)


def test_a_missing_system_library_of_opencv_is_named(
    fye: Fye, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    arguments = ("animate", PORTRAIT, still, "--portrait-landmarks", still, "-o", tmp_path / "out.mp4", *FAST)
    assert "apt install libgl1 libglib2.0-0" in fye.refuses(*arguments)


def test_a_missing_landmarker_is_one_line_that_says_how_to_get_it(
    fye: Fye, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FYE_LANDMARKER", str(tmp_path / "none.task"))
    assert LANDMARKER_URL in fye.refuses("animate", PORTRAIT, still, "-o", tmp_path / "out.mp4", *FAST)


def test_export_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from fye_rt.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "export", str(tmp_path), "-o", str(tmp_path / "bundle")]
    roots = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "export")))}
    result = subprocess.run(command, env=os.environ | roots, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "pip install 'fye-rt[export]'" in result.stderr


def test_export_does_not_replace_a_folder_that_is_no_bundle(fye: Fye, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="export needs torch")
    (tmp_path / "photograph.png").touch()
    assert "no bundle" in fye.refuses("export", tmp_path / "checkpoint", "-o", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["photograph.png"]


def test_a_package_that_is_not_on_the_path_is_named(fye: Fye, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fye_bench.latency", None)
    assert "PYTHONPATH" in fye.refuses("bench")


def test_ctrl_c_ends_quietly_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Animator, "denoise", interrupt)
    arguments = ["animate", str(PORTRAIT), str(LANDMARKS), "-o", str(tmp_path / "out.mp4"), *FAST]
    assert cli.main(arguments) == 130
    out, err = capsys.readouterr()
    assert (out, err.strip()) == ("", "")
    assert not list(tmp_path.iterdir())


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Animator, "denoise", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["animate", str(PORTRAIT), str(LANDMARKS), "-o", str(tmp_path / "out.mp4"), *FAST])
    assert not list(tmp_path.iterdir())


def test_python_m_fye_rt_is_the_same_program(tmp_path: Path) -> None:
    result = in_a_process("verify", tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(f"fye: {tmp_path} is not a bundle") and result.stderr.count("\n") == 1
