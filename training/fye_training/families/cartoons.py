"""Random cartoon characters: flat colours, big eyes, bold outlines, half of them with odd skin colours."""

from fye_training.drawing.canvas import Colour
from fye_training.drawing.character import BACKGROUNDS, CLOTHES, HAIR_STYLES, Identity
from fye_training.drawing.colour import darker, hsv, lighter, luminance, mix
from fye_training.families.chance import Random, around, backdrop, light_from, pick
from fye_training.families.people import FEMININE_HAIR, masculine_hair
from fye_training.shape import Shape

SKINS: tuple[Colour, ...] = ((255, 216, 186), (250, 196, 150), (224, 158, 110), (168, 104, 66), (116, 70, 48))
ODD_HUES = (0.28, 0.36, 0.48, 0.55, 0.60, 0.68, 0.75, 0.82, 0.92, 0.13, 0.02)


def cartoon(seed: int, random: Random) -> Identity:
    """A random cartoon character with human features."""
    odd = random.uniform() < 0.5
    skin = pick(random, SKINS)
    if odd:
        skin = hsv(pick(random, ODD_HUES), float(random.uniform(0.35, 0.65)), float(random.uniform(0.78, 0.98)))
    shade = mix(darker(skin, 0.38), (110, 30, 120), 0.16)
    feminine = random.uniform() < 0.5
    age = float(random.uniform() ** 3)
    hair = hsv(float(random.uniform()), float(random.uniform(0.3, 0.95)), float(random.uniform(0.25, 0.95)))
    if abs(luminance(hair) - luminance(skin)) < 35:
        hair = darker(hair, 0.5)
    ink = mix((26, 18, 30), darker(hair, 0.75), float(random.uniform(0.0, 0.5)))
    lips = mix(skin, hsv(float(random.uniform(0.9, 1.03)), 0.8, 0.8), 0.75 if feminine else 0.35)
    hue = float(random.uniform())
    return Identity(
        seed=seed,
        family="cartoons",
        shape=_build(random),
        skin=skin,
        shade=shade,
        glow=lighter(skin, 0.5),
        blush=mix(skin, (236, 60, 96), 0.5),
        lips=lips,
        brow=ink if luminance(hair) > luminance(skin) - 40 else darker(hair, 0.3),
        iris=hsv(float(random.uniform()), float(random.uniform(0.5, 0.95)), float(random.uniform(0.4, 0.8))),
        sclera=(255, 255, 255) if random.uniform() < 0.8 else mix((255, 246, 196), skin, 0.2),
        lash=ink,
        hair=hair,
        light=light_from(random),
        background=pick(random, BACKGROUNDS),
        backdrop=backdrop(random, hue, 0.75),
        clothes=pick(random, CLOTHES),
        cloth=hsv(float(random.uniform()), float(random.uniform(0.5, 0.95)), float(random.uniform(0.4, 0.95))),
        trim=hsv(float(random.uniform()), float(random.uniform(0.0, 0.8)), float(random.uniform(0.8, 1.0))),
        ink=ink,
        contrast=float(random.uniform(0.5, 0.75)),
        gloss=float(random.uniform(0.0, 0.25)),
        brow_width=float(random.uniform(0.9, 1.2) if feminine else random.uniform(1.2, 1.9)),
        iris_size=float(random.uniform(1.1, 1.3)),
        lash_width=float(random.uniform(1.7, 2.3) if feminine else random.uniform(1.0, 1.3)),
        hair_style=pick(random, HAIR_STYLES, FEMININE_HAIR if feminine else masculine_hair(age)),
        parting=float(random.uniform(-1, 1)),
        skull_height=float(random.uniform(0.9, 1.3)),
        age=age,
        freckles=bool(random.uniform() < 0.2),
        earrings=bool(feminine and random.uniform() < 0.5),
        ink_width=float(random.uniform(0.8, 1.5)),
        hardness=float(random.uniform(0.8, 1.0)),
    )


def _build(random: Random) -> Shape:
    """Inhuman proportions: eyes several times as tall, in a short, wide or pointed face."""
    eyes = float(random.uniform(2.2, 3.8))
    return around(
        random,
        0.7,
        eye_size=eyes,
        eye_opening=float(random.uniform(2.6, 4.6)),
        eye_spacing=0.4 * eyes,
        brow_height=1.2,
        forehead_height=0.8,
        face_width=float(random.uniform(-0.2, 1.8)),
        face_length=float(random.uniform(-1.8, 0.2)),
        jaw_width=float(random.uniform(-1.6, 0.8)),
        chin_length=float(random.uniform(-1.0, 0.4)),
        cheek_fullness=float(random.uniform(-0.2, 1.0)),
        nose_width=-0.8,
        nose_length=-0.5,
        mouth_width=0.5,
        mouth_height=-0.4,
    )
