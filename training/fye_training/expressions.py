"""Expressions of drawn faces: MediaPipe's 51 blendshapes as smooth deformations of the mesh."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from fye_training.shape import LIP_GAP, Shape, neutral_mesh, rest_mesh
from fye_training.topology import (
    CHEEKS,
    CHIN,
    EYES,
    FACE_OVAL,
    FOREHEAD,
    LOWER_BROW,
    LOWER_LID,
    LOWER_LIP_INNER,
    LOWER_LIP_OUTER,
    NOSE_WING,
    UPPER_BROW,
    UPPER_LID,
    UPPER_LIP_INNER,
    UPPER_LIP_OUTER,
    Array,
    Indices,
    canonical_face,
    spread,
)

# MediaPipe's order without "_neutral"; left is the person's left, at the picture's right
EXPRESSIONS: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
INDEX = {name: index for index, name in enumerate(EXPRESSIONS)}

EXAGGERATION = 1.5  # the largest weight of jaw, brows and mouth; the eyes' is 1
JAW_ANGLE = np.deg2rad(24.0)  # at weight 1: opens the canonical mouth by 4 cm
# below and behind the joint at the ears: a real jaw slides forward as it opens, so that the chin goes down, not back
JAW_HINGE = np.array((0.0, -2.5, -4.5))
GAZE_ANGLE = np.deg2rad((32.0, 24.0))  # sideways, up and down, at weight 1
EYEBALL_RADIUS = 0.49  # in widths of the eye
IRIS_RADIUS = 0.23

# Part of the eye's opening that the (upper, lower) lid closes at weight 1. Without the blink the parts sum to less
# than 1, so that lids never cross.
LIDS = {
    "eyeSquint": (0.12, 0.30),
    "cheekSquint": (0.0, 0.12),
    "mouthSmile": (0.0, 0.06),
    "eyeLookDown": (0.28, -0.06),
    "eyeLookUp": (-0.14, 0.0),
    "eyeWide": (-0.40, -0.15),
}
BLINK = (0.9, 0.1)

# All other expressions: sums of (field of `_fields`, displacement in centimetres: outwards or to the picture's right,
# up, forward). A name that EXPRESSIONS has with "Left" and "Right" is mirrored for the right.
Recipe = tuple[tuple[str, tuple[float, float, float]], ...]
RECIPES: dict[str, Recipe] = {
    "browDown": (("brow", (-0.12, -0.5, 0.0)), ("brow inner", (-0.15, -0.25, 0.1))),
    "browInnerUp": (("brow inner", (-0.1, 1.0, 0.0)), ("brow", (0.0, 0.1, 0.0))),
    "browOuterUp": (("brow outer", (0.05, 0.9, 0.0)), ("brow", (0.0, 0.15, 0.0))),
    "cheekPuff": (("cheek", (0.55, 0.0, 0.8)), ("width", (-0.15, 0.0, 0.1))),
    "cheekSquint": (("cheek", (0.0, 0.35, 0.15)),),
    "jawOpen": (("width", (-0.22, 0.0, 0.0)),),
    "mouthDimple": (("corner", (0.35, 0.1, -0.35)),),
    "mouthFrown": (("corner", (0.1, -0.85, -0.1)), ("lower side", (0.0, -0.1, 0.0))),
    "mouthFunnel": (
        ("width", (-0.8, 0.0, 0.55)),
        ("upper", (0.0, 0.4, 0.65)),
        ("lower", (0.0, -0.5, 0.65)),
        ("outer", (0.0, 0.0, -0.25)),
    ),
    "mouthLeft": (("all lips", (0.75, 0.0, 0.0)), ("corner", (0.0, 0.1, -0.2))),
    "mouthLowerDown": (("lower side", (0.05, -0.6, 0.0)),),
    "mouthPress": (("upper outer side", (0.0, -0.16, -0.12)), ("lower outer side", (0.0, 0.2, -0.12))),
    "mouthPucker": (("width", (-1.15, 0.0, 0.7)), ("upper", (0.0, 0.0, 0.9)), ("lower", (0.0, 0.0, 0.9))),
    "mouthRollLower": (("lower outer", (0.0, 0.38, -0.35)), ("lower", (0.0, 0.06, -0.2))),
    "mouthRollUpper": (("upper outer", (0.0, -0.26, -0.35)), ("upper", (0.0, -0.06, -0.2))),
    "mouthShrugLower": (("lower", (0.0, 0.35, 0.2)), ("upper", (0.0, 0.3, 0.1)), ("chin", (0.0, 0.3, 0.2))),
    "mouthShrugUpper": (("upper", (0.0, 0.3, 0.2)), ("lower", (0.0, 0.2, 0.1))),
    "mouthSmile": (("corner", (0.85, 0.95, -0.45)), ("cheek", (0.12, 0.3, 0.25)), ("upper side", (0.0, 0.05, -0.1))),
    "mouthStretch": (("corner", (0.8, -0.3, -0.4)), ("lower side", (0.0, -0.15, -0.05))),
    "mouthUpperUp": (("upper side", (0.0, 0.5, 0.05)), ("cheek", (0.0, 0.12, 0.05)), ("nose wing", (0.03, 0.1, 0.0))),
    "noseSneer": (
        ("nose wing", (0.08, 0.45, 0.05)),
        ("upper side", (0.0, 0.25, 0.0)),
        ("brow inner", (-0.1, -0.15, 0.0)),
        ("cheek", (-0.05, 0.15, 0.1)),
    ),
}


def deform(shape: Shape, weights: Array) -> Array:
    """Meshes of an identity's expressions.

    Args:
        shape: the identity.
        weights: (F, 51) in the order of EXPRESSIONS, clipped to [0, 1.5] for jaw, mouth and brows, to [0, 1] for the
            eyes. eyeLook* also moves the lids; `irises` moves the irises.

    Returns:
        float64 (F, 468, 3), centimetres; exactly `neutral_mesh(shape)` where all weights are 0.
    """
    weights = _balanced(np.asarray(weights, np.float64))
    neutral = neutral_mesh(shape)
    rows = np.concatenate((weights, _lid_closing(weights)), axis=1)
    displacement = (rows @ _basis(shape)).reshape(len(rows), *neutral.shape)
    jaw, shut = _jaw_weights()
    follows = weights[:, [INDEX["jawOpen"], INDEX["mouthClose"]]] @ np.stack((jaw, shut - jaw))
    angle = JAW_ANGLE * follows
    # about the hinge, in the plane of y and z: cos - 1 is exactly 0 at rest
    y, z = np.moveaxis((neutral + displacement - JAW_HINGE)[..., 1:], -1, 0)
    sine, cosine = np.sin(angle), np.cos(angle) - 1.0
    displacement[..., 1] += cosine * y - sine * z
    displacement[..., 2] += sine * y + cosine * z
    sideways = weights[:, INDEX["jawLeft"]] - weights[:, INDEX["jawRight"]]
    displacement[..., 0] += 0.8 * sideways[:, None] * jaw
    displacement[..., 2] += 0.7 * weights[:, INDEX["jawForward"], None] * jaw
    _part_lips(neutral, displacement)
    return neutral + displacement


def irises(shape: Shape, weights: Array) -> Array:
    """Iris points float64 (F, 10, 3) in centimetres: centre, picture's right, top, left, bottom; right eye first."""
    weights = np.clip(weights, 0.0, 1.0)
    result = np.empty((len(weights), 10, 3))
    neutral = neutral_mesh(shape)
    for eye, (side, outward) in enumerate((("Right", -1.0), ("Left", 1.0))):
        look = {way: weights[:, INDEX[f"eyeLook{way}{side}"]] for way in ("In", "Out", "Up", "Down")}
        yaw = outward * GAZE_ANGLE[0] * (look["Out"] - look["In"])
        pitch = GAZE_ANGLE[1] * (look["Up"] - look["Down"])
        centre, width = eyeball(neutral, eye)
        forward = np.stack((np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)), axis=-1)
        right = np.stack((np.cos(yaw), np.zeros_like(yaw), -np.sin(yaw)), axis=-1)
        up = np.cross(forward, right)
        middle = centre + EYEBALL_RADIUS * width * forward
        radius = IRIS_RADIUS * width
        result[:, 5 * eye] = middle
        for point, offset in enumerate((right, up, -right, -up), start=1):
            result[:, 5 * eye + point] = middle + radius * offset
    return result


