"""The head's shaded surface, ears and neck, and wrinkles and freckles."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fye_training.drawing.canvas import Discs, Fill, Hull, Inside, Mark, Paint, Points, Stroke, unit_circle
from fye_training.drawing.character import Identity
from fye_training.drawing.colour import darker, mix
from fye_training.drawing.features import SIDES, SIGNS
from fye_training.drawing.shading import Shading, normals
from fye_training.drawing.view import Array, View, curve, sphere, tube
from fye_training.topology import NOSE, canonical_face

SKULL_POINTS = 700


def ramp(identity: Identity, brightness: Array, base: Array, shade: Array, glow: Array) -> Array:
    """Colours of a surface for its cosine to the light, `brightness`; identity.hardness hardens the shadows."""
    soft = np.clip(0.5 + 0.62 * brightness, 0.0, 1.0)
    edge = np.clip((brightness + 0.02) / 0.22, 0.0, 1.0)
    hard = edge * edge * (3.0 - 2.0 * edge)
    lit = (soft + (hard - soft) * identity.hardness)[..., None]
    shine = (identity.gloss * np.clip(brightness - 0.72, 0.0, 1.0) * 2.2)[..., None]
    dark = base + (shade - base) * identity.contrast
    colours: Array = dark + (base - dark) * lit
    return colours + (glow - colours) * np.minimum(shine, 0.8)


def surface(identity: Identity, view: View, tint: Array, crown: Array) -> Shading:
    """Shading of the face and the skull behind it.

    Args:
        identity: the character.
        view: the frames.
        tint: (468, 3), the face's colour in full light at each point.
        crown: (3,), the skull's colour in full light.
    """
    directions = _bare_skull()
    rotation = view.pose[:, :3, :3]
    light = np.einsum("fij,i->fj", rotation, np.array(identity.light))
    face_normals = normals(view.mesh)
    to_camera = view.camera[:, None] - view.mesh
    to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
    facing = (face_normals * to_camera).sum(axis=-1)
    skull_facing = view.facing(directions)
    skull_normals = directions / view.skull.radii
    skull_normals /= np.linalg.norm(skull_normals, axis=-1, keepdims=True)
    # leaves out skull points behind the face's mesh, which would blur the face
    behind = view.skull.points(directions)
    beside = np.clip((view.skull.centre[2] + 1.0 - behind[:, 2]) / 2.0, 0.0, 1.0)
    above = np.clip((behind[:, 1] - view.neutral[10, 1] + 0.5) / 1.0, 0.0, 1.0)
    outside = np.maximum(beside, above)
    brightness = np.concatenate(
        (np.einsum("fnc,fc->fn", face_normals, light) @ _smoothing(), np.einsum("nc,fc->fn", skull_normals, light)),
        axis=1,
    )
    base = np.concatenate((tint, np.broadcast_to(crown, directions.shape)))
    shade, glow = np.array(identity.shade, float), np.array(identity.glow, float)
    # tints remain visible in the shadow
    shadow = base * (shade / np.maximum(np.array(identity.skin, float), 8.0))
    colours = ramp(identity, brightness, base, np.clip(shadow, 0.0, 255.0), glow)
    weights = np.concatenate((np.clip(facing, 0.0, 1.0), 4.0 * np.clip(skull_facing, 0.0, 1.0) * outside), axis=1)
    points = np.concatenate((view.points[:, :468], view.head(behind)), axis=1)
    return Shading(points, colours, weights, 0.42 * view.cm, view.size, np.array(identity.skin, float))


@lru_cache(maxsize=1)
def _smoothing() -> Array:
    """Weights (468, 468) that average over a point's neighbourhood, for smooth edges of shadows."""
    mesh = canonical_face().mesh
    weights = np.exp(-np.square(mesh[:, None] - mesh).sum(axis=-1) / 0.6)
    return weights / weights.sum(axis=0)


