"""Landmarks of a face that no detector finds, as in a drawing or an animal: made of a few named points."""

import os
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.detect import find_landmarker
from fye_rt.landmarks.fit import fit, unproject
from fye_rt.landmarks.geometry import FaceGeometry, load_geometry
from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE
from fye_rt.landmarks.motion import BLENDSHAPES, POINTS, Motion
from fye_rt.landmarks.points_file import VERTICES, NamedPoints, read_points
from fye_rt.landmarks.retarget import project
from fye_rt.media import kind_of

Array = NDArray[np.float64]

EYES = {"right": RIGHT_EYE, "left": LEFT_EYE}
IRIS = 0.23  # of the eye's width: radius of a human iris
PUPIL_BESIDE = 0.25  # of the eye's width: how far the middle of an iris may be behind a lid

# each from the picture's left to its right, and from above to below, in a face that looks at you upright
_ACROSS = (
    ("right_eye_outer", "right_eye_inner", "left_eye_inner", "left_eye_outer"),
    ("mouth_right", "mouth_left"),
    ("right_brow_outer", "right_brow_middle", "right_brow_inner", "left_brow_inner", "left_brow_middle"),
    ("left_brow_middle", "left_brow_outer"),
    ("right_nostril", "left_nostril"),
    ("right_side", "left_side"),
)
_DOWN = (
    ("right_eye_upper", "right_eye_lower"),
    ("left_eye_upper", "left_eye_lower"),
    ("upper_lip", "upper_lip_inner", "lower_lip_inner", "lower_lip"),
    ("forehead", "nose_tip", "chin"),
)


