"""What is measured of the faces found has the values that its definition promises."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_bench.metrics import faces as module
from fye_bench.metrics.faces import OUTER_CORNERS, Faces, blendshape_distance, landmark_error, portrait_error
from fye_bench.metrics.truth import Shown
from fye_rt.landmarks import Motion, retarget
from fye_training import face
from fye_training.identity import identity
from fye_training.performance import perform
from fye_training.portrait import render

SIZE = (128, 128)
FRAMES = 5


@pytest.fixture(scope="module")
def driving() -> Motion:
    """A drawn face, from rest on, that talks and turns; with expression weights."""
    motion = face.motion(identity(5, "people").shape, perform(7, 6 * FRAMES, "exaggerated")[::6], SIZE)
    weights = np.random.default_rng(0).uniform(0.1, 0.9, motion.blendshapes.shape)
    weights[0] = 0.05  # the most neutral frame
    return replace(motion, blendshapes=weights)


@pytest.fixture(scope="module")
def rest(driving: Motion) -> Motion:
    return replace(driving[:1], blendshapes=np.full((1, 51), 0.3))


@pytest.fixture(scope="module")
def asked(rest: Motion, driving: Motion) -> NDArray[np.float64]:
    return retarget(rest, driving, SIZE)


def found_in(motion: Motion, found: NDArray[np.bool_] | None = None) -> Faces:
    """Faces where a motion has them, with the expressions of a perfect clip: the portrait's rest and the change."""
    found = np.ones(len(motion), np.bool_) if found is None else found
    where = Shown.of(motion, SIZE)
    shown = Shown(where.mesh[found], where.pose[found], where.points[found], SIZE)
    return Faces(found, shown, (0.3 + motion.blendshapes - 0.05)[found])


def test_a_clip_that_follows_its_motion_has_no_error(driving: Motion, rest: Motion, asked: NDArray) -> None:
    assert landmark_error(found_in(driving), asked, rest) == pytest.approx(0, abs=1e-6)
    assert blendshape_distance(found_in(driving), rest, driving) == pytest.approx(0, abs=1e-12)


def test_the_landmark_error_is_relative_to_the_distance_of_the_eyes(
    driving: Motion, rest: Motion, asked: NDArray
) -> None:
    right, left = Shown.of(rest, SIZE).points[0, [33, 263]]
    eyes = float(np.linalg.norm(right - left))
    assert landmark_error(found_in(driving), asked + np.array((3, 4)), rest) == pytest.approx(100 * 5 / eyes, rel=0.02)
    # only frames with a face count
    found = np.array([True, False, True, True, False])
    off = asked.copy()
    off[~found] += 50
    assert landmark_error(found_in(driving, found), off, rest) == pytest.approx(0, abs=1e-6)


def test_the_distance_of_the_eyes_is_measured_as_seen_from_the_front(
    rest: Motion, asked: NDArray, driving: Motion
) -> None:
    def turned(degrees: float) -> Motion:
        """Seen by a camera far away, as MediaPipe's depth is in units of the width."""
        angle = np.radians(degrees)
        around = np.array(((np.cos(angle), 0, np.sin(angle)), (0, 1, 0), (-np.sin(angle), 0, np.cos(angle))))
        return replace(rest, points=(rest.points - 0.5) @ around.T + 0.5)

    faces = found_in(driving)
    front, side = (landmark_error(faces, asked + 5, turned(degrees)) for degrees in (0, 60))
    assert side == pytest.approx(front)
    two = np.linalg.norm(np.diff(turned(60).points[0, OUTER_CORNERS, :2], axis=0))
    assert two < 0.6 * np.linalg.norm(np.diff(rest.points[0, OUTER_CORNERS, :2], axis=0))


def test_the_blendshape_distance_compares_changes_from_the_resting_face(driving: Motion, rest: Motion) -> None:
    faces = found_in(driving)
    one = faces.blendshapes.copy()
    one[:, 24] += 0.1
    assert blendshape_distance(replace(faces, blendshapes=one), rest, driving) == pytest.approx(0.1 / 51)
    open_mouth = replace(rest, blendshapes=rest.blendshapes + 0.2)
    assert blendshape_distance(replace(faces, blendshapes=faces.blendshapes + 0.2), open_mouth, driving) < 1e-12
    still = np.repeat(rest.blendshapes, FRAMES, axis=0)  # a portrait that doesn't move misses all that was asked
    change = np.abs(driving.blendshapes - 0.05).mean()
    assert blendshape_distance(replace(faces, blendshapes=still), rest, driving) == pytest.approx(change)


def test_the_portraits_own_texture_is_no_error(driving: Motion, rest: Motion) -> None:
    pictures = render(identity(5, "people"), driving, SIZE)
    other = render(identity(6, "people"), driving, SIZE)
    faces, portrait = found_in(driving), pictures[0]
    still = np.repeat(portrait[None], FRAMES, axis=0)
    standing = replace(faces, shown=Shown.of(rest, SIZE).still(FRAMES))
    assert portrait_error(still, standing, portrait, rest) == 0
    darker = still - np.minimum(still, 20)
    assert portrait_error(darker, standing, portrait, rest) == pytest.approx(20, abs=1)  # clipped at black
    assert portrait_error(pictures, faces, portrait, rest) < 0.5 * portrait_error(other, faces, portrait, rest)


def test_a_clip_without_any_face_has_no_face_metrics_but_their_number(
    driving: Motion, rest: Motion, asked: NDArray
) -> None:
    faces, made = found_in(driving, np.zeros(FRAMES, np.bool_)), np.zeros((FRAMES, *SIZE, 3), np.uint8)
    numbers = module.measure_faces(made, faces, asked, made[0], rest, driving)
    assert numbers.pop("faces_found") == 0
    assert numbers.keys() == {"landmark_error", "blendshape_distance", "portrait_error"}
    assert np.isnan(list(numbers.values())).all() and np.array_equal(faces.points_or(asked), asked)


def test_detected_faces_keep_the_numbers_of_their_frames(
    driving: Motion, asked: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(
        frames: Iterator[tuple[float, NDArray]], fps: float, *_: object, **__: object
    ) -> Iterator[Motion | None]:
        for k, (time, frame) in enumerate(frames):
            assert time == driving.times[k] and frame.max() == k
            yield driving[k : k + 1] if k in (1, 4) else None

    monkeypatch.setattr(module, "detect_live", detect)
    made = np.stack([np.full((64, 128, 3), k, np.uint8) for k in range(FRAMES)])
    faces = Faces.find(made, driving, Path("none.task"))
    assert faces.found.tolist() == [False, True, False, False, True]
    assert np.array_equal(faces.blendshapes, driving.blendshapes[[1, 4]])
    assert np.allclose(faces.shown.points, driving.points[[1, 4], :, :2] * (128, 64))
    points = faces.points_or(asked)
    assert np.array_equal(points[[1, 4]], faces.shown.points) and np.array_equal(points[[0, 2, 3]], asked[[0, 2, 3]])