def eyeball(neutral: Array, eye: int) -> tuple[Array, float]:
    """Centre of an eyeball, (3,), and the eye's width; the ball's radius is EYEBALL_RADIUS widths.

    Args:
        neutral: (468, 3), centimetres.
        eye: 0 for the right eye, 1 for the left eye.
    """
    contour = neutral[EYES[eye]]
    low, high = contour.min(axis=0), contour.max(axis=0)
    width = float(high[0] - low[0])
    centre: Array = (low + high) / 2.0
    centre[2] = contour[:, 2].mean() + 0.12 * width - EYEBALL_RADIUS * width
    return centre, width


def _balanced(weights: Array) -> Array:
    """Clip the weights, and limit the sum of those that pull the same way."""
    weights = np.clip(weights, 0.0, EXAGGERATION)
    eyes = [index for name, index in INDEX.items() if name.startswith(("eye", "cheekSquint"))]
    weights[:, eyes] = np.minimum(weights[:, eyes], 1.0)

    def limit(names: tuple[str, ...], most: float) -> None:
        columns = [INDEX[name] for name in names]
        weights[:, columns] *= (most / np.maximum(weights[:, columns].sum(axis=1), most))[:, None]

    limit(("mouthPucker", "mouthFunnel"), 1.3)
    limit(("mouthLeft", "mouthRight"), 1.2)
    for side in ("Left", "Right"):
        limit((f"mouthSmile{side}", f"mouthStretch{side}", f"mouthDimple{side}"), EXAGGERATION)
    # mouthClose closes the lips that jawOpen parts; more than jawOpen has no meaning
    weights[:, INDEX["mouthClose"]] = np.minimum(weights[:, INDEX["mouthClose"]], weights[:, INDEX["jawOpen"]])
    return weights


