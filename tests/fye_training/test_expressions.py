from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fye_training.expressions import EXAGGERATION, EXPRESSIONS, INDEX, deform, irises
from fye_training.performance import perform, poses
from fye_training.shape import LIP_GAP, Shape, neutral_mesh, rest_mesh
from fye_training.topology import BROWS, CHEEKS, EYES, LOWER_LID, LOWER_LIP_INNER, UPPER_LID, UPPER_LIP_INNER
from tests.fye_training.faces import SHAPES, folded, mirrored, people, weights

Mesh = NDArray[np.float64]
LEFTS = [name for name in EXPRESSIONS if name.endswith("Left")]
EVERY = np.eye(len(EXPRESSIONS))
ROUNDING = 1e-12  # centimetres; float64 coordinates of 10 cm, summed in another order


def gap(mesh: Mesh) -> Mesh:
    """Between the inner lips (..., 9), without the corners they share."""
    return mesh[..., UPPER_LIP_INNER[1:-1], 1] - mesh[..., LOWER_LIP_INNER[1:-1], 1]


def assert_nothing_crosses(mesh: Mesh, shape: Shape) -> None:
    # lips that would cross stay as far apart as at rest
    assert (gap(mesh) - np.minimum(gap(neutral_mesh(shape)), LIP_GAP)).min() > -ROUNDING
    for upper, lower in zip(UPPER_LID, LOWER_LID, strict=True):
        assert (mesh[..., upper, 1] - mesh[..., lower, 1]).min() > -ROUNDING


def test_expressions_are_in_mediapipes_order() -> None:
    landmarker = pytest.importorskip(
        "mediapipe.tasks.python.vision.face_landmarker",
        reason="needs MediaPipe, whose order it is",
        exc_type=ImportError,
    )
    names = [name.name.lower() for name in landmarker.Blendshapes][1:]
    assert ["".join("_" + c.lower() if c.isupper() else c for c in name) for name in EXPRESSIONS] == names


@settings(max_examples=20, deadline=None)
@given(shape=people)
def test_zero_weights_leave_the_face_exactly_neutral(shape: Shape) -> None:
    np.testing.assert_array_equal(deform(shape, weights())[0], neutral_mesh(shape))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_each_expression_moves_the_face_visibly(name: str) -> None:
    # what cannot be seen in MediaPipe's own weights either: mouthClose shuts a mouth that jawOpen opens
    before = weights(jawOpen=1.0) if name == "mouthClose" else weights()
    after = np.maximum(before, weights(**{name: 1.0}))
    moved = np.concatenate((deform(Shape(), after) - deform(Shape(), before), irises(Shape(), after)), axis=1)
    moved[:, 468:] -= irises(Shape(), before)
    assert np.abs(moved).max() > 0.15  # centimetres: a pixel at 128 pixels


def mean(points: Mesh | tuple[int, ...], axis: int) -> Callable[[Mesh], float]:
    return lambda mesh: float(mesh[np.asarray(points), axis].mean())


def lips(upper: int, lower: int) -> Callable[[Mesh], float]:
    return lambda mesh: float(np.linalg.norm(mesh[upper] - mesh[lower]))


# on the person's left: what an expression makes larger (+) or smaller (-)
EFFECTS: dict[str, tuple[tuple[str, Callable[[Mesh], float]], ...]] = {
    "browDownLeft": (("-", mean(BROWS[1], 1)),),
    "browInnerUp": (("+", mean((336, 285), 1)), ("+", lambda mesh: mesh[336, 1] - mesh[300, 1])),
    "browOuterUpLeft": (("+", mean((300, 276), 1)), ("+", lambda mesh: mesh[300, 1] - mesh[336, 1])),
    "cheekPuff": (("+", mean(CHEEKS[1], 0)), ("+", mean(CHEEKS[1], 2))),
    "cheekSquintLeft": (("+", mean(CHEEKS[1], 1)), ("-", lips(386, 374))),
    "eyeSquintLeft": (("-", lips(386, 374)), ("+", mean((374,), 1))),
    "eyeWideLeft": (("+", lips(386, 374)), ("+", mean((386,), 1))),
    "eyeLookDownLeft": (("-", mean((386,), 1)),),
    "eyeLookUpLeft": (("+", mean((386,), 1)),),
    "jawForward": (("+", mean((152,), 2)),),
    "mouthDimpleLeft": (("+", mean((291,), 0)), ("-", mean((291,), 2))),
    "mouthFrownLeft": (("-", mean((291,), 1)),),
    "mouthFunnel": (("-", mean((291,), 0)), ("+", lips(13, 14)), ("+", mean((13, 14), 2))),
    "mouthLowerDownLeft": (("-", mean((402,), 1)), ("+", lips(311, 402))),
    "mouthPressLeft": (("-", lips(269, 405)),),
    "mouthPucker": (("-", mean((291,), 0)), ("+", mean((13, 14), 2))),
    "mouthRollLower": (("-", lips(14, 17)), ("-", mean((17,), 2))),
    "mouthRollUpper": (("-", lips(13, 0)), ("-", mean((0,), 2))),
    "mouthShrugLower": (("+", mean((17,), 1)), ("+", mean((199,), 1))),
    "mouthShrugUpper": (("+", mean((0, 13), 1)),),
    "mouthSmileLeft": (("+", mean((291,), 0)), ("+", mean((291,), 1)), ("+", mean(CHEEKS[1], 1))),
    "mouthStretchLeft": (("+", mean((291,), 0)), ("-", mean((291,), 1))),
    "mouthUpperUpLeft": (("+", mean((269,), 1)), ("+", lips(311, 402))),
    "noseSneerLeft": (("+", mean((358, 327), 1)), ("+", mean((269,), 1))),
}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_expressions_move_the_landmarks_that_their_names_say(shape: Shape, name: str) -> None:
    before, after = neutral_mesh(shape), deform(shape, weights(**{name: 1.0}))[0]
    for sign, measure in EFFECTS[name]:
        # half a millimetre, a third of a pixel at 128 pixels
        assert (measure(after) - measure(before)) * float(f"{sign}1") > 0.05


