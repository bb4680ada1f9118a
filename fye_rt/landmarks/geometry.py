"""Recover the metric face mesh and the head pose from MediaPipe's normalised landmarks.

MediaPipe's tasks API returns landmarks and a pose matrix but no metric mesh. This module is its face geometry
pipeline in float64: a pinhole camera, two passes of scale estimation, and a weighted orthogonal Procrustes fit of the
canonical face (in centimetres) onto the observed one. face_landmarker.task contains the canonical face and the weights.
"""

import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.motion import MESH_POINTS

VERTICAL_FOV = math.radians(63.0)
NEAR = 1.0
FAR = 10000.0
METADATA_NAME = "geometry_pipeline_metadata_landmarks.binarypb"
MAX_METADATA_BYTES = 1 << 20  # MediaPipe's file has 19 kB
VERTEX_FLOATS = 5  # x, y, z, u, v

Array = NDArray[np.float64]
Face = tuple[Array, Array]  # points (478, 3), blendshapes (51,)

_RIGHT_EYE, _LEFT_EYE = (33, 133), (362, 263)  # outer and inner corner; right and left of the person
_MOUTH = (61, 291)  # corners


def _no_triangles() -> NDArray[np.int64]:
    return np.empty((0, 3), np.int64)


@dataclass(frozen=True, slots=True)
class FaceGeometry:
    """The canonical face, which is fitted onto observed ones.

    Attributes:
        mesh: float64 (468, 3), centimetres; x to the right, y up, z towards the camera.
        weights: float64 (468,), Procrustes weights; zero for points that do not take part.
        triangles: int64 (T, 3), vertices of the mesh's triangles, counter-clockwise as seen by the camera.
    """

    mesh: Array
    weights: Array
    triangles: NDArray[np.int64] = field(default_factory=_no_triangles)


