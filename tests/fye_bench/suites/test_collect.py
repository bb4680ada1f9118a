"""`fye suite init` uses what can be used of a folder, says what cannot, and changes nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fye_bench.suites import probe
from fye_bench.suites.collect import collect
from fye_bench.suites.suite import Suite, faults
from fye_rt import media
from fye_rt.errors import FaceNotFoundError, InputError, OutputError
from fye_rt.landmarks import Motion
from fye_training import face
from fye_training.performance import resting
from fye_training.shape import Shape

NOBODY = "nobody has looked for faces"


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_image(path, np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))
    return path


def video(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_video(path, np.random.default_rng(seed).integers(0, 256, (3, 32, 32, 3), np.uint8), 25.0)
    return path


def motion(path: Path, frames: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    face.motion(Shape(), resting(frames), (64, 64)).save(path)
    return path


@pytest.fixture(autouse=True)
def no_landmarker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FYE_LANDMARKER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four portraits of two families, four motions of three kinds, anna's among them."""
    root = tmp_path / "My faces"
    for seed, name in enumerate(("people/anna", "people/ben", "Animals/wolf", "Animals/fox")):
        picture(root / "portraits" / f"{name}.png", seed)
    video(root / "motions" / "talking" / "anna.mp4")
    video(root / "motions" / "Head_Turns" / "carl.mp4", 1)
    motion(root / "templates" / "nod.npz")
    motion(root / "motions" / "talking" / "ben.npz", 3)
    return root


@pytest.fixture
def report() -> list[str]:
    return []


def pairs(suite: Suite, mode: str) -> list[str]:
    return [pair.name for pair in suite.pairs if pair.mode == mode]


def test_a_folder_becomes_a_suite_of_its_portraits_and_motions(folder: Path, report: list[str]) -> None:
    suite = collect(folder, licence="CC0", report=report.append)
    assert suite == Suite.load(folder) and suite.name == "My faces" and not list(faults(suite))
    assert {name: one.family for name, one in suite.portraits.items()} == {
        "fox": "animals", "wolf": "animals", "anna": "people", "ben": "people",
    }  # fmt: skip
    assert {name: one.kind for name, one in suite.motions.items()} == {
        "carl": "head turns", "anna": "talking", "ben": "talking", "nod": "unsorted",
    }  # fmt: skip
    assert {one.licence for one in suite.portraits.values()} == {"CC0"}
    truths = {pair.name: pair.truth for pair in suite.pairs if pair.mode == "self"}
    assert truths == {"anna--anna": "driving", "ben--ben": None}  # landmarks have no frames
    crossed = [pair.portrait.name for pair in suite.pairs if pair.mode == "cross"]
    assert {crossed.count(name) for name in ("fox", "wolf", "anna", "ben")} == {3}
    assert {pair.portrait.family for pair in suite.pairs[:2]} == {"animals", "people"}
    assert len(report) == 1 and report[0].startswith(NOBODY)


def test_collecting_a_suite_writes_only_its_manifest(folder: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}

    before = state()
    first = collect(folder)
    path = folder / "suite.json"
    assert state().keys() - before.keys() == {path} and before.items() <= state().items()
    written = path.read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        collect(folder)
    assert collect(folder, overwrite=True) == first and path.read_bytes() == written


@pytest.mark.parametrize(
    ("wanted", "own", "cross"), [("self", 2, 0), ("cross", 0, 12), ("all", 2, 14), (5, 2, 3), (1, 1, 0), (99, 2, 14)]
)
def test_a_collected_suite_has_the_requested_number_of_pairs(
    wanted: str | int, own: int, cross: int, folder: Path
) -> None:
    suite = collect(folder, pairs=wanted)
    assert (len(pairs(suite, "self")), len(pairs(suite, "cross"))) == (own, cross)


