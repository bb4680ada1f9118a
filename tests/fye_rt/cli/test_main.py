import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fye_rt
from fye_rt import media
from fye_rt.bundle import MANIFEST, Bundle, sealed
from fye_rt.cli.commands import BENCHMARKS
from fye_rt.cli.main import main
from fye_rt.landmarks import Motion
from fye_rt.timings import Progress
from tests.fye_rt.command_line import FAST, LANDMARKS, PORTRAIT, TINY, Fye


def test_the_version_is_the_package_s(fye: Fye) -> None:
    assert fye("--version") == f"fye-rt {fye_rt.version.__version__}\n"


def test_fye_alone_lists_its_commands(fye: Fye) -> None:
    listed = fye()
    for command in ("demo", "animate", "landmarks", "export", "calibrate", "verify", "bench", "doctor"):
        assert f"\n  {command} " in listed


@pytest.mark.slow
def test_animate_writes_every_output_that_is_asked_for(fye: Fye, tmp_path: Path) -> None:
    out, sheet, report = tmp_path / "out.mp4", tmp_path / "sheet.png", tmp_path / "report.json"
    also = ("--contact-sheet", sheet, "--json", report, "--compare", "--windows", "context", "--low-memory")
    sizes = ("--steps", 3, "--frames", 5, "--window-size", 3, "--window-overlap", 1)
    said = fye("animate", PORTRAIT, LANDMARKS, "-o", out, "--bundle", TINY, *sizes, *also)
    assert str(out) in said and "5 frames of 192x192 at 7 fps" in said
    frames = [frame for _, frame in media.read_video(out)]
    assert len(frames) == 5 and frames[0].shape == (192, 192, 3)
    beside = [frame for _, frame in media.read_video(tmp_path / "out_compare.mp4")]
    assert len(beside) == 5 and beside[0].shape == (192, 3 * 192, 3)
    portrait = media.read_image(PORTRAIT).astype(int)
    assert np.abs(beside[0][:, :192] - portrait).mean() < 3  # H.264 at visually lossless quality
    assert media.read_image(sheet).shape[0] > 3 * 192
    facts = json.loads(report.read_text())
    assert facts["network_evaluations"] == 6  # 3 steps of 2 windows: 0-2, 2-4
    assert facts["options"]["steps"] == 3 and facts["options"]["window_size"] == 3
    assert (facts["frames"], facts["size"], facts["fps"]) == (5, [192, 192], 7.0)
    assert facts["bundle"]["digest"] == Bundle.load(TINY).digest
    assert facts["backend"] in ("onnxruntime", "openvino")
    assert set(facts["timings"]) == {"read", "landmarks", "encode_portrait", "encode_motion", "denoise", "decode"}
    assert facts["peak_memory_bytes"] > 10e6 and facts["environment"]["fye_rt"] == fye_rt.version.__version__


@pytest.mark.slow
def test_guidance_and_shared_noise_default_to_the_bundle_s(fye: Fye, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "bundle")
    manifest = {key: value for key, value in Bundle.load(TINY).manifest.items() if key != "sha256"}
    (tmp_path / "bundle" / MANIFEST).write_text(sealed(manifest | {"guidance": 1.0, "shared_noise": 0.5}))
    report = tmp_path / "report.json"
    call = ("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", *FAST, "--json", report)
    own = ("--bundle", tmp_path / "bundle")
    for more, guidance, shared in (
        ((), 3.5, 0.0),
        (own, 1.0, 0.5),
        ((*own, "--guidance", 2), 2.0, 0.5),
        ((*own, "--shared-noise", 0), 1.0, 0.0),
    ):
        fye(*call, *more)
        options = json.loads(report.read_text())["options"]
        assert (options["guidance"], options["shared_noise"]) == (guidance, shared)


def test_windows_are_progressive_and_make_a_clip_in_pieces(fye: Fye, tmp_path: Path) -> None:
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    pieces = ("--window-size", 4, "--window-overlap", 0, "--steps", 2, "--frames", 7)
    fye("animate", PORTRAIT, LANDMARKS, "-o", out, "--bundle", TINY, *pieces, "--json", report)
    assert len(list(media.read_video(out))) == 7
    facts = json.loads(report.read_text())
    assert facts["options"]["windows"] == "progressive"
    assert facts["synthetic"] == f"a picture animated by fye-rt {fye_rt.version.__version__}"
    assert facts["network_evaluations"] == 2 * 3  # three key frames, then two intervals
    assert set(facts["timings"]) == {"read", "landmarks", "encode_portrait", "encode_motion", "denoise", "decode"}