def face_box(points: Array, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the box around the landmarks of one face, in pixels: left, top, width, height.

    Args:
        points: float64 (478, >= 2), x and y in units of the picture's width and height.
        size: height and width of the picture in pixels.
    """
    pixels = points[:, :2] * (size[1], size[0])
    (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def face_angle(points: Array, size: tuple[int, int]) -> float:
    """Return the tilt of one face in the picture's plane: the angle of the axis from the eyes to the mouth.

    Args:
        points: float64 (478, >= 2), x and y in units of the picture's width and height.
        size: height and width of the picture in pixels.

    Returns:
        Degrees from -180 to 180: 0 for an upright face, 90 if the top of the head points to the picture's right.
    """
    pixels = points[:, :2] * (size[1], size[0])
    x, y = pixels[list(_MOUTH)].mean(axis=0) - pixels[[*_RIGHT_EYE, *_LEFT_EYE]].mean(axis=0)
    return math.degrees(math.atan2(-x, y))


def misfit(points: Array, size: tuple[int, int], geometry: FaceGeometry) -> float:
    """Return the mean distance of one face's mesh from the canonical face, in centimetres.

    It is 0.2 to 0.6 for people who look, tilt their heads and talk, and 0.67 to 2.4 for landmarks on a face that the
    detector took for upright although it is upside down.
    """
    left, top, width, height = face_box(points, size)
    side = 2.5 * max(width, height)  # the face in the middle of a square, so that its place and size do not matter
    centred = points * (size[1], size[0], size[1]) - (left + width / 2, top + height / 2, 0.0)
    mesh, _ = recover((centred / max(side, 1e-9) + (0.5, 0.5, 0.0))[None], (1, 1), geometry)
    return float(np.linalg.norm(mesh[0] - geometry.mesh, axis=1).mean())


def load_geometry(landmarker: Path) -> FaceGeometry:
    """Read the canonical face from MediaPipe's model file.

    Raises:
        InputError: `landmarker` is missing or is not a face_landmarker.task.
    """
    try:
        with zipfile.ZipFile(landmarker) as archive:
            info = archive.getinfo(METADATA_NAME)
            if info.file_size > MAX_METADATA_BYTES:
                raise ValueError(f"{METADATA_NAME} has {info.file_size} bytes, limit {MAX_METADATA_BYTES}")
            with archive.open(info) as stream:
                return _parse_metadata(stream.read(info.file_size + 1))  # so that zipfile compares the checksum
    except FileNotFoundError as error:
        raise InputError(f"{landmarker}: no such file; run: fye doctor --get landmarker") from error
    except Exception as error:  # zipfile and zlib raise a dozen kinds on damaged bytes
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{landmarker} is not MediaPipe's face_landmarker.task ({reason}); run: fye doctor --get landmarker"
        ) from error


def recover(points: Array, size: tuple[int, int], geometry: FaceGeometry) -> tuple[Array, Array]:
    """Recover the metric mesh and the pose of faces seen by MediaPipe's default camera.

    Args:
        points: float64 (F, >= 468, 3), x and y in units of the image's width and height (y down), z in units
            of the width.
        size: height and width of the image, in pixels.
        geometry: the canonical face.

    Returns:
        mesh: float64 (F, 468, 3), centimetres, in the canonical face's frame.
        pose: float64 (F, 4, 4), canonical frame to camera frame, as MediaPipe's facial transformation matrix.
    """
    height, width = size
    near_height = 2.0 * NEAR * math.tan(VERTICAL_FOV / 2.0)
    near_width = near_height * width / height
    normalised = np.asarray(points, np.float64)[:, :MESH_POINTS]
    x = (normalised[..., 0] - 0.5) * near_width
    y = (0.5 - normalised[..., 1]) * near_height
    z = normalised[..., 2] * near_width
    depth = z - z.mean(axis=1, keepdims=True) + NEAR

    def unproject(scale: Array) -> Array:
        distance = depth / scale[:, None]
        return np.stack((x * distance / NEAR, y * distance / NEAR, -distance), axis=-1)

    # Pass 1 takes the scale from the flat picture; pass 2 corrects it with the perspective that scale implies.
    first = _similarity(geometry, np.stack((x, y, -z), axis=-1))[0]
    second = _similarity(geometry, unproject(first))[0]
    seen = unproject(first * second)
    scale, rotation, translation = _similarity(geometry, seen)
    pose = np.zeros((len(seen), 4, 4))
    pose[:, :3, :3] = scale[:, None, None] * rotation
    pose[:, :3, 3] = translation
    pose[:, 3, 3] = 1.0
    inverse = np.linalg.inv(pose)
    mesh = seen @ inverse[:, :3, :3].transpose(0, 2, 1) + inverse[:, None, :3, 3]
    return mesh, pose


def _similarity(geometry: FaceGeometry, targets: Array) -> tuple[Array, Array, Array]:
    """Fit the canonical face onto targets (F, 468, 3): scale (F,), rotation (F, 3, 3) and translation (F, 3).

    Weighted extended orthogonal Procrustes analysis: D. Akca, "Generalized Procrustes analysis and its
    applications in photogrammetry", 2003, section 2.
    """
    weights = geometry.weights / geometry.weights.sum()
    source_centre = weights @ geometry.mesh
    target_centre = np.einsum("n,fnc->fc", weights, targets)
    sources = geometry.mesh - source_centre
    covariance = np.einsum("n,fni,nj->fij", weights, targets - target_centre[:, None], sources)
    left, _, right = np.linalg.svd(covariance)
    mirrored = np.linalg.det(left) * np.linalg.det(right) < 0
    left[mirrored, :, 2] *= -1.0  # a face may turn but not be reflected
    rotation = left @ right
    scale = np.einsum("fij,fij->f", rotation, covariance) / (weights @ np.square(sources).sum(axis=1))
    translation = target_centre - scale[:, None] * (rotation @ source_centre)
    return scale, rotation, translation


def _parse_metadata(data: bytes) -> FaceGeometry:
    """Parse a face_geometry.GeometryPipelineMetadata: 1 = canonical mesh, 2 = weighted landmark (repeated)."""
    mesh = np.empty(0)
    weights = np.zeros(MESH_POINTS)
    corners: list[int] = []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            # Mesh3d: 3 = vertex buffer, one float per field or packed; 4 = index buffer, one varint per field
            parts = list(_fields(value))
            floats = b"".join(part for inner, part in parts if inner == 3 and isinstance(part, bytes))
            mesh = np.frombuffer(floats, "<f4").astype(np.float64)
            corners = [part for inner, part in parts if inner == 4 and isinstance(part, int)]
        elif number == 2 and isinstance(value, bytes):
            landmark = dict(_fields(value))
            index, weight = landmark.get(1), landmark.get(2)
            if not isinstance(index, int) or not isinstance(weight, bytes) or index >= MESH_POINTS:
                raise ValueError("a Procrustes landmark is incomplete")
            weights[index] = struct.unpack("<f", weight)[0]
    if mesh.size != MESH_POINTS * VERTEX_FLOATS or not (np.isfinite(mesh).all() and weights.any()):
        raise ValueError(f"its canonical mesh does not have {MESH_POINTS} vertices")
    if len(corners) % 3 or not all(corner < MESH_POINTS for corner in corners):
        raise ValueError("a triangle of its canonical mesh has no such vertex")
    triangles = np.array(corners, np.int64).reshape(-1, 3)
    return FaceGeometry(mesh.reshape(MESH_POINTS, VERTEX_FLOATS)[:, :3].copy(), weights, triangles)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) for each field of a protocol buffer message: varints as int, all else as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise ValueError("damaged protocol buffer")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        length = varint() if kind == 2 else {1: 8, 5: 4}.get(kind, -1)
        if length < 0 or at + length > len(data):
            raise ValueError("damaged protocol buffer")
        at += length
        yield key >> 3, data[at - length : at]
