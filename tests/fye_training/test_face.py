from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.landmarks import geometry
from fye_rt.landmarks.draw import draw
from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.retarget import neutral_frame, project, retarget
from fye_training import face
from fye_training.expressions import EXAGGERATION, EXPRESSIONS, INDEX, deform, irises
from fye_training.performance import Performance, perform, poses, resting
from fye_training.shape import LIP_GAP, Shape, neutral_mesh, rest_mesh
from fye_training.topology import (
    EYES,
    LOWER_LID,
    LOWER_LIP_INNER,
    UPPER_LID,
    UPPER_LIP_INNER,
    canonical_face,
    interpolation,
)

SIZE = (128, 128)
CARTOON = Shape(eye_size=2.0, eye_opening=1.5, jaw_width=-1.5, mouth_width=1.0, brow_height=-1.0)
ANIMAL = Shape(eye_spacing=1.0, nose_length=-1.0, muzzle=1.5, face_width=1.0)
SHAPES = (Shape(), CARTOON, ANIMAL)


def weights(**values: float) -> NDArray[np.float64]:
    row = np.zeros((1, len(EXPRESSIONS)))
    for name, value in values.items():
        row[0, INDEX[name]] = value
    return row


def normals(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    canonical = canonical_face()
    a, b, c = (mesh[canonical.triangles[canonical.skin, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def folded(mesh: NDArray[np.float64]) -> int:
    """Triangles whose normal turned by more than a right angle from the face at rest."""
    return int(((normals(mesh) * normals(rest_mesh())).sum(axis=1) <= 0.0).sum())


def test_the_canonical_face_is_mediapipes(shared: Path) -> None:
    landmarker = shared / "models" / "face_landmarker.task"
    np.testing.assert_array_equal(canonical_face().mesh, geometry.load_geometry(landmarker).mesh)


def test_triangles_cover_every_point_and_mirror_images_are_points() -> None:
    canonical = canonical_face()
    np.testing.assert_array_equal(np.unique(canonical.triangles), np.arange(468))
    np.testing.assert_array_equal(canonical.mesh[canonical.mirror] * (-1, 1, 1), canonical.mesh)
    assert canonical.uv.min() >= 0.0 and canonical.uv.max() <= 1.0
    # both eyes' contours have 16 points and the mouth's has 20, so 14, 14 and 18 triangles fill them
    assert (~canonical.skin).sum() == 14 + 14 + 18


def test_expressions_are_in_mediapipes_order() -> None:
    landmarker = pytest.importorskip(
        "mediapipe.tasks.python.vision.face_landmarker", reason="needs MediaPipe, whose order it is"
    )
    names = [name.name.lower() for name in landmarker.Blendshapes][1:]
    assert ["".join("_" + c.lower() if c.isupper() else c for c in name) for name in EXPRESSIONS] == names


def test_interpolation_reproduces_constants() -> None:
    np.testing.assert_allclose(interpolation().sum(axis=1), 1.0, atol=1e-12)  # of a 300 x 300 solve in float64


@pytest.mark.parametrize("value", [-2.0, 2.0])
@pytest.mark.parametrize("name", [field.name for field in fields(Shape)])
def test_each_shape_parameter_moves_the_mesh_without_folding_it(name: str, value: float) -> None:
    mesh = neutral_mesh(Shape(**{name: value}))
    assert np.abs(mesh - rest_mesh()).max() > 0.2
    assert folded(mesh) == 0


def test_shapes_stay_symmetric() -> None:
    for shape in SHAPES:
        mesh = neutral_mesh(shape)
        np.testing.assert_allclose(mesh[canonical_face().mirror] * (-1, 1, 1), mesh, atol=1e-9)  # sums in other orders


@pytest.mark.parametrize("shape", SHAPES)
def test_no_weights_leave_the_face_exactly_neutral_with_lips_closed(shape: Shape) -> None:
    mesh = deform(shape, weights())[0]
    np.testing.assert_array_equal(mesh, neutral_mesh(shape))
    gap = mesh[UPPER_LIP_INNER, 1] - mesh[LOWER_LIP_INNER, 1]
    assert gap.max() <= 2 * LIP_GAP


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_each_expression_is_seen(name: str) -> None:
    # what cannot be seen in MediaPipe's own weights either: mouthClose shuts a mouth that jawOpen opens
    before = weights(jawOpen=1.0) if name == "mouthClose" else weights()
    after = np.maximum(before, weights(**{name: 1.0}))
    moved = np.concatenate((deform(Shape(), after) - deform(Shape(), before), irises(Shape(), after)), axis=1)
    moved[:, 468:] -= irises(Shape(), before)
    assert np.abs(moved).max() > 0.15  # centimetres: a pixel at 128 pixels


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name.endswith("Left")])
def test_left_is_the_persons_left_and_right_its_mirror_image(name: str) -> None:
    left, right = (deform(Shape(), weights(**{name.removesuffix("Left") + side: 1.0}))[0] for side in ("Left", "Right"))
    np.testing.assert_allclose(left[canonical_face().mirror] * (-1, 1, 1), right, atol=1e-9)  # sums in other orders
    if name not in ("mouthLeft", "jawLeft", "eyeLookInLeft", "eyeLookOutLeft"):
        moved = np.abs(left - rest_mesh()).max(axis=1)
        assert moved[rest_mesh()[:, 0] > 0].max() > 2 * moved[rest_mesh()[:, 0] < -1.0].max()


def test_the_mouth_moves_left_to_the_right_of_the_picture() -> None:
    for name in ("mouthLeft", "jawLeft"):
        assert (deform(Shape(), weights(**{name: 1.0}))[0] - rest_mesh())[17, 0] > 0.5


def test_an_open_jaw_opens_the_mouth_by_four_centimetres_and_lowers_the_chin() -> None:
    moved = deform(Shape(), weights(jawOpen=1.0))[0]
    assert 3.5 < moved[13, 1] - moved[14, 1] < 4.5
    assert (moved - rest_mesh())[152, 1] < -2.0
    assert (moved - rest_mesh())[[1, 10, 159, 386]] == pytest.approx(0.0, abs=1e-12)  # nose, forehead and lids stay


@pytest.mark.parametrize("jaw", [0.3, 1.0])
def test_a_closed_mouth_stays_closed_however_far_the_jaw_opens(jaw: float) -> None:
    mesh = deform(Shape(), weights(jawOpen=jaw, mouthClose=jaw))[0]
    assert (mesh[UPPER_LIP_INNER, 1] - mesh[LOWER_LIP_INNER, 1]).max() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_blink_brings_the_lids_together_exactly_whatever_else_they_do(shape: Shape) -> None:
    for other in ({}, {"eyeWideLeft": 1.0}, {"eyeSquintLeft": 1.0, "mouthSmileLeft": 1.0, "eyeLookDownLeft": 0.5}):
        mesh = deform(shape, weights(eyeBlinkLeft=1.0, **other))[0]
        np.testing.assert_allclose(mesh[UPPER_LID[1]], mesh[LOWER_LID[1]], atol=1e-12)
        lid = np.abs(mesh - neutral_mesh(shape))[:, 1]
        assert lid[UPPER_LID[1]].max() > 4 * lid[LOWER_LID[1]].max()  # mostly the upper one moves


@pytest.mark.parametrize("shape", SHAPES)
def test_lips_and_lids_never_cross(shape: Shape) -> None:
    played = np.concatenate((poses(3, 1500).weights, perform(4, 300, "talking").weights))
    played = np.concatenate((played, np.random.default_rng(5).uniform(0.0, EXAGGERATION, (500, len(EXPRESSIONS)))))
    mesh = deform(shape, played)
    pairs = ((UPPER_LIP_INNER, LOWER_LIP_INNER), (UPPER_LID[0], LOWER_LID[0]), (UPPER_LID[1], LOWER_LID[1]))
    for upper, lower in pairs:
        assert (mesh[:, upper, 1] - mesh[:, lower, 1]).min() > -1e-9  # closed lids differ by rounding


def test_exaggerated_expressions_stay_within_a_head() -> None:
    moved = deform(Shape(), np.full((1, len(EXPRESSIONS)), 9.0))[0] - rest_mesh()
    assert np.isfinite(moved).all() and np.abs(moved).max() < 9.0
    for name in ("jawOpen", "mouthSmileLeft", "mouthFrownLeft", "browDownLeft", "browInnerUp", "mouthPucker"):
        assert folded(deform(Shape(), weights(**{name: 1.0}))[0]) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_irises_lie_in_their_eyes_and_follow_the_gaze(shape: Shape) -> None:
    ahead = irises(shape, weights())[0]
    for eye, contour in enumerate(EYES):
        corners = neutral_mesh(shape)[contour]
        centre, border = ahead[5 * eye], ahead[5 * eye + 1 : 5 * eye + 5]
        assert (corners.min(axis=0) < centre)[:2].all() and (centre < corners.max(axis=0))[:2].all()
        # MediaPipe's order of the border: right in the picture, top, left, bottom
        assert border[0, 0] > centre[0] > border[2, 0] and border[1, 1] > centre[1] > border[3, 1]
    right = irises(shape, weights(eyeLookOutLeft=1.0, eyeLookInRight=1.0))[0] - ahead
    up = irises(shape, weights(eyeLookUpLeft=1.0, eyeLookUpRight=1.0))[0] - ahead
    assert (right[[0, 5], 0] > 0.4).all() and (up[[0, 5], 1] > 0.3).all()


def acting(kind: str = "exaggerated", frames: int = 40) -> Performance:
    return perform(11, frames, kind)


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_landmarks_are_the_mesh_seen_by_the_runtimes_camera(size: tuple[int, int]) -> None:
    motion = face.motion(CARTOON, acting(), size)
    pixels = project(motion.mesh, motion.pose, size)
    np.testing.assert_array_equal(motion.points[:, :468, :2], pixels / (size[1], size[0]))
    assert len(motion) == 40 and motion.source_size == size and motion.fps == 25.0
    np.testing.assert_array_equal(motion.blendshapes, np.clip(acting().weights, 0.0, 1.0))


@pytest.mark.parametrize("shape", SHAPES)
def test_retargeting_a_face_to_itself_draws_the_same_landmark_images(shape: Shape) -> None:
    motion = face.motion(shape, acting(), SIZE)
    assert neutral_frame(motion) == 0
    direct = motion.points[..., :2] * SIZE[::-1]
    retargeted = retarget(motion[:1], motion, SIZE)
    np.testing.assert_allclose(retargeted, direct, atol=1e-9)  # pixels; the pose goes through Euler angles once more
    np.testing.assert_array_equal(draw(retargeted, SIZE), draw(direct, SIZE))


def test_depth_is_in_motions_unit() -> None:
    shape = Shape(nose_length=0.5)
    motion = face.motion(shape, resting(1), SIZE)
    canonical = geometry.FaceGeometry(neutral_mesh(shape), np.ones(468))
    mesh, pose = geometry.recover(motion.points, SIZE, canonical)
    scale = np.cbrt(np.linalg.det(pose[0, :3, :3]))
    # the runtime's projection differs from MediaPipe's by 1.0001, over a depth of 25 cm
    np.testing.assert_allclose(mesh[0] * scale, motion.mesh[0] * scale, atol=0.01)


def test_a_transferred_motion_is_the_runtimes_retargeting() -> None:
    driving = face.motion(ANIMAL, acting("head turns"), (96, 160))
    place = face.placement(CARTOON, SIZE, seed=1)
    portrait = face.motion(CARTOON, resting(1), SIZE, place)
    result = face.transfer(CARTOON, driving, SIZE, place)
    assert isinstance(result, Motion) and len(result) == len(driving)
    np.testing.assert_allclose(result.points[..., :2] * 128, retarget(portrait, driving, SIZE), rtol=1e-15, atol=0)
    np.testing.assert_allclose(project(result.mesh, result.pose, SIZE) / 128, result.points[:, :468, :2], rtol=1e-15)
    # a drawn face drives itself to its own landmarks; the irises' depth is their eye's
    own = face.motion(ANIMAL, acting(), SIZE)
    itself = face.transfer(ANIMAL, own, SIZE)
    np.testing.assert_allclose(itself.points[..., :2], own.points[..., :2], atol=1e-12)
    np.testing.assert_allclose(itself.points[:, :468], own.points[:, :468], atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(128, 128), (256, 128), (128, 256)])
def test_a_portrait_fills_its_picture(shape: Shape, size: tuple[int, int]) -> None:
    def extent(place: face.Placement) -> tuple[float, float, float]:
        points = face.motion(shape, resting(1), size, place).points[0]
        top, bottom = points[10, 1] * size[0], points[152, 1] * size[0]
        return (bottom - top) / min(size), (top + bottom) / 2.0 / size[0], float(points[10, 0])

    height, centre, middle = extent(face.placement(shape, size))
    # chin and forehead don't lie at quite the same depth, which the placement leaves out
    assert (height, centre, middle) == pytest.approx((face.FACE_HEIGHT, face.FACE_CENTRE, 0.5), abs=0.04)
    for seed in range(20):
        jittered = extent(face.placement(shape, size, seed))
        assert jittered[0] / height == pytest.approx(1.0, abs=0.15)
        assert jittered[1:] == pytest.approx((centre, middle), abs=0.075)
    assert face.placement(shape, size, 1) == face.placement(shape, size, 1) != face.placement(shape, size, 2)