@pytest.mark.parametrize("name", LEFTS)
def test_left_expressions_move_the_left_side_of_the_person(name: str) -> None:
    left, right = (deform(Shape(), weights(**{name.removesuffix("Left") + side: 1.0}))[0] for side in ("Left", "Right"))
    np.testing.assert_allclose(mirrored(left), right, atol=ROUNDING)
    if name not in ("mouthLeft", "jawLeft", "eyeLookInLeft", "eyeLookOutLeft"):
        moved = np.abs(left - rest_mesh()).max(axis=1)
        assert moved[rest_mesh()[:, 0] > 0].max() > 5 * moved[rest_mesh()[:, 0] < -1.0].max()


def test_expressions_of_the_whole_face_are_symmetric() -> None:
    whole = [index for name, index in INDEX.items() if not name.endswith(("Left", "Right"))]
    mesh = deform(Shape(), EVERY[whole])
    np.testing.assert_allclose(mirrored(mesh), mesh, atol=ROUNDING)


def test_mouth_left_moves_the_mouth_to_the_right_of_the_picture() -> None:
    for name in ("mouthLeft", "jawLeft"):
        assert (deform(Shape(), weights(**{name: 1.0}))[0] - rest_mesh())[17, 0] > 0.5


def test_an_open_jaw_opens_the_mouth_by_four_centimetres_and_lowers_the_chin() -> None:
    moved = deform(Shape(), weights(jawOpen=1.0))[0]
    assert 3.5 < moved[13, 1] - moved[14, 1] < 4.5 and (moved - rest_mesh())[152, 1] < -2.0
    assert (moved - rest_mesh())[[1, 10, 159, 386]] == pytest.approx(0.0, abs=1e-12)  # nose, forehead and lids stay


@pytest.mark.parametrize("jaw", [0.3, 1.0])
def test_a_closed_mouth_stays_closed_however_far_the_jaw_opens(jaw: float) -> None:
    mesh = deform(Shape(), weights(jawOpen=jaw, mouthClose=jaw))[0]
    assert gap(mesh).max() < 0.1


@settings(max_examples=20, deadline=None)
@given(shape=people, others=st.sampled_from((0.0, 0.5, 1.0)))
def test_a_blink_closes_the_lids_exactly_with_any_other_expression(shape: Shape, others: float) -> None:
    also = dict.fromkeys(("eyeWide", "eyeSquint", "mouthSmile", "eyeLookDown"), others)
    both = {name + side: value for name, value in {"eyeBlink": 1.0, **also}.items() for side in ("Left", "Right")}
    mesh = deform(shape, weights(**both))[0]
    for upper, lower in zip(UPPER_LID, LOWER_LID, strict=True):
        np.testing.assert_allclose(mesh[upper], mesh[lower], atol=ROUNDING)
    np.testing.assert_allclose(mirrored(mesh), mesh, atol=ROUNDING)
    lid = np.abs(mesh - neutral_mesh(shape))[:, 1]
    assert lid[UPPER_LID[1]].max() > 4 * lid[LOWER_LID[1]].max()  # mostly the upper one moves


@pytest.mark.parametrize("shape", SHAPES)
def test_lips_and_lids_never_cross(shape: Shape) -> None:
    played = np.concatenate((poses(3, 500).weights, perform(4, 100, "talking").weights, EVERY, 1.5 * EVERY))
    assert_nothing_crosses(deform(shape, played), shape)