def _lid_closing(weights: Array) -> Array:
    """Part of the eyes (F, 4) that the upper and lower lid close, left then right; a blink overrides the rest."""
    columns = []
    for side in ("Left", "Right"):
        blink = weights[:, INDEX[f"eyeBlink{side}"]]
        for lid in range(2):
            rest = sum(weights[:, INDEX[name + side]] * closing[lid] for name, closing in LIDS.items())
            columns.append(blink * BLINK[lid] + (1.0 - blink) * rest)
    return np.stack(columns, axis=1)


def _part_lips(neutral: Array, displacement: Array) -> None:
    """Move crossing lips apart in place, each by half."""
    upper, lower = UPPER_LIP_INNER[1:-1], LOWER_LIP_INNER[1:-1]
    rest = neutral[upper, 1] - neutral[lower, 1]
    gap = rest + displacement[:, upper, 1] - displacement[:, lower, 1]
    shift = np.maximum(np.minimum(LIP_GAP, rest) - gap, 0.0) / 2.0
    frames = np.flatnonzero(shift.any(axis=1))
    if frames.size:
        displacement[frames, :, 1] += shift[frames] @ _lip_parting().T


@lru_cache(maxsize=1)
def _lip_parting() -> Array:
    """Weights (468, 9) that move the lips with the inner lips' points, one column for each point's shift up or down."""
    values = np.zeros((468, 9))
    for sign, inner, outer in ((1.0, UPPER_LIP_INNER, UPPER_LIP_OUTER), (-1.0, LOWER_LIP_INNER, LOWER_LIP_OUTER)):
        for column in range(9):
            values[inner[column + 1], column] = sign
            values[outer[column + 1], column] = 0.7 * sign
    return spread(values)


@lru_cache(maxsize=1)
def _jaw_weights() -> Array:
    """Share of the jaw's motion that each point follows, (2, 468) in [-0.06, 1]: lips apart, and lips together."""
    mesh = rest_mesh()
    values = np.zeros((468, 2))
    for upper, lower in ((UPPER_LIP_INNER, LOWER_LIP_INNER), (UPPER_LIP_OUTER, LOWER_LIP_OUTER)):
        for points, middle in ((upper, -0.06), (lower, 1.0)):
            to_corner = 1.0 - np.abs(mesh[points, 0] / mesh[points[-1], 0])
            values[points, 0] = 0.38 + (middle - 0.38) * np.sin(np.minimum(to_corner / 0.75, 1.0) * np.pi / 2.0)
        values[upper, 1] = values[lower, 1] = 0.7 * values[upper, 0] + 0.3 * values[lower, 0]
    values[CHIN] = 1.0
    drop = np.clip((1.5 - mesh[FACE_OVAL, 1]) / 8.5, 0.0, 1.0)
    values[FACE_OVAL] = (drop * drop * (3.0 - 2.0 * drop))[:, None]
    for near_lips in CHEEKS:
        values[near_lips] = np.array((0.22, 0.0, 0.0, 0.4))[:, None]
    weights = np.ascontiguousarray(np.clip(spread(values), -0.06, 1.0).T)
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=1024)
def _basis(shape: Shape) -> Array:
    """Displacements (51 + 4, 468 * 3): of each expression at weight 1, then of each lid that fully closes its eye."""
    neutral, rest, mirror = neutral_mesh(shape), rest_mesh(), canonical_face().mirror
    fields = _fields()
    wide = neutral[291, 0] / rest[291, 0]
    eye = (neutral[263, 0] - neutral[362, 0]) / (rest[263, 0] - rest[362, 0])
    raised = (neutral[282, 1] - neutral[386, 1]) / (rest[282, 1] - rest[386, 1])
    values = np.zeros((len(EXPRESSIONS) + 4, 468, 3))
    for name, sides in _sides():
        for field, vector in RECIPES[name]:
            scale = np.array(vector)
            if field.startswith("brow"):
                # keeps low brows out of the eyes
                scale = scale * (np.sqrt(eye) if vector[1] > 0 else np.clip(raised, 0.2, 1.5))
            else:
                scale = scale * (wide, np.sqrt(wide), np.sqrt(wide))
            displacement = fields[field][:, None] * scale
            for expression, mirrored in sides:
                values[expression] += displacement[mirror] * (-1.0, 1.0, 1.0) if mirrored else displacement
    for row, (upper, lower) in enumerate(((UPPER_LID[1], LOWER_LID[1]), (UPPER_LID[0], LOWER_LID[0]))):
        opening = neutral[upper] - neutral[lower]
        values[-4 + 2 * row, upper] = -opening
        values[-3 + 2 * row, lower] = opening
    return spread(values).reshape(len(values), -1)