def is_points_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is JSON or CSV, by its content, or else by its name.

    Raises:
        InputError: as `fye_rt.media.checks.check_file`.
    """
    return kind_of(path) == "points"


def load_points(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    landmarker: str | os.PathLike[str] | None = None,
) -> Motion:
    """Make the landmarks of a face of a few named points in a JSON or CSV file.

    Args:
        path: JSON {name: [x, y], ...}, or {"points": {name: [x, y], ...}}, with an optional "size": [height, width] of
            the picture in pixels, and "sides": "picture" if right and left in the names are the picture's, not the
            face's own; or CSV of name, x, y. x and y are pixels from the left and upper border.
        size: height and width of the picture in pixels; None: those in the file. If the file has others of the same
            shape, the points are scaled.
        landmarker: MediaPipe's model file, which contains the mesh to be fitted; None: as `find_landmarker`.

    Returns:
        A motion of one frame. Its mesh under its pose projects to the points; blendshapes are zero, so the face counts
        as at rest.

    Raises:
        InputError: a file that is missing, too large, or neither; a name that is unknown, missing or there twice; a
            point that is no number, outside the picture, or on the wrong side of another; no size; points that fold
            the mesh; no landmarker.
    """
    named = read_points(path)
    if size is None and named.size is None:
        raise InputError(
            f'{path} does not say how large its picture is; as JSON, add "size": [height, width], or give it as '
            "portrait_landmarks if it shows the portrait's face"
        )
    named = named.scaled(size or named.size or (0, 0))
    return fit_points(named, load_geometry(find_landmarker(landmarker)))


def fit_points(named: NamedPoints, geometry: FaceGeometry) -> Motion:
    """Fit the canonical face to points of a picture of known size: as `load_points`.

    Raises:
        InputError: the points are on wrong sides of each other, or fold the mesh.
    """
    if named.size is None:
        raise InputError(f"{named.source} does not say how large its picture is; give its size")
    if not len(geometry.triangles):
        raise InputError("the landmarker contains no triangles of the face; run: fye doctor --get landmarker")
    height, width = named.size
    _check_order(named)
    pixels = {VERTICES[name]: point for name, point in named.points.items() if name in VERTICES}
    result = fit(geometry, pixels, named.size)
    if len(result.folded):
        names = [name for name in named.points if name in VERTICES]
        near = _near(geometry.mesh, result.folded, names)
        astray = next(name for name in names if VERTICES[name] == result.astray)
        raise InputError(
            f"{named.source}: the points fold the face's mesh near {' and '.join(near)}; correct {astray}, which "
            "does not fit the others, or those"
        )
    points = np.empty((POINTS, 3))
    points[: len(result.mesh), :2] = project(result.mesh[None], result.pose[None], named.size)[0]
    depth = result.mesh @ result.pose[2, :3] + result.pose[2, 3]
    # MediaPipe's z is in units of the picture's width where the middle of the face is, as geometry.recover reads it
    across = unproject(np.array([(0.0, 0.0), (width, 0.0)]), np.full(2, depth.mean()), named.size)
    points[: len(result.mesh), 2] = (depth.mean() - depth) / np.ptp(across[:, 0])
    for side, (iris, contour) in EYES.items():
        points[iris, :2] = _iris(named, side)
        points[iris, 2] = points[list(contour), 2].mean()
    points[:, :2] /= (width, height)
    return Motion(
        points=points[None],
        mesh=result.mesh[None],
        pose=result.pose[None],
        blendshapes=np.zeros((1, BLENDSHAPES)),
        times=np.zeros(1),
        fps=1.0,
        source_size=named.size,
        valid=np.ones(1, np.bool_),
    )


def _check_order(named: NamedPoints) -> None:
    """Refuse points on wrong sides of each other, as exchanged names leave them."""
    points = {name: np.array(point) for name, point in named.points.items()}
    right, left, mouth = (
        (points[a] + points[b]) / 2.0
        for a, b in (
            ("right_eye_outer", "right_eye_inner"),
            ("left_eye_inner", "left_eye_outer"),
            ("mouth_right", "mouth_left"),
        )
    )
    across = left - right
    down = np.array((-across[1], across[0]))
    upright = (mouth - (right + left) / 2.0) @ down > 0.0
    if across[0] < 0.0 and not upright:
        raise InputError(
            f"{named.source}: right and left seem exchanged; right is the face's own right, at the left of the picture "
            'if the face looks at you: exchange the names, or add "sides": "picture" to the JSON'
        )
    if across[0] < 0.0 or not upright:
        raise InputError(
            f"{named.source}: the mouth is above the eyes; turn the picture upright, or correct the points"
        )
    for chains, axis, where, least in ((_ACROSS, across, "left of", 0.0), (_DOWN, down, "above", -1e-9)):
        for chain in chains:
            present = [name for name in chain if name in points]
            for first, second in pairwise(present):
                if (points[second] - points[first]) @ axis <= least:
                    raise InputError(
                        f"{named.source}: {first} is not {where} {second}, as the face is seen upright; correct them, "
                        "or exchange them"
                    )
    for side in EYES:
        if f"{side}_pupil" in points:
            centre, u, v = _eye(named, side)
            x, y = (np.linalg.solve(np.column_stack((u, v)), points[f"{side}_pupil"] - centre)).tolist()
            lids = [np.linalg.norm(points[f"{side}_eye_{lid}"] - centre) for lid in ("upper", "lower")]
            high = max(lids) / np.linalg.norm(u) + PUPIL_BESIDE
            if abs(x) > 0.5 or abs(y) > high:
                raise InputError(f"{named.source}: {side}_pupil is outside the {side} eye; correct it, or remove it")


def _eye(named: NamedPoints, side: str) -> tuple[Array, Array, Array]:
    """Return the middle of an eye's four points, its width to the picture's right, and as much down: each (2,)."""
    ends = ("outer", "inner") if side == "right" else ("inner", "outer")
    start, end, *lids = (np.array(named.points[f"{side}_eye_{part}"]) for part in (*ends, "upper", "lower"))
    width = end - start
    return (start + end + sum(lids)) / 4.0, width, np.array((-width[1], width[0]))


def _iris(named: NamedPoints, side: str) -> Array:
    """Return the five points of an iris in pixels, (5, 2): in the middle of the eye unless the pupil is named."""
    centre, u, v = _eye(named, side)
    centre = np.array(named.points.get(f"{side}_pupil", centre))
    return centre + IRIS * np.array((0.0 * u, u, -v, -u, v))


def _near(mesh: Array, folded: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Return the two named points that are closest to folded triangles (K, 3)."""
    corners = mesh[np.unique(folded), :2]
    distance = {name: np.linalg.norm(corners - mesh[VERTICES[name], :2], axis=1).min() for name in names}
    return sorted(names, key=lambda name: distance[name])[:2]
