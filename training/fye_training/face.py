"""Drawn faces as motions: meshes in MediaPipe's topology, seen by the runtime's own camera.

The landmarks are exact. They are a `fye_rt.landmarks.motion.Motion`, which the runtime retargets and draws like a
video's.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fye_rt.landmarks.motion import MESH_POINTS, POINTS, Motion, neutral_frame
from fye_rt.landmarks.retarget import FOCAL_LENGTH, aligned_pose, project, retarget
from fye_rt.landmarks.rotation import euler_to_matrix
from fye_training.expressions import deform, irises
from fye_training.performance import FPS, Performance, resting
from fye_training.shape import Shape, neutral_mesh
from fye_training.topology import IRISES, Array

FACE_HEIGHT = 0.7  # from chin to the top of the forehead, in heights of the picture
FACE_CENTRE = 0.56  # from the top, in heights of the picture: leaves room for hair


@dataclass(frozen=True, slots=True)
class Placement:
    """A head's position in front of the camera.

    Attributes:
        translation: origin of the canonical frame in the camera's frame, centimetres: x right, y up, z < 0.
    """

    translation: tuple[float, float, float]


def placement(
    shape: Shape,
    size: tuple[int, int],
    seed: int | None = None,
    height: float = FACE_HEIGHT,
    centre: float = FACE_CENTRE,
) -> Placement:
    """The placement in which an identity fills its picture like a portrait.

    Args:
        shape: the identity.
        size: height and width of the picture in pixels.
        seed: seed that varies the distance by +-12 % and the position by +-6 % of the picture; None: no variation.
        height: the face's share of the picture's height (of its width in an upright picture).
        centre: the middle of the face, from the top, in heights of the picture.
    """
    mesh = neutral_mesh(shape)
    forehead, chin = mesh[10], mesh[152]
    distance, right, down = 1.0, 0.0, 0.0
    if seed is not None:
        generator = np.random.default_rng(seed)
        distance, right, down = 1.0 + generator.uniform(-1.0, 1.0, 3) * (0.12, 0.06, 0.06) - (0.0, 1.0, 1.0)
    part = height * min(1.0, size[1] / size[0]) / distance
    depth = FOCAL_LENGTH * (forehead[1] - chin[1]) / (2.0 * part)
    unit = 2.0 * depth / FOCAL_LENGTH  # the picture's height at the face, in centimetres
    middle = (forehead + chin) / 2.0
    return Placement(
        (right * unit * size[1] / size[0], (0.5 - centre - down) * unit - float(middle[1]), -depth - float(middle[2]))
    )


def motion(
    shape: Shape, performance: Performance, size: tuple[int, int], place: Placement | None = None, fps: float = FPS
) -> Motion:
    """An identity's performance as landmarks.

    Args:
        shape: the identity.
        performance: F frames.
        size: height and width of the picture in pixels.
        place: the head's placement; the default fills the picture.
        fps: frames per second.

    Returns:
        A motion of F frames, with x and y of `points` as `fye_rt.landmarks.retarget.project` gives them for `mesh`.

    Raises:
        InputError: the performance leads the face through the camera.
    """
    place = placement(shape, size) if place is None else place
    frames = len(performance)
    mesh = deform(shape, performance.weights)
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, :3, :3] = euler_to_matrix(performance.rotation)
    pose[:, :3, 3] = performance.translation + place.translation
    solid = np.concatenate((mesh, irises(shape, performance.weights)), axis=1)
    return Motion(
        points=_normalised(project(solid, pose, size), solid, pose, size),
        mesh=mesh,
        pose=pose,
        blendshapes=np.clip(performance.weights, 0.0, 1.0),
        times=np.arange(frames) / fps,
        fps=fps,
        source_size=size,
        valid=np.ones(frames, np.bool_),
    )


def transfer(shape: Shape, driving: Motion, size: tuple[int, int], place: Placement | None = None) -> Motion:
    """The motion of a real face on a drawn one, retargeted by the runtime.

    Args:
        shape: the identity.
        driving: F frames of the real face.
        size: height and width of the picture in pixels.
        place: the head's placement in the first frame; the default fills the picture.

    Returns:
        A motion of F frames, with x and y of `fye_rt.landmarks.retarget.retarget`.

    Raises:
        InputError: the motion leads the face through the camera.
    """
    portrait = motion(shape, resting(1), size, place)
    mesh = driving.mesh - driving.mesh[neutral_frame(driving)] + portrait.mesh[0]
    pose = aligned_pose(portrait, driving, driving.pose[0, :3, 3])
    solid = np.empty((len(driving), POINTS, 3))
    solid[:, :MESH_POINTS] = mesh
    for iris, (inner, outer) in zip(IRISES, ((133, 33), (362, 263)), strict=True):
        solid[:, iris] = (mesh[:, inner, None] + mesh[:, outer, None]) / 2.0  # for its depth alone
    return Motion(
        points=_normalised(retarget(portrait, driving, size), solid, pose, size),
        mesh=mesh,
        pose=pose,
        blendshapes=driving.blendshapes,
        times=driving.times,
        fps=driving.fps,
        source_size=size,
        valid=driving.valid,
    )


@lru_cache(maxsize=1)
def talking_head() -> Motion:
    """The motion of a real man talking in a moving car, 120 frames in four seconds.

    `fye landmarks` found it in the public test sequence "carphone"; its values are rounded to a pixel's precision.
    """
    return Motion.load(Path(__file__).with_name("talking_head.npz"))


def _normalised(pixels: Array, solid: Array, pose: Array, size: tuple[int, int]) -> Array:
    """Points (F, 478, 3) in Motion's units: z is 0 at the face's mean depth and grows away from the camera.

    Depth is scaled so that `fye_rt.landmarks.geometry.recover` recovers the same mesh.
    """
    height, width = size
    depth = -(np.einsum("fnc,fc->fn", solid, pose[:, 2, :3]) + pose[:, None, 2, 3])
    z = (depth / depth[:, :MESH_POINTS].mean(axis=1, keepdims=True) - 1.0) * FOCAL_LENGTH / (2.0 * width / height)
    return np.concatenate((pixels / (width, height), z[..., None]), axis=-1)
