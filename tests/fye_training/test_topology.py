from pathlib import Path

import numpy as np
import pytest

from fye_rt.landmarks.draw import EDGES
from fye_rt.landmarks.geometry import load_geometry
from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE
from fye_training import topology
from fye_training.topology import BROWS, EYES, FACE_OVAL, HANDLES, LOWER_BROW, UPPER_BROW, canonical_face, spread

LIP_CONTOURS = [getattr(topology, f"{lip}_LIP_{side}") for lip in ("UPPER", "LOWER") for side in ("OUTER", "INNER")]
PAIRS = (topology.UPPER_LID, topology.LOWER_LID, UPPER_BROW, LOWER_BROW)


def edges(contour: topology.Indices) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in zip(contour.tolist(), contour[1:].tolist(), strict=False)}


def closed(loop: topology.Indices) -> set[frozenset[int]]:
    return edges(np.append(loop, loop[0]))


def test_the_canonical_face_is_mediapipes(landmarker: Path) -> None:
    np.testing.assert_array_equal(canonical_face().mesh, load_geometry(landmarker).mesh)


def test_triangles_cover_every_point_and_mirror_images_are_points() -> None:
    canonical = canonical_face()
    np.testing.assert_array_equal(np.unique(canonical.triangles), np.arange(468))
    np.testing.assert_array_equal(canonical.mesh[canonical.mirror] * (-1, 1, 1), canonical.mesh)
    np.testing.assert_array_equal(canonical.mirror[canonical.mirror], np.arange(468))
    assert canonical.uv.min() >= 0.0 and canonical.uv.max() <= 1.0
    # both eyes' contours have 16 points and the mouth's has 20, so 14, 14 and 18 triangles fill them
    assert (~canonical.skin).sum() == 14 + 14 + 18


def test_triangles_are_counterclockwise_seen_from_the_front() -> None:
    canonical = canonical_face()
    a, b, c = (canonical.mesh[canonical.triangles[:, corner], :2] for corner in range(3))
    twice_area = np.cross(np.pad(b - a, ((0, 0), (0, 1))), np.pad(c - a, ((0, 0), (0, 1))))[:, 2]
    assert (twice_area < 0.0).sum() <= 10  # under the tip and the wings of the nose
    # in the picture the face is its oval, plus what folds back under the nose, twice
    oval = canonical.mesh[FACE_OVAL, :2]
    shoelace = (oval[:, 0] * np.roll(oval[:, 1], 1) - oval[:, 1] * np.roll(oval[:, 0], 1)).sum()
    assert twice_area.sum() == pytest.approx(shoelace, rel=1e-9)


def test_contours_are_mirror_images_of_each_other() -> None:
    mirror = canonical_face().mirror
    for contour in LIP_CONTOURS:
        np.testing.assert_array_equal(mirror[contour], contour[::-1])
    for right, left in (*PAIRS, topology.CHEEKS):
        np.testing.assert_array_equal(mirror[right], left)
        assert (canonical_face().mesh[left, 0] > 0.0).all()  # the person's left lies at the picture's right
    np.testing.assert_array_equal(np.sort(mirror[HANDLES]), HANDLES)


def test_contours_run_along_edges_of_the_mesh() -> None:
    triangles = canonical_face().triangles
    mesh = {frozenset((int(t[i]), int(t[i - 1]))) for t in triangles for i in range(3)}
    for contour in (*LIP_CONTOURS, *(side for pair in PAIRS for side in pair)):
        assert edges(contour) <= mesh
    assert closed(FACE_OVAL) <= mesh and closed(topology.LIPS) <= mesh


def test_eyes_brows_and_mouth_are_those_that_landmark_images_show() -> None:
    drawn = {frozenset((start, end)) for start, end, colour in EDGES if any(colour)}
    brow_lines = set().union(*(edges(side) for pair in (UPPER_BROW, LOWER_BROW) for side in pair))
    assert set().union(*map(closed, EYES)) | closed(topology.MOUTH) | brow_lines == drawn
    oval = {frozenset((start, end)) for start, end, colour in EDGES if not any(colour)}
    assert oval < closed(FACE_OVAL)
    for brow, upper, lower in zip(BROWS, UPPER_BROW, LOWER_BROW, strict=True):
        assert set(brow) == {*upper, *lower}


def test_eyes_are_those_that_retargeting_keeps_the_irises_in() -> None:
    for eye, iris, (points, contour) in zip(EYES, topology.IRISES, (RIGHT_EYE, LEFT_EYE), strict=True):
        assert set(eye) == set(contour) and iris == points


def test_values_at_the_handles_stay_and_spread_evenly_between_them() -> None:
    # atol: a solve with 468 unknowns in float64
    np.testing.assert_allclose(topology.interpolation().sum(axis=1), 1.0, atol=1e-12)
    values = np.random.default_rng(0).normal(size=(468, 2))
    smooth = spread(values)
    np.testing.assert_array_equal(smooth[HANDLES], values[HANDLES])
    # tension keeps the swing beside a lone handle small; bending alone reaches 2.3
    assert np.abs(topology.interpolation()).max() < 1.5


def test_spread_values_are_symmetric() -> None:
    mirror = canonical_face().mirror
    values = np.random.default_rng(0).normal(size=(3, 468, 1))
    np.testing.assert_allclose(spread(values[:, mirror]), spread(values)[:, mirror], atol=1e-12)  # sums in other orders
