"""The canonical face, fitted to a few points."""

from pathlib import Path

import numpy as np
import pytest

from fye_rt.landmarks import Motion
from fye_rt.landmarks.draw import EDGES
from fye_rt.landmarks.fit import fit, unproject
from fye_rt.landmarks.geometry import FaceGeometry, load_geometry
from fye_rt.landmarks.points_file import REQUIRED, VERTICES
from fye_rt.landmarks.retarget import project
from fye_rt.landmarks.rotation import euler_to_matrix, matrix_to_euler
from tests.fye_rt.landmarks.named_points import CAT, CAT_SIZE, DOG, DOG_SIZE, Points, points_of

SIZE = 512, 512
DRAWN = sorted({vertex for start, end, colour in EDGES if any(colour) for vertex in (start, end)})
BROWS = tuple(name for name in VERTICES if "brow" in name)


@pytest.fixture(scope="module")
def geometry(landmarker: Path) -> FaceGeometry:
    return load_geometry(landmarker)


def by_vertex(points: Points) -> dict[int, tuple[float, float]]:
    return {VERTICES[name]: point for name, point in points.items() if name in VERTICES}


def turned(geometry: FaceGeometry, angles: tuple[float, float, float]) -> np.ndarray:
    """Pixels of the canonical face under pitch, yaw and roll."""
    pose = np.eye(4)
    pose[:3, :3] = euler_to_matrix(np.array([angles]))[0]
    pose[:3, 3] = 3.0, -2.0, -45.0
    return project(geometry.mesh[None], pose[None], SIZE)[0]


@pytest.mark.parametrize(("points", "size"), [(CAT, CAT_SIZE), (DOG, DOG_SIZE)])
def test_every_point_of_an_animal_is_where_it_was_set(
    points: Points, size: tuple[int, int], geometry: FaceGeometry
) -> None:
    pixels = by_vertex(points)
    result = fit(geometry, pixels, size)
    assert not len(result.folded) and result.astray is None
    projected = project(result.mesh[None], result.pose[None], size)[0]
    np.testing.assert_allclose(projected[list(pixels)], list(pixels.values()), atol=1e-6)
    np.testing.assert_allclose(result.pose[:3, :3] @ result.pose[:3, :3].T, np.eye(3), atol=1e-12)


# means over all 468 points, and over those that are drawn for the model, in shares of the face's width: 0.036 and
# 0.028, 0.025 and 0.025, 0.018 and 0.008, 0.014 and 0.007 were measured
@pytest.mark.parametrize(
    ("names", "whole", "drawn"),
    [
        (REQUIRED, 0.045, 0.035),
        ((*REQUIRED, "upper_lip", "lower_lip"), 0.035, 0.032),
        ((*REQUIRED, "upper_lip", "lower_lip", *BROWS), 0.025, 0.012),
        (tuple(VERTICES), 0.02, 0.01),
    ],
)
def test_a_few_points_of_a_detected_face_give_the_others_back(
    names: tuple[str, ...], whole: float, drawn: float, portrait: Motion, geometry: FaceGeometry
) -> None:
    size = portrait.source_size
    seen = portrait.points[0, :468, :2] * (size[1], size[0])
    result = fit(geometry, by_vertex(points_of(portrait, names)), size)
    off = np.linalg.norm(project(result.mesh[None], result.pose[None], size)[0] - seen, axis=1) / np.ptp(seen[:, 0])
    assert off.mean() < whole and off[DRAWN].mean() < drawn
    assert not len(result.folded)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0, 25, 0), (0, -25, 10), (8, 10, -30), (0, 0, 60)])
def test_a_turned_face_has_the_pose_that_turned_it(angles: tuple[float, float, float], geometry: FaceGeometry) -> None:
    pixels = turned(geometry, angles)
    result = fit(geometry, {VERTICES[name]: tuple(pixels[VERTICES[name]]) for name in REQUIRED}, SIZE)
    # degrees: a pitch and a yaw are expected to be small, which takes a little off them
    np.testing.assert_allclose(matrix_to_euler(result.pose[None, :3, :3])[0], angles, atol=2.5)
    np.testing.assert_allclose(project(result.mesh[None], result.pose[None], SIZE)[0], pixels, atol=3.0)


def test_a_face_of_the_same_size_on_both_sides_stays_so(geometry: FaceGeometry) -> None:
    result = fit(geometry, by_vertex(DOG), DOG_SIZE)
    distances = np.linalg.norm(geometry.mesh[:, None] * (-1.0, 1.0, 1.0) - geometry.mesh[None], axis=-1)
    mirrored = result.mesh[distances.argmin(axis=1)] * (-1.0, 1.0, 1.0)
    np.testing.assert_allclose(result.mesh, mirrored, atol=0.05)  # centimetres: DOG is set in whole pixels


def test_a_point_without_its_counterpart_moves_both_sides(geometry: FaceGeometry) -> None:
    sides = VERTICES["right_side"], VERTICES["left_side"]
    usual = fit(geometry, by_vertex(DOG), DOG_SIZE).mesh[list(sides)]
    right, left = fit(geometry, by_vertex({**DOG, "right_side": (90.0, 250.0)}), DOG_SIZE).mesh[list(sides)]
    np.testing.assert_allclose(left, right * (-1.0, 1.0, 1.0), atol=0.05)  # centimetres
    assert right[0] < usual[0, 0] - 1.0 and left[0] > usual[1, 0] + 1.0


def test_a_face_that_fills_the_picture_stays_in_front_of_the_camera(geometry: FaceGeometry) -> None:
    low, high = np.array(list(DOG.values())).min(axis=0), np.array(list(DOG.values())).max(axis=0)
    filling = {name: tuple((np.array(point) - low) / (high - low) * 511) for name, point in DOG.items()}
    result = fit(geometry, by_vertex(filling), DOG_SIZE)
    depth = result.mesh @ result.pose[2, :3] + result.pose[2, 3]
    assert depth.max() < -2.0  # centimetres


def test_unprojecting_inverts_the_projection(geometry: FaceGeometry) -> None:
    pose = np.eye(4)
    pose[:3, 3] = 3.0, -2.0, -45.0
    camera = geometry.mesh + pose[:3, 3]
    pixels = project(geometry.mesh[None], pose[None], (300, 451))[0]
    np.testing.assert_allclose(unproject(pixels, camera[:, 2], (300, 451)), camera, atol=1e-9)


def test_a_point_in_a_wrong_place_is_the_one_that_is_named(geometry: FaceGeometry, portrait: Motion) -> None:
    points = points_of(portrait, tuple(VERTICES))
    x, y = points["mouth_right"]
    for name, point in {"mouth_right": points["right_eye_lower"], "right_eye_upper": (x, y)}.items():
        result = fit(geometry, by_vertex({**points, name: point}), portrait.source_size)
        assert len(result.folded) and result.astray == VERTICES[name]