@lru_cache(maxsize=1)
def _bare_skull() -> Array:
    """Directions (n, 3) to the parts of the skull that no face covers: the back and the top."""
    directions = sphere(SKULL_POINTS)
    return directions[(directions[:, 1] > -0.2) & ((directions[:, 2] < 0.15) | (directions[:, 1] > 0.5))]


def complexion(identity: Identity) -> Array:
    """Tint (468, 3) of a person's face: blush, darker eye sockets, stubble."""
    x, y, _ = canonical_face().mesh.T
    tint = np.tile(np.array(identity.skin, float), (468, 1))

    def wash(colour: tuple[int, int, int], strength: Array) -> None:
        tint[:] += (np.array(colour, float) - tint) * strength[:, None]

    side = np.abs(x)
    wash(identity.blush, 0.55 * np.exp(-(((side - 4.3) / 1.9) ** 2 + ((y + 0.6) / 1.5) ** 2)))
    wash(identity.blush, 0.35 * np.exp(-((x / 1.6) ** 2 + ((y + 1.0) / 1.2) ** 2)))
    socket = np.exp(-(((side - 3.2) / 2.0) ** 2 + ((y - 2.9) / 0.9) ** 2))
    wash(identity.shade, 0.30 * socket)
    wash(identity.shade, 0.35 * np.exp(-((x / 1.3) ** 2 + ((y + 2.5) / 0.45) ** 2)))
    wash(identity.shade, 0.30 * np.exp(-((x / 1.8) ** 2 + ((y + 6.4) / 0.5) ** 2)))
    if identity.beard == "stubble":
        jaw = np.clip((-y - 2.0 + 0.25 * side) / 1.5, 0.0, 1.0) * np.clip((7.6 - side) / 1.0, 0.0, 1.0)
        wash(mix(identity.shade, identity.hair, 0.6), 0.45 * jaw)
    return tint


EAR = np.array(
    ((0.0, 1.6), (0.35, 2.3), (1.0, 2.6), (1.55, 2.0), (1.6, 1.0), (1.25, 0.0), (0.9, -0.9), (0.4, -1.4), (0.0, -1.1))
)
EAR_RIM = np.array(((0.4, 1.5), (0.85, 2.0), (1.2, 1.5), (1.1, 0.6), (0.75, 0.1), (0.65, -0.5)))
EAR_LOBE = np.array(((0.55, -1.9),))


def ears(identity: Identity, view: View, shading: Shading) -> list[Mark]:
    """Human ears beside the head; the face is drawn over their hidden parts."""
    marks: list[Mark] = []
    for side, sign in zip(SIDES, SIGNS, strict=True):
        root = view.neutral[(127, 356)[side]] + np.array((-0.5 * sign, -1.9, -0.2))

        def place(uv: Array, sign: float = sign, root: Array = root) -> Points:
            return view.head(root + np.stack((0.62 * sign * uv[:, 0], uv[:, 1], -0.75 * uv[:, 0]), axis=-1))

        marks.append(Paint(shading, [curve(place(EAR), 20)], identity.ink, identity.ink_width * view.line))
        marks.append(Stroke(curve(place(EAR_RIM), 12), mix(identity.skin, identity.shade, 0.8), view.line))
        if identity.earrings:
            drop = place(EAR_LOBE)
            glint = drop + np.array((-0.12, -0.12)) * view.cm[:, None, None]
            marks.append(Discs(drop, 0.38 * view.cm[:, None], identity.trim))
            marks.append(Discs(glint, 0.13 * view.cm[:, None], (255, 255, 255)))
    return marks


