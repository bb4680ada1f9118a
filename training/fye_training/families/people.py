"""Random people, with skin, hair, beards, glasses, hats and ages."""

import numpy as np

from fye_training.drawing.canvas import Colour
from fye_training.drawing.character import BACKGROUNDS, BEARDS, CLOTHES, FITS_HAT, GLASSES, HAIR_STYLES, HATS, Identity
from fye_training.drawing.colour import darker, hsv, lighter, luminance, mix
from fye_training.families.chance import Random, backdrop, light_from, pick, proportions

SKINS: tuple[Colour, ...] = (
    (255, 224, 200), (249, 208, 178), (240, 190, 152), (226, 168, 128), (205, 145, 104), (176, 116, 78), (142, 90, 60),
    (110, 68, 46), (84, 52, 38),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (34, 26, 28), (52, 34, 28), (84, 52, 34), (120, 74, 42), (160, 104, 56), (206, 158, 92), (236, 204, 140),
    (178, 78, 38), (140, 50, 34), (150, 150, 156), (226, 224, 222),
)  # fmt: skip
IRISES: tuple[Colour, ...] = (
    (96, 58, 32), (70, 42, 28), (122, 84, 40), (78, 120, 70), (58, 110, 160), (96, 148, 190), (110, 120, 130),
    (60, 130, 120),
)  # fmt: skip
FEMININE_HAIR = (0, 0, 0.6, 0.3, 1, 0.2, 1, 0.7, 1.2, 1.6, 1.5, 1.2, 1.0)


def masculine_hair(age: float) -> tuple[float, ...]:
    """Odds of the hair styles for a man of an age in [0, 1]."""
    return (0.8, 0.7 + age, 1.6, 1, 1.2, 0.5, 0.8, 0.5, 0.15, 0.2, 0.2, 0.05, 0.1)


def person(seed: int, random: Random) -> Identity:
    """A random woman or man."""
    base = random.uniform(0, len(SKINS) - 1)
    skin = mix(SKINS[int(base)], SKINS[int(base) + 1], base % 1.0)
    deep = luminance(skin) < 130
    shade = mix(darker(skin, 0.42), (150, 60, 60), 0.16)
    feminine = random.uniform() < 0.5
    age = float(random.uniform() ** 1.6)
    hair = _hair_colour(random, skin, deep, age)
    if feminine:
        style = pick(random, HAIR_STYLES, FEMININE_HAIR)
        beard = ""
        painted = hsv(float(random.uniform(0.93, 1.02)), 0.75, 0.72)
        lips = mix(mix(skin, (196, 52, 74), 0.62), painted, float(random.uniform(0, 0.7)))
    else:
        style = pick(random, HAIR_STYLES, masculine_hair(age))
        beard = pick(random, BEARDS, (1.6, 0.8, 0.6, 0.5, 0.9))
        lips = mix(mix(skin, (170, 66, 70), 0.5), shade, 0.25)
    brow = darker(hair, 0.15)
    if luminance(brow) > luminance(skin) - 50:
        brow = darker(mix(brow, skin, 0.2), 0.55)
    hue = float(random.uniform())
    return Identity(
        seed=seed,
        family="people",
        shape=proportions(
            random, 1.0, **({"lip_fullness": 0.5, "jaw_width": -0.5} if feminine else {"jaw_width": 0.3})
        ),
        skin=skin,
        shade=shade,
        glow=lighter(mix(skin, (255, 236, 214), 0.4), 0.35),
        blush=mix(skin, (214, 70, 72), 0.42),
        lips=lips,
        brow=brow,
        iris=pick(random, IRISES[:3] if deep and random.uniform() < 0.8 else IRISES),
        sclera=(248, 246, 242),
        lash=(36, 24, 26) if feminine else darker(shade, 0.62),
        brow_width=float(random.uniform(0.75, 1.05) if feminine else random.uniform(1.0, 1.45)),
        lash_width=float(random.uniform(1.0, 1.4) if feminine else random.uniform(0.6, 0.9)),
        hair=hair,
        hair_style=style,
        parting=float(random.uniform(-1, 1)),
        skull_height=float(random.uniform(0.9, 1.15)),
        hat=_hat(seed, style),
        beard=beard,
        glasses=pick(random, GLASSES, (2.2, 0.5, 0.5, 0.25 if feminine else 0.0)),
        frame=pick(random, ((30, 28, 34), (110, 60, 30), (150, 40, 50), (60, 70, 120), (190, 160, 90))),
        age=age,
        freckles=bool(not deep and random.uniform() < 0.2),
        earrings=bool(feminine and random.uniform() < 0.5),
        ink=darker(shade, 0.4),
        contrast=float(random.uniform(0.55, 0.9)),
        hardness=float(random.uniform(0.0, 0.25)),
        gloss=float(random.uniform(0.1, 0.6)),
        light=light_from(random),
        background=pick(random, BACKGROUNDS),
        backdrop=backdrop(random, hue, 0.45),
        clothes=pick(random, CLOTHES),
        cloth=hsv(float(random.uniform()), float(random.uniform(0.15, 0.7)), float(random.uniform(0.25, 0.9))),
        trim=hsv(float(random.uniform()), float(random.uniform(0.0, 0.6)), float(random.uniform(0.75, 1.0))),
    )


def _hair_colour(random: Random, skin: Colour, deep: bool, age: float) -> Colour:
    hair = HAIRS[int(random.integers(0, 4 if deep else 9))]
    if age > 0.6:
        hair = mix(hair, pick(random, HAIRS[9:]), float(random.uniform(0.5, 1.0)))
    if luminance(skin) - 30 < luminance(hair) < luminance(skin) + 25:
        hair = darker(hair, 0.35)
    return hair


def _hat(seed: int, style: str) -> str:
    random = np.random.default_rng((seed, 17))
    return pick(random, HATS, (4.0, 0.5, 0.4, 0.4)) if style in FITS_HAT else ""
