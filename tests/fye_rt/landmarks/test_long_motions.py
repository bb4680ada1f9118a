"""A motion that lies in a temporary file is handled as one in memory."""

import dataclasses
import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fye_rt.errors import InputError, OutputError
from fye_rt.files import rows
from fye_rt.landmarks import Motion, retarget
from fye_rt.landmarks.gaps import bridge, skip
from fye_rt.landmarks.mirror import mirrored
from fye_rt.landmarks.motion import find_cuts
from fye_rt.landmarks.recording import Recording

ARRAYS = ("points", "mesh", "pose", "blendshapes", "times", "valid")


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes arrays lie in temporary files from now on, and be computed three rows at a time."""

    def switch() -> None:
        monkeypatch.setattr(rows, "IN_MEMORY", 1000)
        monkeypatch.setattr(rows, "PART", 3)

    return switch


def is_mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array is not None


def same(one: Motion, other: Motion) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_motion_is_read_in_parts(on_disk: Any, motion: Motion, tmp_path: Path) -> None:
    motion.save(tmp_path / "a.npz")
    on_disk()
    motion.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = Motion.load(tmp_path / "b.npz")
    same(loaded, motion)
    assert is_mapped(loaded.points) and is_mapped(loaded.mesh) and not is_mapped(loaded.times)
    assert is_mapped(loaded[2:5].points)


def test_a_changed_motion_is_the_same(on_disk: Any, motion: Motion, portrait: Motion) -> None:
    gaps = [(2, 4), (7, 8)]
    expected = mirrored(motion), skip(motion, gaps, "it")[0], retarget(portrait, motion, (64, 64))
    cut = dataclasses.replace(motion, points=motion.points.copy())
    cut.points[6:] += 3
    cuts = find_cuts(cut)
    assert cuts == [6]
    on_disk()
    same(mirrored(motion), expected[0])
    same(skip(motion, gaps, "it")[0], expected[1])
    moved = retarget(portrait, motion, (64, 64))
    np.testing.assert_array_equal(moved, expected[2])
    assert is_mapped(moved) and find_cuts(cut) == cuts


def test_faces_are_recorded_in_parts(on_disk: Any, motion: Motion, landmarker: Path) -> None:
    from fye_rt.landmarks.geometry import load_geometry

    geometry, size = load_geometry(landmarker), (256, 256)

    def recorded() -> Motion:
        recording = Recording()
        for k in range(len(motion)):
            recording.add(k / 25, (motion.points[k], motion.blendshapes[k]) if k not in (0, 1, 5) else None)
        made = recording.motion(25.0, size, geometry)
        bridge(made, [(0, 2), (5, 6)])
        return made

    expected = recorded()
    np.testing.assert_array_equal(expected.points[[0, 1]], motion.points[[2, 2]])
    np.testing.assert_allclose(expected.points[5], (motion.points[4] + motion.points[6]) / 2, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(expected.valid, np.isin(np.arange(10), (0, 1, 5), invert=True))
    on_disk()
    made = recorded()
    assert is_mapped(made.points)
    for name in ("points", "blendshapes", "times", "valid"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
    for name in ("mesh", "pose"):  # matrix products of fewer frames round in another order
        np.testing.assert_allclose(getattr(made, name), getattr(expected, name), rtol=0, atol=1e-9)


def test_a_frame_of_a_later_part_has_its_own_number(on_disk: Any, motion: Motion, portrait: Motion) -> None:
    on_disk()
    pose = motion.pose.copy()
    pose[7, 2, 3] += 100
    with pytest.raises(InputError, match="frame 7 of the motion moves the face through the camera"):
        retarget(portrait, dataclasses.replace(motion, pose=pose), (64, 64))


def test_a_face_that_is_held_for_long_is_read_unless_the_disk_is_too_small(
    on_disk: Any, motion: Motion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = motion[:1]
    count = 3000
    many = {name: np.repeat(getattr(still, name), count, axis=0) for name in ARRAYS} | {"times": np.arange(count) / 25}
    dataclasses.replace(still, **many).save(tmp_path / "a.npz")
    on_disk()
    same(Motion.load(tmp_path / "a.npz"), dataclasses.replace(still, **many))
    monkeypatch.setattr(rows.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"needs 34,416,000 bytes, and 1,000 are free.*TMPDIR"):
        Motion.load(tmp_path / "a.npz")