def test_unusable_files_are_reported_and_left_out(folder: Path, report: list[str], tmp_path: Path) -> None:
    portraits, motions = folder / "portraits", folder / "motions"
    (portraits / "empty.png").touch()
    (portraits / "cut.png").write_bytes((portraits / "people" / "anna.png").read_bytes()[:1500])
    (portraits / "note.doc").write_text("no picture")
    (portraits / ".hidden.png").write_text("no picture")
    (portraits / "people" / "deeper").mkdir()
    (portraits / "outside.png").symlink_to(picture(tmp_path / "outside.png"))
    picture(portraits / "new\nline.png")
    (motions / "cut.mp4").write_bytes((motions / "talking" / "anna.mp4").read_bytes()[:600])
    (motions / "list.m3u8").write_text("#EXTM3U\nhttp://localhost/x.ts\n")
    (motions / "bad.npz").write_text("no motion")
    (motions / "bad.npy").write_bytes(b"\x80\x04cos\nsystem\n.")
    os.mkfifo(motions / "pipe.npz")
    good = collect(folder, report=report.append)
    assert set(good.portraits) == {"fox", "wolf", "anna", "ben"} and len(good.motions) == 4
    pictures = ("empty.png", "cut.png", "note.doc", "deeper", "outside.png", "line.png")
    for name in (*pictures, "cut.mp4", "list.m3u8", "bad.npz", "bad.npy", "pipe.npz"):
        assert sum(name in line for line in report) == 1, (name, report)
    assert not any("hidden" in line for line in report)
    assert len(report) == 12  # and that nobody looked for faces


def test_files_are_recognised_by_content_and_not_by_name(folder: Path, report: list[str]) -> None:
    portraits, motions = folder / "portraits", folder / "motions"
    for name in ("photo", "photo2.jfif", "photo3.mp4"):
        picture(portraits / "made.png", 7).rename(portraits / name)
    video(motions / "made.mp4").rename(motions / "photo")
    video(motions / "made.mp4").rename(motions / "photo2.png")
    motion(motions / "made.npz").rename(motions / "photo3.dat")
    picture(motions / "still.png").rename(motions / "still.mp4")
    suite = collect(folder, report=report.append)
    assert {"photo", "photo2", "photo3"} <= {*suite.portraits} and {"photo", "photo2", "photo3"} <= {*suite.motions}
    truths = {pair.name: pair.truth for pair in suite.pairs if pair.mode == "self"}
    assert truths["photo--photo"] == truths["photo2--photo2"] == "driving"
    assert truths["photo3--photo3"] is None  # a motion has no frames to compare with
    assert [line for line in report if "still.mp4" in line] == [
        f"{motions / 'still.mp4'} is a still picture, no motion; give a video, a .npz or a template .npy"
    ]


def test_names_of_a_collected_suite_are_valid_and_unique(tmp_path: Path) -> None:
    for seed, stem in enumerate(("Ä b--c", "Ä_b-c", "a B", "A_b", "--", "日本", "x" * 90, "x" * 91, "a" * 40 + "--b")):
        picture(tmp_path / "portraits" / f"{stem}.png", seed)
    video(tmp_path / "videos" / "_-m.mp4")
    suite = collect(tmp_path)
    assert len(suite.portraits) == 9 and set(suite.motions) == {"m"}
    assert {"b-c", "b-c-2", "A_b", "a_B-2", "unnamed", "unnamed-2"} <= {*suite.portraits}
    assert len({name.lower() for name in suite.portraits}) == 9
    assert not any("--" in name for name in suite.portraits)


def test_families_and_kinds_of_one_name_are_renamed(tmp_path: Path) -> None:
    picture(tmp_path / "portraits" / "anna" / "one.png")
    picture(tmp_path / "portraits" / "all" / "two.png", 1)
    video(tmp_path / "motions" / "anna" / "hello.mp4")
    motion(tmp_path / "motions" / "nod.npz")
    suite = collect(tmp_path, kind="nods")
    assert [one.family for one in suite.portraits.values()] == ["all portraits", "anna"]
    assert {one.kind for one in suite.motions.values()} == {"anna motions", "nods"}