def neck(identity: Identity, view: View) -> list[Mark]:
    """The neck between the head, which turns, and the shoulders, which do not."""
    width = 0.62 * view.neutral[361, 0] + 0.6
    top = view.head(np.array(((0.0, view.neutral[152, 1] + 8.5, -6.0), (0.0, view.neutral[152, 1] + 3.5, -4.5))))
    bottom = view.body(np.array(((0.0, view.neutral[152, 1] - 4.0, -5.0), (0.0, view.neutral[152, 1] - 8.5, -4.5))))
    line = curve(np.concatenate((top, bottom), axis=1), 12)
    flare = width * (1.0 + 0.45 * np.clip(np.linspace(-2.2, 1.0, 12), 0.0, 1.0) ** 2)
    column = tube(line, flare * view.cm[:, None])
    middle = mix(identity.skin, mix(identity.skin, identity.shade, identity.contrast), 0.55)
    dark = mix(identity.skin, mix(identity.skin, identity.shade, identity.contrast), 1.0)
    chin = view.head(np.array(((0.0, view.neutral[152, 1] - 0.2, 0.5),)))
    circle = unit_circle()
    shadow = chin + circle * (np.array((width * 1.25, 2.6)) * view.cm[:, None, None])
    marks: list[Mark] = [Fill(column, middle), Inside(column, [Fill(shadow, dark)])]
    if identity.ink_width:
        marks.insert(0, Stroke(column, identity.ink, 2 * identity.ink_width * view.line, closed=True))
    return marks


def head(identity: Identity, view: View, shading: Shading, bare: bool, beside: Sequence[Points] = ()) -> list[Mark]:
    """The face's surface, with the skull above it if `bare` of hair, and with the outlines `beside` it."""
    points = view.points[:, :468]
    shapes: list[Points | Hull] = [*beside, Hull(points), Hull(points[:, NOSE])]
    if bare:
        directions = sphere(220)
        shapes.insert(0, Hull(view.head(view.skull.points(directions[directions[:, 1] > -0.45]))))
    return [Paint(shading, shapes, identity.ink, identity.ink_width * view.line)]


def face_again(view: View, shading: Shading) -> list[Mark]:
    """The face without the skull, drawn over the ears: it hides a turned head's far ear."""
    return [Paint(shading, [Hull(view.points[:, :468]), Hull(view.points[:, NOSE])])]


def nose_bridge(view: View, shading: Shading) -> Mark:
    """The nose's ridge, drawn again to hide the corner of a turned head's far eye."""
    return Paint(shading, [Hull(view.points[:, np.array((168, 6, 197, 195, 5, 4, 1, 122, 351, 174, 399))])])


def lines(identity: Identity, view: View) -> list[Mark]:
    """Wrinkles and freckles."""
    marks: list[Mark] = []
    fold = mix(identity.skin, mix(identity.skin, identity.shade, identity.contrast), 0.55 + 0.45 * identity.age)
    if identity.age > 0.25:
        for sign in SIGNS:
            marks.append(Stroke(view.face(curve(NASOLABIAL * (sign, 1.0), 9)), fold, view.line))
    if identity.age > 0.55:
        for row, reach in ((6.0, 2.8), (7.0, 2.2)):
            x = np.linspace(-reach, reach, 9)
            marks.append(Stroke(view.face(np.stack((x, row + 0.25 * np.cos(x * 1.3)), axis=-1)), fold, view.line))
        for sign in SIGNS:
            marks.append(Stroke(view.face(np.array(((5.0, 2.2), (5.7, 1.7))) * (sign, 1.0)), fold, view.line))
            marks.append(Stroke(view.face(np.array(((5.1, 2.7), (5.9, 2.6))) * (sign, 1.0)), fold, view.line))
    if identity.freckles:
        generator = np.random.default_rng(identity.seed)
        xy = np.stack((generator.uniform(1.2, 5.2, 16), generator.uniform(-1.6, 1.2, 16)), axis=-1)
        xy[::2, 0] *= -1.0
        size = generator.uniform(0.10, 0.17, 16) * view.cm[:, None]
        marks.append(Discs(view.face(xy), size, mix(identity.skin, darker(identity.shade, 0.1), 0.65)))
    return marks


NASOLABIAL = np.array(((1.9, -1.5), (2.6, -2.3), (3.1, -3.3), (3.2, -4.3)))
"""Fold from beside the nose to beside the mouth, x and y of the canonical face."""