def _sides() -> Iterator[tuple[str, tuple[tuple[int, bool], ...]]]:
    """Each recipe's name, with its expressions and whether they use its mirror image."""
    for name in RECIPES:
        if name + "Left" in INDEX:
            yield name, ((INDEX[name + "Left"], False), (INDEX[name + "Right"], True))
        elif name.endswith("Left"):
            yield name, ((INDEX[name], False), (INDEX[name.removesuffix("Left") + "Right"], True))
        else:
            yield name, ((INDEX[name], False), (INDEX[name], True))


@lru_cache(maxsize=1)
def _fields() -> dict[str, Array]:
    """Fields float64 (468,) of the left half of the face, set at the handles ("all lips" covers both halves).

    A field and its mirror image add up to the field of the whole face.
    """
    mesh = rest_mesh()
    fields: dict[str, Array] = {}

    def add(name: str, points: Indices, values: Array | float) -> None:
        fields.setdefault(name, np.zeros(468))[points] = values

    for rim in (UPPER_LIP_INNER, LOWER_LIP_INNER, UPPER_LIP_OUTER, LOWER_LIP_OUTER):
        u = mesh[rim, 0] / mesh[rim[-1], 0]  # -1 and 1 at the corners
        left = np.clip(u, 0.0, 1.0)
        half = np.where(u == 0.0, 0.5, u > 0.0)
        lip = "upper" if rim is UPPER_LIP_INNER or rim is UPPER_LIP_OUTER else "lower"
        middle = np.sqrt(1.0 - np.square(u) + 1e-12)
        side = np.clip(1.0 - np.square((u - 0.42) / 0.58), 0.0, 1.0) * (np.abs(u) < 1.0)
        add("corner", rim, np.square(left))
        add("width", rim, left)
        add("all lips", rim, 1.0)
        add(lip, rim, half * middle)
        add(f"{lip} side", rim, side)
        if rim is UPPER_LIP_OUTER or rim is LOWER_LIP_OUTER:
            add("outer", rim, half * middle)
            add(f"{lip} outer", rim, half * middle)
            add(f"{lip} outer side", rim, side)
    add("corner", CHEEKS[1], (0.45, 0.15, 0.05, 0.6))
    add("width", CHEEKS[1], (0.2, 0.05, 0.0, 0.25))
    add("all lips", np.concatenate(CHEEKS), (0.3, 0.0, 0.0, 0.35, 0.3, 0.0, 0.0, 0.35))
    add("cheek", CHEEKS[1], (0.7, 1.0, 0.8, 0.6))
    add("chin", CHIN, 0.5)
    add("nose wing", NOSE_WING, (1.0, 1.0, 0.8, 0.8, 0.7, 0.3))
    brows = np.concatenate((UPPER_BROW[1], LOWER_BROW[1]))
    forehead = FOREHEAD[mesh[FOREHEAD, 0] >= 0.0]
    for points, share in ((brows, 1.0), (forehead, 0.35)):
        t = np.clip((mesh[points, 0] - 1.2) / 4.0, 0.0, 1.0)  # 0 at the inner end, 1 at the outer one
        half = np.where(mesh[points, 0] == 0.0, 0.5, 1.0) * share
        add("brow", points, half)
        add("brow inner", points, half * np.square(np.cos(np.clip(t / 0.75, 0.0, 1.0) * np.pi / 2.0)))
        add("brow outer", points, half * np.sin(np.clip((t - 0.1) / 0.65, 0.0, 1.15) * np.pi / 2.0))
    return fields