@settings(max_examples=40, deadline=None)
@given(shape=people, seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 1.0))
def test_lips_and_lids_never_cross_in_any_mixture(shape: Shape, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    mixed = random.uniform(0.0, EXAGGERATION, (8, len(EXPRESSIONS))) * (random.random((8, len(EXPRESSIONS))) < share)
    assert_nothing_crosses(deform(shape, mixed), shape)


@pytest.mark.usefixtures("opencv")
def test_lips_and_lids_of_characters_never_cross() -> None:
    from fye_training.identity import identity

    for seed in range(24):
        shape = identity(seed).shape
        assert_nothing_crosses(deform(shape, poses(seed, 20).weights), shape)


def test_weights_are_limited_to_1_for_the_eyes_and_to_1_5_elsewhere() -> None:
    for name in EXPRESSIONS:
        most = 1.0 if name.startswith(("eye", "cheekSquint")) else EXAGGERATION
        mesh = deform(Shape(), np.concatenate([weights(**{name: value}) for value in (most, 9.0, 0.0, -1.0)]))
        np.testing.assert_array_equal(mesh[0], mesh[1])
        np.testing.assert_array_equal(mesh[2], mesh[3])


def test_exaggerated_expressions_stay_within_a_head() -> None:
    moved = deform(Shape(), np.full((1, len(EXPRESSIONS)), 9.0))[0] - rest_mesh()
    assert np.isfinite(moved).all() and np.abs(moved).max() < 9.0
    for name in ("jawOpen", "mouthSmileLeft", "mouthFrownLeft", "browDownLeft", "browInnerUp", "mouthPucker"):
        assert folded(deform(Shape(), weights(**{name: 1.0}))[0]) == 0


def test_a_frame_depends_on_its_own_weights_alone() -> None:
    played = poses(0, 12).weights
    together = deform(Shape(), played)
    for frame in (0, 7):
        np.testing.assert_allclose(deform(Shape(), played[frame : frame + 1])[0], together[frame], atol=ROUNDING)
    np.testing.assert_array_equal(played, poses(0, 12).weights)  # arguments stay as they are


@pytest.mark.parametrize("shape", SHAPES)
def test_irises_lie_in_their_eyes_and_follow_the_gaze(shape: Shape) -> None:
    ahead = irises(shape, weights())[0]
    for eye, contour in enumerate(EYES):
        corners = neutral_mesh(shape)[contour]
        centre, border = ahead[5 * eye], ahead[5 * eye + 1 : 5 * eye + 5]
        assert (corners.min(axis=0) < centre)[:2].all() and (centre < corners.max(axis=0))[:2].all()
        # MediaPipe's order of the border: right in the picture, top, left, bottom
        assert border[0, 0] > centre[0] > border[2, 0] and border[1, 1] > centre[1] > border[3, 1]
    for names, axis, sign in (
        (("eyeLookOutLeft", "eyeLookInRight"), 0, 1.0),
        (("eyeLookInLeft", "eyeLookOutRight"), 0, -1.0),
        (("eyeLookUpLeft", "eyeLookUpRight"), 1, 1.0),
        (("eyeLookDownLeft", "eyeLookDownRight"), 1, -1.0),
    ):
        half, full = (irises(shape, weights(**dict.fromkeys(names, value)))[0] - ahead for value in (0.5, 1.0))
        assert (sign * full[[0, 5], axis] > 0.3).all()
        assert (sign * full[[0, 5], axis] > 1.5 * sign * half[[0, 5], axis]).all()
        assert np.abs(full[[0, 5], 1 - axis]).max() < 1e-9  # straight sideways, straight up and down


def test_each_eye_has_its_own_gaze() -> None:
    moved = np.abs(irises(Shape(), weights(eyeLookOutLeft=1.0)) - irises(Shape(), weights()))[0].max(axis=1)
    assert (moved[:5] == 0.0).all() and (moved[5:] > 0.3).all()


def test_irises_are_mirror_images() -> None:
    both = irises(Shape(), weights(eyeLookOutLeft=0.7, eyeLookOutRight=0.7, eyeLookUpLeft=0.4, eyeLookUpRight=0.4))[0]
    # centre, right, top, left, bottom of the picture: right and left change places
    np.testing.assert_allclose(both[[5, 8, 7, 6, 9]] * (-1, 1, 1), both[:5], atol=ROUNDING)


def test_lips_that_would_cross_stay_as_close_as_at_rest() -> None:
    assert gap(deform(Shape(), weights(mouthShrugLower=1.5))).min() == pytest.approx(LIP_GAP)