def test_a_video_whose_name_fits_two_portraits_belongs_to_neither(folder: Path, report: list[str]) -> None:
    picture(folder / "portraits" / "cartoons" / "anna.png", 9)
    suite = collect(folder, report=report.append)
    assert pairs(suite, "self") == ["ben--ben"]
    assert any("anna.mp4 may be the face of anna" in line and "rename one" in line for line in report)


def test_a_text_beside_a_file_names_its_source(folder: Path) -> None:
    note = folder / "portraits" / "people" / "anna.txt"
    note.write_text("Source: a friend \x1b[31m\nLICENSE:  MIT\nother: x\n")
    suite = collect(folder, source="the web")
    assert (suite.portraits["anna"].source, suite.portraits["anna"].licence) == ("a friend [31m", "MIT")
    assert suite.portraits["ben"].source == "the web"


def test_a_portrait_without_a_face_is_in_no_pair_without_landmarks(
    folder: Path, report: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def detect(image: object, model: Path, name: str) -> None:
        if name and Path(name).stem == "wolf":
            raise FaceNotFoundError("no face")

    model = tmp_path / "face_landmarker.task"
    model.touch()
    monkeypatch.setattr(probe, "detect_image", detect)
    suite = collect(folder, landmarker=model, report=report.append)
    assert "wolf" in suite.portraits and "wolf" not in {pair.portrait.name for pair in suite.pairs}
    assert len(report) == 1 and "wolf.png is in no pair" in report[0] and "wolf.landmarks.npz" in report[0]

    motion(folder / "portraits" / "Animals" / "wolf.landmarks.npz", frames=1)
    motion(folder / "portraits" / "people" / "lost.npz", frames=1)
    motion(folder / "portraits" / "people" / "ben.npz", frames=2)
    report.clear()
    suite = collect(folder, landmarker=model, overwrite=True, report=report.append)
    landmarks = suite.portraits["wolf"].landmarks
    assert landmarks and len(Motion.load(landmarks.path)) == 1 and not list(faults(suite))
    assert "wolf" in {pair.portrait.name for pair in suite.pairs} and "ben" not in suite.portraits
    assert any("ben.npz has 2 frames" in line for line in report)
    assert any("lost.npz belongs to no portrait" in line for line in report)


def test_a_named_landmarker_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="the given landmarker"):
        collect(folder, landmarker=folder / "none.task")
    assert not (folder / "suite.json").exists()


def test_collecting_with_a_real_landmarker_finds_the_faces(
    talking_head: Path, landmarker: Path, tmp_path: Path, report: list[str]
) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copy(talking_head, tmp_path / "videos")
    picture(tmp_path / "portraits" / "noise.png")
    _, image = next(media.read_video(talking_head))
    media.write_image(tmp_path / "portraits" / "astronaut.png", image)
    suite = collect(tmp_path, landmarker=landmarker, report=report.append)
    assert [pair.name for pair in suite.pairs] == ["astronaut--astronaut"] and suite.pairs[0].truth == "driving"
    assert len(report) == 1 and "noise.png is in no pair" in report[0]


@pytest.mark.parametrize("what", ["nothing", "portraits", "motions", "file"])
def test_a_folder_with_nothing_to_use_is_refused(what: str, tmp_path: Path) -> None:
    if what == "portraits":
        picture(tmp_path / "portraits" / "a.png")
    elif what == "motions":
        video(tmp_path / "motions" / "a.mp4")
    with pytest.raises(InputError, match=r"that can be used; put some into|is not a folder"):
        collect(picture(tmp_path / "x.png") if what == "file" else tmp_path)
    assert not (tmp_path / "suite.json").exists()


def test_a_folder_whose_files_make_no_pair_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "portraits" / "a.png")
    video(tmp_path / "motions" / "b.mp4")
    with pytest.raises(InputError, match="make no pair"):
        collect(tmp_path, pairs="self")
