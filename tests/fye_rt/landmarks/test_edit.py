"""A control changes what it says, by as much as it says, and nothing else."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, retarget
from fye_rt.landmarks.control import CURVES, EDITS, STRENGTHS, Control, Keyframe
from fye_rt.landmarks.edit import Editor, apply
from fye_rt.landmarks.library import LOWER_LIP, UPPER_LIP, face
from fye_rt.landmarks.mirror import mirrored
from fye_rt.landmarks.rotation import matrix_to_euler
from fye_training.face import motion as drawn
from fye_training.identity import identity
from fye_training.performance import perform, resting

SIZE = (256, 256)
ALL_OFF = dict.fromkeys(("expression", "pose", "move", "approach"), 0.0)
BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
EYES = (33, 133, 159, 145, 362, 263, 386, 374)
MOUTH = (78, 308, 13, 14, 61, 291)

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def portrait() -> Motion:
    return drawn(identity(3, "people").shape, resting(1), SIZE)


@pytest.fixture(scope="module")
def driver() -> Motion:
    """Frames of another person who talks and blinks."""
    return drawn(identity(5, "people").shape, perform(11, 144, "talking")[::6], SIZE)


def values(names: Mapping[str, tuple[float, float]]) -> st.SearchStrategy[dict[str, float]]:
    return st.fixed_dictionaries({}, optional={name: st.floats(*bounds) for name, bounds in names.items()})


controls = st.builds(
    lambda curves, modes, arkit: Control(**curves, **modes, arkit=arkit),
    values(CURVES),
    st.fixed_dictionaries(
        {},
        optional={
            "region": st.sampled_from(("all", "expression", "pose", "mouth", "eyes")),
            "rotation": st.sampled_from(("absolute", "relative")),
            "neutral": st.sampled_from(("auto", "first", "portrait", 3)),
            "gaze_mode": st.sampled_from(("driver", "camera", "fixed")),
            "match_size": st.booleans(),
            "close_lips": st.booleans(),
        },
    ),
    values({"jawOpen": (0, 1), "mouthSmileLeft": (0, 1), "eyeBlinkRight": (0, 1)}),
)


def same_bits(first: Motion, second: Motion) -> bool:
    return all(getattr(first, name).tobytes() == getattr(second, name).tobytes() for name in ("points", "mesh", "pose"))


def test_a_neutral_control_returns_the_motion_itself(portrait: Motion, driver: Motion) -> None:
    assert apply(Control(), portrait, driver) is driver
    edited = Editor(Control(), portrait, driver).apply(driver)
    assert same_bits(edited, driver)
    assert retarget(portrait, edited, SIZE).tobytes() == retarget(portrait, driver, SIZE).tobytes()


def test_a_strength_of_0_is_the_portraits_own_face(portrait: Motion, driver: Motion) -> None:
    still = retarget(portrait, apply(Control(**ALL_OFF), portrait, driver), SIZE)
    own = retarget(portrait, portrait, SIZE)
    np.testing.assert_allclose(still, np.repeat(own, len(driver), axis=0), rtol=0, atol=1e-5)  # pixels


@given(control=controls)
@settings(max_examples=40, deadline=None)
def test_frame_by_frame_gives_the_same_bits_as_all_at_once(portrait: Motion, driver: Motion, control: Control) -> None:
    whole = Editor(control, portrait, driver).apply(driver)
    editor = Editor(control, portrait, driver)
    for frame in range(0, len(driver), 5):
        assert same_bits(editor.apply(driver[frame : frame + 1]), whole[frame : frame + 1])


@given(control=controls)
@settings(max_examples=40, deadline=None)
def test_a_mirrored_control_does_the_same_to_mirrored_faces(portrait: Motion, driver: Motion, control: Control) -> None:
    edited = mirrored(apply(control, portrait, driver))
    other = apply(control.mirrored(), mirrored(portrait), mirrored(driver))
    for name, unit in (("mesh", 1e-4), ("points", 1e-5)):  # centimetres; the library has float32
        np.testing.assert_allclose(getattr(edited, name), getattr(other, name), rtol=0, atol=unit)
    np.testing.assert_allclose(edited.pose, other.pose, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("region", "others"),
    [("brows", (*EYES, *MOUTH)), ("eyes", (*BROWS, *MOUTH)), ("mouth", (*BROWS, *EYES))],
)
@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_the_strength_of_a_region_leaves_the_others_alone(
    portrait: Motion, driver: Motion, region: str, others: tuple[int, ...], strength: float
) -> None:
    edited = apply(Control(**{region: strength}), portrait, driver)
    assert edited.mesh[:, others].tobytes() == driver.mesh[:, others].tobytes()
    assert edited.pose.tobytes() == driver.pose.tobytes() and edited.points.tobytes() == driver.points.tobytes()
    own = {"brows": BROWS, "eyes": (159, 145, 386, 374), "mouth": MOUTH}[region]
    assert (edited.mesh[:, own] != driver.mesh[:, own]).any()


def test_gaze_moves_irises_alone(portrait: Motion, driver: Motion) -> None:
    edited = apply(Control(gaze_left=0.0, gaze_x=0.0), portrait, driver)
    assert edited.mesh.tobytes() == driver.mesh.tobytes()
    assert edited.points[:, :473].tobytes() == driver.points[:, :473].tobytes()
    assert (edited.points[:, 473:] != driver.points[:, 473:]).any()


def opening(mesh: Array, upper: int, lower: int) -> float:
    return float(mesh[upper, 1] - mesh[lower, 1])


MEASURES = {
    "eye_open": lambda motion, mesh: opening(mesh, 159, 145) + opening(mesh, 386, 374),
    "eye_open_left": lambda motion, mesh: opening(mesh, 386, 374),
    "eye_open_right": lambda motion, mesh: opening(mesh, 159, 145),
    "brow": lambda motion, mesh: mesh[[105, 334], 1].mean(),
    "brow_left": lambda motion, mesh: mesh[334, 1],
    "brow_right": lambda motion, mesh: mesh[105, 1],
    "brow_inner": lambda motion, mesh: mesh[[55, 285], 1].mean(),
    "smile": lambda motion, mesh: mesh[[61, 291], 1].mean() - mesh[[0, 17], 1].mean(),
    "jaw": lambda motion, mesh: -mesh[152, 1],
    "lip_open": lambda motion, mesh: opening(mesh, 13, 14),
    "pucker": lambda motion, mesh: mesh[61, 0] - mesh[291, 0],
    "stretch": lambda motion, mesh: mesh[291, 0] - mesh[61, 0],
    "yaw": lambda motion, mesh: matrix_to_euler(motion.pose[:1, :3, :3])[0, 1],
    "pitch": lambda motion, mesh: -matrix_to_euler(motion.pose[:1, :3, :3])[0, 0],
    "roll": lambda motion, mesh: -matrix_to_euler(motion.pose[:1, :3, :3])[0, 2],
    "x": lambda motion, mesh: motion.pose[0, 0, 3],
    "y": lambda motion, mesh: motion.pose[0, 1, 3],
    "zoom": lambda motion, mesh: motion.pose[0, 2, 3],
    "gaze_x": lambda motion, mesh: motion.points[0, [468, 473], 0].sum(),
    "gaze_y": lambda motion, mesh: -motion.points[0, [468, 473], 1].sum(),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_grows_with_its_value_over_its_whole_range(portrait: Motion, name: str) -> None:
    spoken = drawn(identity(5, "people").shape, perform(11, 8, "talking")[6:], SIZE)
    measured = []
    for value in np.linspace(*EDITS[name], 21):
        edited = apply(Control(**{name: float(value)}), portrait, spoken)
        assert edited.rest is not None or value == 0
        rest = spoken.mesh[0] if edited.rest is None else edited.rest
        measured.append(float(MEASURES[name](edited, edited.mesh[0] - rest + portrait.mesh[0])))
    steps = np.diff(measured)
    assert (steps >= -1e-12).all() and (steps > 0).sum() >= 12, measured


def test_turns_add_the_degrees_that_are_asked_for(portrait: Motion, driver: Motion) -> None:
    edited = apply(Control(yaw=10.0, pitch=5.0, roll=-3.0), portrait, driver)
    change = matrix_to_euler(edited.pose[:, :3, :3]) - matrix_to_euler(driver.pose[:, :3, :3])
    np.testing.assert_allclose(change, np.tile((-5.0, 10.0, 3.0), (len(driver), 1)), rtol=0, atol=1e-9)


def test_closed_eyes_and_lips_are_closed_and_do_not_cross(portrait: Motion, driver: Motion) -> None:
    edited = apply(Control(eye_open=-1.0, lip_open=-1.0, close_lips=True), portrait, driver)
    assert edited.rest is not None
    mesh = edited.mesh - edited.rest + portrait.mesh[0]
    for upper, lower in ((159, 145), (386, 374)):
        np.testing.assert_allclose(mesh[:, upper, 1] - mesh[:, lower, 1], 0.0, atol=0.02)  # centimetres
    gap = mesh[:, UPPER_LIP, 1] - mesh[:, LOWER_LIP, 1]
    assert gap.min() > -1e-6 and gap.max() < 0.02


def test_relative_rotation_starts_at_the_portraits_pose(portrait: Motion, driver: Motion) -> None:
    turned = apply(Control(yaw=20.0), portrait, driver)
    edited = apply(Control(rotation="relative"), portrait, turned)
    np.testing.assert_allclose(edited.pose[0, :3, :3], portrait.pose[0, :3, :3], rtol=0, atol=1e-9)
    assert np.abs(edited.pose[-1, :3, :3] - edited.pose[0, :3, :3]).max() > 1e-4


def test_the_order_of_keyframes_makes_no_difference(portrait: Motion, driver: Motion) -> None:
    frames = [
        Keyframe(time=0.0, values={"yaw": 0.0, "smile": 0.0}),
        Keyframe(time=0.4, values={"yaw": 10.0}, easing="linear"),
        Keyframe(time=0.6, values={"smile": 1.0}, easing="hold"),
    ]
    forward, backward = (Control(keyframes=order) for order in (frames, frames[::-1]))
    assert forward == backward
    edited = apply(forward, portrait, driver)
    assert same_bits(edited, apply(backward, portrait, driver))
    yaw = (matrix_to_euler(edited.pose[:, :3, :3]) - matrix_to_euler(driver.pose[:, :3, :3]))[:, 1]
    since = driver.times - driver.times[0]
    np.testing.assert_allclose(yaw, np.interp(since, (0.0, 0.4), (0.0, 10.0)), rtol=0, atol=1e-9)


def test_a_neutral_frame_that_the_motion_lacks_is_refused(portrait: Motion, driver: Motion) -> None:
    with pytest.raises(InputError, match="neutral=24 is no frame of the motion, which has 24"):
        apply(Control(neutral=24), portrait, driver)


def test_every_strength_at_2_keeps_the_face_whole(portrait: Motion, driver: Motion) -> None:
    strong: dict[str, Any] = dict.fromkeys(STRENGTHS, 2.0) | {"move": 1.0, "approach": 1.0}
    points = retarget(portrait, apply(Control(**strong), portrait, driver), SIZE)
    assert np.isfinite(points).all()
    lids = points[:, (159, 386), 1] - points[:, (145, 374), 1]
    before = retarget(portrait, driver, SIZE)
    assert (lids <= np.maximum(before[:, (159, 386), 1] - before[:, (145, 374), 1], 0.0) + 0.5).all()


def test_shares_of_regions_are_whole_where_features_are_drawn() -> None:
    regions = face().regions
    for names, columns in ((BROWS, (0, 1)), (EYES, (2, 3)), (MOUTH, (4, 5))):
        np.testing.assert_allclose(regions[list(names)][:, columns].sum(axis=1), 1.0, atol=1e-6)
