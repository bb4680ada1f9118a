import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt import media
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle
from fye_rt.cli.main import main
from fye_rt.files import sha256
from fye_rt.landmarks import Motion
from tests.fye_rt.command_line import FAST, LANDMARKS, PORTRAIT, ROOT, TINY, Fye, in_a_process, python
from tests.fye_rt.faults import edit, flip
from tests.fye_rt.media.media_files import Track, noise_frames, png_header, write_empty_film, write_film


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
        ("--window-overlap", "24", "--window-overlap 24 is not valid"),
        ("--windows", "doors", "context, reference, tiles"),
        ("--forecast", "crystal-ball", "off, reuse"),
        ("--order", "2", "it takes no settings"),
        ("--solver", "euler", "ddim, dpm"),
        ("--compute", "int4", "fp32"),
        ("--backend", "abacus", "onnxruntime"),
        ("--threads", "-1", "--threads"),
        ("--frames", "0", "--frames"),
        ("--size", "big", "512x384"),
        ("--size", "99999x99999", "64 to 2048"),
        ("--size", "100x100", "multiples of 8"),
        ("--crop", "180,0,100,10", "--crop 180,0,100,10 reaches outside of the picture"),
        ("--crop", "1,1,0,5", "--crop 1,1,0,5 has no size"),
        ("--crop", "face", "--crop face concerns landmarks, and landmark images are finished"),
        ("--crop-scale", "0.9", "--crop-scale 0.9 is not valid; allowed: 1 to 10"),
        ("--feather", "0.1", "--feather concerns frames that are pasted; set --paste, too"),
        ("--audio", "/no/such.wav", "/no/such.wav"),
        ("--edit", "yaw=50", "yaw=50 is not valid; allowed: -45 to 45"),
        ("--edit", "smlie=1", "control has no 'smlie'; allowed: "),
        ("--edit", "smile", "give values by name, as in smile=0.6,yaw=10"),
        ("--edit", "smile=0.5", "control changes landmarks, and MOTION holds landmark images"),
        ("--control", "/no/such.json", "/no/such.json: No such file or directory; give a JSON file"),
        ("--bundle", "/no/such", "/no/such"),
        ("--contact-sheet", "sheet.pdf", ".png"),
        ("--json", "/no/such/report.json", "/no/such"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(fye: Fye, tmp_path: Path, option: str, value: str, said: str) -> None:
    line = fye.refuses("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", "--bundle", TINY, option, value)
    assert said in line
    assert not list(tmp_path.iterdir())


def test_a_motion_or_an_edit_is_needed(fye: Fye, tmp_path: Path) -> None:
    line = fye.refuses("animate", PORTRAIT, "-o", tmp_path / "out.mp4")
    assert "MOTION is missing; give one, or say what the face does with --edit or --control" in line
    assert "builtin:dance is no motion that fye-rt brings along; there are builtin:still, builtin:idle" in fye.refuses(
        "animate", PORTRAIT, "builtin:dance", "-o", tmp_path / "out.mp4", "--bundle", TINY
    )
    assert not list(tmp_path.iterdir())


def truncated(path: Path, write: Callable[..., object], *content: object) -> None:
    write(path, *content)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.png": (lambda path: None, "does not exist"),
    "folder.png": (lambda path: path.mkdir(), "folder"),
    "empty.png": (lambda path: path.touch(), "empty"),
    "text.png": (lambda path: path.write_text("not a picture\n" * 50), "not an image"),
    "cut.jpg": (lambda path: truncated(path, media.write_image, noise_frames(1)[0]), "damaged"),
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
    "cut.mp4": (lambda path: truncated(path, media.write_video, noise_frames(20), 25), "cut short"),
    "none.mp4": (write_empty_film, "no frames"),
    "sound.mp4": (lambda path: write_film(path, "mp4", sounds=[Track(rate=8000)]), "no picture"),
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
    together = ("--bundle", TINY, "--windows", "context")
    line = fye.refuses("animate", PORTRAIT, tmp_path / "long.npz", "-o", tmp_path / "out.mp4", *together)
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


def flip_a_byte(bundle: Path) -> None:
    weights = bundle / Bundle.load(bundle).weights
    flip(weights, weights.stat().st_size // 2)


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


def test_verify_refuses_nan_weights_with_the_right_hash(fye: Fye, bundle: Path) -> None:
    weights = bundle / Bundle.load(bundle).weights
    content = bytearray(weights.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    content[start:] = b"\xff" * (len(content) - start)  # NaN in float16 and in float32
    weights.write_bytes(content)
    edit(bundle, lambda manifest: manifest["files"][weights.name].update(sha256=sha256(weights)))
    assert "NaN" in fye.refuses("verify", bundle)


@pytest.mark.parametrize("damage", BAD_BUNDLES)
def test_a_bad_bundle_is_one_line_and_leaves_no_file(fye: Fye, bundle: Path, tmp_path: Path, damage: str) -> None:
    break_it, said = BAD_BUNDLES[damage]
    break_it(bundle)
    line = fye.refuses("animate", PORTRAIT, LANDMARKS, "-o", tmp_path / "out.mp4", "--bundle", bundle)
    assert said in line and said in fye.refuses("verify", bundle)
    assert not list(tmp_path.glob("*out*"))


def test_an_unwritable_output_is_refused_at_once(fye: Fye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    song = tmp_path / "song.mp4"
    song.touch()
    assert "another name" in fye.refuses("animate", PORTRAIT, driving, "-o", song, "--audio", song)
    points = tmp_path / "points.json"
    points.touch()
    given = ("--portrait-landmarks", points, "--json", points)
    assert "another name" in fye.refuses("animate", PORTRAIT, driving, "-o", tmp_path / "out.mp4", *given)


def test_a_missing_libgl_is_named(fye: Fye, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    arguments = ("animate", PORTRAIT, still, "--portrait-landmarks", still, "-o", tmp_path / "out.mp4", *FAST)
    assert "apt install libgl1 libglib2.0-0" in fye.refuses(*arguments)


def test_a_missing_landmarker_is_named(fye: Fye, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FYE_LANDMARKER", str(tmp_path / "none.task"))
    assert "run: fye doctor --get landmarker" in fye.refuses(
        "animate", PORTRAIT, still, "-o", tmp_path / "out.mp4", *FAST
    )


def test_export_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from fye_rt.cli.main import main; sys.exit(main(sys.argv[1:]))"
    roots = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "export")))}
    result = python("-c", code, "export", tmp_path, "-o", tmp_path / "bundle", env=roots)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "pip install 'fye-rt[export]'" in result.stderr


def test_export_does_not_replace_a_folder_that_is_no_bundle(fye: Fye, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="export needs torch")
    (tmp_path / "photograph.png").touch()
    assert "no bundle" in fye.refuses("export", tmp_path / "checkpoint", "-o", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["photograph.png"]


def test_a_package_that_is_not_on_the_path_is_named(fye: Fye, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fye_bench.speed.latency", None)
    assert "run in a clone of fye-rt: pip install ." in fye.refuses("bench")


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Animator, "decode_pixels", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["animate", str(PORTRAIT), str(LANDMARKS), "-o", str(tmp_path / "out.mp4"), *FAST])
    assert not list(tmp_path.iterdir())
