import dataclasses
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt.errors import InputError, OutputError
from fye_rt.landmarks import MAX_FRAMES, Motion, detect_image, load_template

IMAGE = np.zeros((64, 64, 3), np.uint8)
FIELDS = ("points", "mesh", "pose", "blendshapes", "times", "valid")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def rewrite(source: Path, target: Path, **members: bytes | None) -> Path:
    """A copy of an archive with some members replaced, or left out where None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = members.get(name.removesuffix(".npy"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.fixture
def saved(motion: Motion, tmp_path: Path) -> Path:
    motion[:2].save(tmp_path / "motion.npz")
    return tmp_path / "motion.npz"


def test_a_saved_motion_is_read_back_bit_for_bit(motion: Motion, tmp_path: Path) -> None:
    times = np.array([0.0, 0.04, 0.05, 0.3, 0.31, 0.4, 0.5, 0.6, 0.7, 1.9])  # a variable frame rate survives
    original = dataclasses.replace(motion, times=times, fps=30000 / 1001, source_size=(144, 176), valid=times > 0.04)
    original.save(tmp_path / "motion.npz")
    loaded = Motion.load(tmp_path / "motion.npz")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(original, name))
    assert (loaded.fps, loaded.source_size) == (original.fps, original.source_size)


def test_the_same_motion_gives_the_same_bytes(motion: Motion, tmp_path: Path) -> None:
    motion.save(tmp_path / "a.npz")
    motion.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_motion_file_opens_with_plain_numpy_without_pickle(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        assert int(archive["format_version"]) == 1
        assert archive["points"].shape == (2, 478, 3)


def test_a_slice_keeps_its_frames_and_a_stride_divides_the_frame_rate(motion: Motion) -> None:
    part = motion[2:8:3]
    assert len(part) == 2
    np.testing.assert_array_equal(part.mesh, motion.mesh[[2, 5]])
    np.testing.assert_array_equal(part.times, motion.times[[2, 5]])
    assert part.fps == motion.fps / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((10, 468, 3))}, "points has shape"),
        ({"mesh": np.full((10, 468, 3), np.nan)}, "mesh is not finite"),
        ({"blendshapes": np.full((10, 51), 1e7)}, "blendshapes is not finite or absurdly large"),
        ({"times": np.zeros(10)}, "times do not increase"),
        ({"fps": float("nan")}, "frames per second"),
        ({"fps": 0.0}, "frames per second"),
        ({"source_size": (0, 256)}, "source size"),
        ({"valid": np.ones(10)}, "valid is not bool"),
        ({"pose": np.zeros((10, 4, 4))}, "not a rotation"),
        ({"pose": np.tile(np.diag([1.0, 1.0, -1.0, 1.0]), (10, 1, 1))}, "not a rotation"),
        ({"pose": np.tile(np.diag([3.0, 1.0, 1.0, 1.0]), (10, 1, 1))}, "not a rotation"),
    ],
)
def test_a_senseless_motion_is_refused_with_the_reason(motion: Motion, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(motion, **change)


def test_an_empty_motion_is_refused(motion: Motion) -> None:
    with pytest.raises(InputError, match="no frames"):
        motion[5:5]


def test_a_missing_file_and_text_renamed_npz_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.npz: no such file"):
        Motion.load(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(InputError, match=r"text\.npz is not a motion file .* `fye landmarks`"):
        Motion.load(tmp_path / "text.npz")


def test_a_folder_that_does_not_exist_is_an_output_error(motion: Motion, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*motion\.npz"):
        motion.save(tmp_path / "no" / "motion.npz")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format_version": npy(np.int64(2))}, "motion format 2 is not known"),
        ({"mesh": None}, "mesh"),
        ({"mesh": npy(np.zeros((3, 468, 3)))}, "mesh is float64"),
        ({"mesh": npy(np.zeros((2, 468, 3), np.float32))}, "mesh is float32"),
        ({"mesh": npy(np.asfortranarray(np.zeros((2, 468, 3))))}, "mesh is float64"),
        ({"mesh": npy(np.zeros((2, 468, 3)))[:-8]}, "bytes, expected"),
        ({"mesh": npy(np.zeros((2, 468, 3))) + b"surplus"}, "bytes, expected"),
        ({"points": npy(np.full((2, 478, 3), np.inf))}, "points is not finite"),
        ({"times": npy(np.zeros((2, 2)))}, "times has shape"),
        ({"mesh": npy(np.array([{}], dtype=object))}, "object"),  # refused before it is unpickled
        # only the header says a million: a reader that trusted it would go on to read arrays that are not there
        (
            {"times": npy(np.arange(MAX_FRAMES + 1.0)), "points": None},
            "1000001 frames, the limit is 1,000,000",
        ),
        # a terabyte, which is not allocated
        ({"mesh": npy(np.zeros((2, 468, 3))).replace(b"(2, 468, 3)", b"(99999999, 468, 3)", 1)}, "mesh"),
    ],
)
def test_a_damaged_member_is_refused_and_named(saved: Path, tmp_path: Path, members: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Motion.load(rewrite(saved, tmp_path / "changed.npz", **members))
    assert "changed.npz" in str(caught.value)


@settings(max_examples=150)
@given(
    cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4)
)
def test_damaged_motion_files_raise_only_input_errors(
    tmp_path_factory: pytest.TempPathFactory, damaged_source: bytes, cut: float, flips: list
) -> None:
    damaged = bytearray(damaged_source[: int(cut * len(damaged_source))] if not flips else damaged_source)
    for place, mask in flips:
        damaged[int(place * len(damaged))] ^= mask
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(damaged)
    try:
        motion = Motion.load(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert len(motion) == 1  # the flip hit a byte that carries nothing, such as a date


@pytest.fixture(scope="module")
def damaged_source(motion: Motion, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One frame whose arrays are zero where they may be, so that most bytes are structure."""
    small = dataclasses.replace(motion[:1], points=np.zeros((1, 478, 3)), mesh=np.zeros((1, 468, 3)))
    path = tmp_path_factory.mktemp("motion") / "small.npz"
    small.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("load", [Motion.load, load_template, lambda path: detect_image(IMAGE, path)])
def test_a_git_lfs_pointer_is_named(load: Callable[[Path], Motion], tmp_path: Path, opencv: None) -> None:
    pytest.importorskip("mediapipe")
    (tmp_path / "a.npz").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n")
    with pytest.raises(InputError, match=r"a\.npz is a Git LFS pointer .*git lfs pull"):
        load(tmp_path / "a.npz")
