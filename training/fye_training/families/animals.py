"""Random animals, from a table of species."""

from dataclasses import dataclass, field

import numpy as np

from fye_training.drawing.canvas import Colour
from fye_training.drawing.character import BACKGROUNDS, CLOTHES, Coat, Identity
from fye_training.drawing.colour import darker, hsv, lighter, luminance, mix
from fye_training.families.chance import Random, around, backdrop, light_from, pick

PINK: Colour = (240, 168, 164)
BLACK: Colour = (38, 32, 36)
WHITE: Colour = (248, 244, 236)
BROWN, HAZEL, AMBER = (104, 62, 30), (150, 104, 48), (222, 156, 40)
GREEN, BLUE = (116, 170, 70), (92, 150, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Species:
    """Features and choices of a species.

    Attributes:
        furs: choices of the colours (fur, muzzle, markings).
        ears: one of `drawing.character.EARS`; `ear_size` is relative.
        markings: choices from `drawing.character.MARKINGS`.
        noses: choices of the nose's colour; `nose_size` is relative.
        irises: choices of the iris's colour.
        slit: whether the pupils are slits.
        whiskers: whether the animals have whiskers.
        tufts: length of the cheeks' fur, in centimetres.
        shape: proportions of the face that differ from `BUILD`, which all animals share.
    """

    furs: tuple[tuple[Colour, Colour, Colour], ...]
    ears: str
    ear_size: float = 1.0
    markings: tuple[str, ...] = ("",)
    noses: tuple[Colour, ...] = (BLACK,)
    nose_size: float = 1.0
    irises: tuple[Colour, ...] = (BROWN, HAZEL)
    slit: bool = False
    whiskers: bool = False
    tufts: float = 0.8
    shape: dict[str, float] = field(default_factory=dict)


BUILD = {
    "face_width": 1.2, "face_length": -0.8, "jaw_width": -0.6, "cheek_fullness": 0.8, "chin_length": -0.9,
    "eye_size": 1.5, "eye_opening": 2.4, "eye_spacing": 0.8, "brow_height": 0.6, "nose_length": -0.4, "muzzle": 0.9,
    "mouth_width": 0.2, "lip_fullness": -0.9,
}  # fmt: skip

SPECIES: dict[str, Species] = {
    "cat": Species(
        furs=(
            ((226, 150, 78), WHITE, (176, 96, 40)), ((150, 146, 146), (222, 220, 216), (92, 88, 92)),
            ((92, 84, 82), (150, 140, 132), (48, 42, 44)), ((244, 236, 220), WHITE, (206, 160, 110)),
            ((64, 60, 70), (92, 88, 98), (40, 36, 44)), ((196, 164, 124), (240, 228, 206), (112, 80, 54)),
        ),
        ears="pointed", markings=("stripes", "stripes", "", "blaze"), noses=(PINK, (196, 110, 108), BLACK),
        nose_size=0.7, irises=(GREEN, AMBER, BLUE), slit=True, whiskers=True, tufts=1.2,
        shape={"eye_tilt": 0.8, "muzzle": 0.6, "face_width": 1.8, "eye_size": 2.4},
    ),
    "dog": Species(
        furs=(
            ((190, 128, 70), (238, 212, 176), (120, 72, 40)), ((92, 60, 44), (150, 104, 70), (60, 38, 32)),
            ((236, 212, 170), (250, 240, 220), (190, 140, 84)), ((70, 64, 66), (206, 160, 110), (40, 36, 40)),
            ((244, 240, 234), WHITE, (120, 76, 50)),
        ),
        ears="floppy", markings=("blaze", "", "eye patches", "spots"), nose_size=1.25, tufts=0.0,
        shape={"muzzle": 1.5, "chin_length": -0.4, "face_width": 0.1},
    ),
    "wolf": Species(
        furs=(
            ((128, 132, 142), (236, 236, 236), (72, 74, 84)), ((76, 80, 92), (232, 234, 238), (44, 46, 56)),
            ((150, 122, 98), (234, 222, 204), (88, 68, 56)),
        ),
        ears="pointed", ear_size=0.9, markings=("mask", "blaze"), irises=(BLUE, AMBER, BROWN), tufts=1.8,
        shape={"eye_tilt": 0.7, "muzzle": 1.4},
    ),
    "fox": Species(
        furs=(
            ((222, 112, 44), (252, 240, 226), (110, 46, 26)), ((196, 84, 40), (244, 228, 210), (80, 36, 28)),
            ((238, 240, 244), WHITE, (180, 186, 200)),
        ),
        ears="pointed", ear_size=1.15, markings=("", "blaze"), irises=(AMBER, HAZEL), slit=True, whiskers=True,
        tufts=2.0, nose_size=0.8, shape={"eye_tilt": 1.0, "muzzle": 1.4, "jaw_width": -1.2},
    ),
    "bear": Species(
        furs=(
            ((124, 80, 50), (202, 160, 114), (84, 52, 34)), ((70, 52, 44), (168, 126, 88), (44, 34, 32)),
            ((240, 238, 230), WHITE, (206, 206, 200)), ((176, 124, 76), (226, 190, 142), (120, 80, 50)),
        ),
        ears="round", markings=("", "", "blaze"), nose_size=1.2,
        shape={"muzzle": 1.3, "eye_size": 0.8, "face_width": 1.8},
    ),
    "panda": Species(
        furs=(((244, 242, 238), WHITE, (44, 40, 46)), ((206, 110, 62), (248, 232, 214), (96, 40, 30))),
        ears="round", markings=("eye patches",), shape={"face_width": 2.0, "cheek_fullness": 1.2},
    ),
    "tiger": Species(
        furs=(((236, 146, 54), (252, 244, 228), (40, 28, 28)), ((240, 238, 232), WHITE, (60, 54, 60))),
        ears="round", ear_size=0.85, markings=("stripes",), noses=(PINK, (180, 96, 92)), irises=(AMBER, BLUE, GREEN),
        whiskers=True, tufts=1.6, shape={"eye_tilt": 0.6, "muzzle": 1.1, "face_width": 0.9},
    ),
    "rabbit": Species(
        furs=(
            ((238, 232, 224), WHITE, (196, 180, 164)), ((170, 142, 116), (230, 216, 198), (120, 96, 80)),
            ((132, 130, 136), (216, 214, 214), (88, 86, 94)), ((206, 160, 112), (246, 230, 206), (150, 104, 66)),
        ),
        ears="long", markings=("", "blaze", "eye patches"), noses=(PINK, (206, 120, 118)), nose_size=0.65,
        irises=(BROWN, (176, 70, 80), BLUE), whiskers=True, tufts=1.0,
        shape={"muzzle": 0.5, "cheek_fullness": 1.3, "eye_size": 2.4, "face_width": 0.3},
    ),
    "monkey": Species(
        furs=(
            ((110, 72, 48), (232, 184, 142), (70, 44, 32)), ((74, 56, 50), (206, 156, 124), (48, 36, 34)),
            ((196, 140, 76), (248, 214, 178), (140, 90, 48)),
        ),
        ears="side", markings=("mask",), noses=((120, 72, 60),), nose_size=0.8, tufts=0.5,
        shape={"muzzle": 0.8, "eye_size": 1.0, "mouth_width": 0.9},
    ),
    "raccoon": Species(
        furs=(((146, 142, 142), (240, 238, 234), (52, 48, 54)), ((168, 148, 126), (242, 234, 222), (64, 50, 46))),
        ears="round", ear_size=0.8, markings=("mask",), whiskers=True, tufts=1.8,
        shape={"muzzle": 1.0, "eye_tilt": 0.4},
    ),
    "mouse": Species(
        furs=(
            ((168, 162, 160), (226, 220, 216), (120, 114, 114)), ((200, 168, 130), (242, 226, 206), (150, 116, 84)),
            ((242, 238, 234), WHITE, (214, 206, 200)),
        ),
        ears="round", ear_size=1.7, noses=(PINK,), nose_size=0.65, irises=(BROWN, (150, 50, 60)), whiskers=True,
        tufts=0.4, shape={"muzzle": 1.0, "eye_size": 2.4, "jaw_width": -1.0},
    ),
    "koala": Species(
        furs=(((150, 152, 160), (232, 232, 232), (104, 106, 116)),),
        ears="round", ear_size=1.6, nose_size=1.7, tufts=1.0, shape={"muzzle": 0.6, "face_width": 2.0, "eye_size": 0.8},
    ),
}  # fmt: skip


def animal(seed: int, random: Random) -> Identity:
    """A random animal of a random species."""
    kind = SPECIES[pick(random, tuple(SPECIES))]
    fur, muzzle, dye = kind.furs[int(random.integers(len(kind.furs)))]
    tone = float(random.uniform(-0.12, 0.12))
    fur, muzzle, dye = (_toned(colour, tone) for colour in (fur, muzzle, dye))
    shade = mix(fur, (0, 0, 0), 0.55)  # equally dark for every colour: light fur must not look blue beside orange
    dark = luminance(fur) < 95
    dressed = random.uniform() < 0.45
    hue = float(random.uniform())
    nose = pick(random, kind.noses)
    cloth = hsv(float(random.uniform()), float(random.uniform(0.3, 0.85)), float(random.uniform(0.3, 0.95)))
    return Identity(
        seed=seed,
        family="animals",
        shape=around(random, 0.5, **BUILD | kind.shape),
        skin=fur,
        shade=shade,
        glow=lighter(fur, 0.35),
        blush=mix(fur, (226, 110, 110), 0.15),
        lips=mix(muzzle, mix(nose, (120, 50, 50), 0.4), 0.32),
        brow=lighter(mix(fur, muzzle, 0.6), 0.15) if dark else darker(mix(fur, dye, 0.8), 0.35),
        iris=pick(random, kind.irises),
        sclera=mix((250, 248, 240), muzzle, 0.1),
        lash=BLACK,
        hair=fur,
        light=light_from(random),
        background=pick(random, BACKGROUNDS),
        backdrop=backdrop(random, hue, 0.5),
        clothes=pick(random, CLOTHES) if dressed else "fur",
        cloth=cloth if dressed else fur,
        trim=hsv(float(random.uniform()), float(random.uniform(0.0, 0.6)), float(random.uniform(0.75, 1.0))),
        ink=darker(shade, 0.5),
        contrast=float(random.uniform(0.55, 0.85)),
        gloss=float(random.uniform(0.0, 0.3)),
        coat=Coat(
            ears=kind.ears,
            ear_size=kind.ear_size * float(random.uniform(0.85, 1.15)),
            inner_ear=mix(PINK, fur, 0.75 if dark else 0.35),
            muzzle=muzzle,
            nose=nose,
            nose_size=kind.nose_size * float(random.uniform(0.9, 1.1)),
            marking=pick(random, kind.markings),
            dye=dye,
            whiskers=kind.whiskers,
            tufts=kind.tufts,
            slit=kind.slit,
        ),
        brow_width=float(random.uniform(0.9, 1.3)),
        iris_size=float(random.uniform(1.15, 1.3)),
        lash_width=float(random.uniform(0.9, 1.4)),
        skull_height=float(random.uniform(0.95, 1.12)),
        ink_width=float(np.maximum(random.uniform(-1.0, 1.0), 0.0)),
        hardness=float(random.uniform(0.0, 0.3)),
    )


def _toned(colour: Colour, tone: float) -> Colour:
    return lighter(colour, tone) if tone > 0 else darker(colour, -tone)