@pytest.mark.usefixtures("opencv")
def test_a_stream_makes_every_frame_of_a_motion(fye: Fye, motion: Motion, portrait: Motion, tmp_path: Path) -> None:
    driving, own, out = tmp_path / "motion.npz", tmp_path / "own.npz", tmp_path / "out.mp4"
    motion.save(driving)
    portrait.save(own)
    windows = ("--window-size", 4, "--window-overlap", 1, "--steps", 1)
    size = ("--size", "64x72", "--portrait-landmarks", own)
    said = fye("animate", PORTRAIT, driving, "-o", out, "--bundle", TINY, *windows, *size, "--stream")
    assert said == f"{out}: 10 frames at 7 fps\n"
    frames = list(media.read_video(out))
    np.testing.assert_allclose([time for time, _ in frames], motion.times, atol=1e-4)
    assert frames[0][1].shape == (64, 72, 3)


def test_a_stream_writes_nothing_beside_the_clip(fye: Fye, tmp_path: Path) -> None:
    call = ("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", *FAST, "--stream")
    assert "--stream writes the clip alone" in fye.refuses(*call, "--contact-sheet", tmp_path / "sheet.png")
    assert "is no video and no motion" in fye.refuses(*call)


@pytest.mark.slow
def test_a_forecast_needs_fewer_evaluations(fye: Fye, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    forecast = ("--forecast", "newton", "--evaluations", 3, "--order", 2, "--warm-up", 2, "--quantity", "x0")
    out = ("-o", tmp_path / "out.mp4", "--bundle", TINY, "--frames", 2, "--json", report)
    fye("animate", PORTRAIT, LANDMARKS, *out, "--steps", 9, *forecast)
    facts = json.loads(report.read_text())
    assert facts["network_evaluations"] == 3
    assert facts["options"]["forecast"] == {
        "method": "newton", "evaluations": 3, "order": 2, "warm_up": 2, "quantity": "x0",
    }  # fmt: skip
    fye("animate", PORTRAIT, LANDMARKS, *out, "--steps", 4, "--solver", "dpm")
    facts = json.loads(report.read_text())
    assert (facts["network_evaluations"], facts["options"]["solver"]) == (4, "dpm")
    assert facts["options"]["forecast"] == {"method": "off"}
    fye("animate", PORTRAIT, LANDMARKS, *out, "--steps", 4)
    assert json.loads(report.read_text())["options"]["forecast"] == {"method": "balanced"}
    fye("animate", PORTRAIT, LANDMARKS, *out, "--steps", 4, "--evaluations", 2)
    facts = json.loads(report.read_text())
    assert (facts["network_evaluations"], facts["options"]["forecast"]["method"]) == (2, "calibrated")


@pytest.mark.usefixtures("undenoised", "opencv")
def test_a_motion_of_one_frame_makes_a_clip_of_the_size_asked_for(fye: Fye, still: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    fye("animate", PORTRAIT, still, "-o", out, *FAST, "--portrait-landmarks", still, "--size", "64x72")
    frames = [frame for _, frame in media.read_video(out)]
    assert [frame.shape for frame in frames] == [(64, 72, 3)]


@pytest.mark.usefixtures("undenoised", "opencv")
def test_a_portrait_s_landmarks_may_be_a_legacy_template(fye: Fye, golden: Path, tmp_path: Path) -> None:
    template, own = golden / "template_synthetic.npy", golden / "ref_lmk_synthetic.npy"
    fye("animate", PORTRAIT, template, "-o", tmp_path / "a.mp4", *FAST, "--portrait-landmarks", own, "--size", "64x64")
    assert media.probe_video(tmp_path / "a.mp4").frames == 2


def test_a_photograph_follows_a_driving_video(fye: Fye, talking_head: Path, landmarker: Path, tmp_path: Path) -> None:
    hopper = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    options = ("--frames", 4, "--steps", 2, "--size", "128x128", "--landmarker", landmarker)
    fye("animate", hopper, talking_head, "-o", out, "--bundle", TINY, *options, "--json", report)
    times, frames = zip(*media.read_video(out), strict=True)
    np.testing.assert_allclose(times, np.arange(4) * 1001 / 30000, atol=1e-4)  # ticks of 1/90000 s
    assert frames[0].shape == (128, 128, 3)
    assert json.loads(report.read_text())["network_evaluations"] == 2


@pytest.mark.parametrize("mirror", [False, True])
def test_landmarks_of_a_video_are_drawn_on_it(
    mirror: bool, fye: Fye, talking_head: Path, landmarker: Path, tmp_path: Path
) -> None:
    found, drawn = tmp_path / "m.npz", tmp_path / "drawn.mp4"
    part: tuple[object, ...] = ("--frames", 3, *(("--mirror", "--start", 0.5) if mirror else ()))
    said = fye("landmarks", talking_head, "-o", found, *part, "--landmarker", landmarker, "--overlay", drawn)
    assert "3 frames at 29.97 fps, 0 of them interpolated" in said
    assert len(Motion.load(found)) == 3
    marked = [frame.astype(int) for _, frame in media.read_video(drawn)]
    start = 0.5 if mirror else 0.0
    plain = [frame.astype(int) for _, frame in media.read_video(talking_head, max_frames=3, start=start)]
    plain = [frame[:, ::-1] for frame in plain] if mirror else plain
    assert len(marked) == 3
    for image, points, before in zip(marked, Motion.load(found).points, plain, strict=True):
        low, high = points[:, :2].min(0) * before.shape[1::-1], points[:, :2].max(0) * before.shape[1::-1]
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


@pytest.mark.slow
def test_verify_runs_every_graph_and_says_ok(fye: Fye) -> None:
    said = fye("verify", TINY).splitlines()
    for graph in Bundle.load(TINY).graphs:
        assert sum(line.startswith(f"{graph} ") for line in said) == 1
    assert said[-1] == "ok"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for `fye_export.export`, which takes minutes; keeps what it was called with."""
    calls: list[Any] = []

    def export(*arguments: Any, progress: Progress, **options: Any) -> Bundle:
        progress("read the checkpoint", 0, 1)
        calls.append((arguments, options))
        return Bundle.load(TINY)

    monkeypatch.setitem(sys.modules, "fye_export.export", SimpleNamespace(export=export))
    return calls


def test_export_hands_its_options_to_the_exporter(fye: Fye, exporter: list[Any]) -> None:
    more = ("--precision", "fp16", "--size", "256x128", "--guidance", 2, "--shared-noise", 0.5, "--note", "Mine.")
    said = fye("export", "in", "-o", "out", *more)
    settings = {"precision": "fp16", "size": (256, 128), "guidance": 2.0, "shared_noise": 0.5, "note": "Mine."}
    assert exporter == [(([Path("in")], Path("out")), settings)]
    assert said.startswith("out: ") and "MB" in said


@pytest.mark.parametrize(("word", "module"), [("", "fye_bench.speed.latency"), *BENCHMARKS.items()])
def test_a_word_after_bench_names_a_benchmark_and_all_else_is_its_own(
    word: str, module: str, fye: Fye, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(main=seen.append))
    arguments = ["--frames", "3", word or "DIR", "--help"]
    fye("bench", *[word] * bool(word), *arguments)
    assert seen == [arguments]


def test_quiet_hides_progress_on_a_terminal(fye: Fye, exporter: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for options, shown in (((), True), (("--quiet",), False)):
        screen = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            fye("export", "in", "-o", "out", *options)
        assert ("read the checkpoint" in screen.getvalue()) is shown
    fye("export", "in", "-o", "out")
    assert fye.err == ""  # no terminal


def test_a_logged_warning_becomes_one_line_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving = tmp_path / "moving.gif"
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    pictures[0].save(moving, save_all=True, append_images=pictures[1:])
    for _ in range(2):
        assert main(["animate", str(moving), "/no/such", "-o", str(tmp_path / "out.mp4"), *FAST]) == 2
        warning, mistake = capsys.readouterr().err.splitlines()
        assert warning.startswith("fye: ") and "holds several pictures" in warning and "/no/such" in mistake
