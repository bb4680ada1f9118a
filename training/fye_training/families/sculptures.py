"""Random sculptures of one material, with carved instead of coloured eyes."""

from fye_training.drawing.canvas import Colour
from fye_training.drawing.character import Identity
from fye_training.drawing.colour import darker, hsv, lighter, mix
from fye_training.families.chance import Random, light_from, pick, proportions

# name: colours in ordinary light, in shadow and in reflection; gloss
MATERIALS: dict[str, tuple[Colour, Colour, Colour, float]] = {
    "marble": ((228, 224, 218), (96, 94, 104), (255, 255, 255), 0.5),
    "plaster": ((240, 234, 222), (138, 124, 112), (255, 255, 250), 0.1),
    "limestone": ((206, 190, 160), (92, 78, 60), (242, 232, 208), 0.15),
    "granite": ((138, 140, 146), (46, 48, 56), (206, 208, 214), 0.4),
    "terracotta": ((200, 112, 74), (92, 38, 28), (246, 182, 142), 0.2),
    "sandstone": ((216, 168, 118), (106, 68, 44), (250, 220, 178), 0.15),
    "bronze": ((142, 100, 56), (38, 24, 18), (255, 220, 150), 1.0),
    "verdigris": ((104, 150, 130), (30, 54, 54), (190, 226, 200), 0.6),
    "gold": ((222, 172, 66), (92, 52, 16), (255, 248, 196), 1.0),
    "jade": ((122, 176, 130), (32, 74, 56), (222, 250, 218), 0.8),
    "basalt": ((112, 114, 124), (28, 28, 36), (206, 212, 222), 0.9),
}
HAIR = ("receding", "short", "side", "curly", "quiff", "bob", "long", "wavy", "bun", "bald", "afro")
SCENES = ("gradient", "spot", "wall", "stripes", "sky")


def sculpture(seed: int, random: Random) -> Identity:
    """A random bust."""
    name = pick(random, tuple(MATERIALS))
    stone, shade, glow, gloss = MATERIALS[name]
    stone = mix(stone, shade, float(random.uniform(0.0, 0.14)))
    masculine = random.uniform() < 0.55
    groove = mix(stone, darker(shade, 0.3), 0.8)
    return Identity(
        seed=seed,
        family="sculptures",
        shape=proportions(random, 1.0, eye_size=0.9, eye_opening=1.3, brow_height=0.5, lip_fullness=0.6),
        skin=stone,
        shade=shade,
        glow=glow,
        blush=stone,
        lips=mix(stone, shade, 0.45),
        brow=mix(stone, shade, 0.75),
        iris=mix(stone, shade, 0.15),
        sclera=lighter(stone, 0.3),
        lash=groove,
        hair=mix(stone, shade, float(random.uniform(0.25, 0.45))),
        light=light_from(random),
        background=pick(random, SCENES),
        backdrop=_hall(random, stone),
        clothes="drapery",
        cloth=mix(stone, shade, 0.12),
        trim=mix(stone, shade, 0.4),
        ink=groove,
        contrast=float(random.uniform(0.9, 1.0)),
        gloss=gloss,
        brow_width=float(random.uniform(0.8, 1.1)),
        iris_size=1.1,
        lash_width=0.9,
        hair_style=pick(random, HAIR),
        parting=float(random.uniform(-1, 1)),
        skull_height=float(random.uniform(0.9, 1.1)),
        beard=pick(random, ("", "moustache", "goatee", "full"), (1.2, 0.2, 0.4, 1.0)) if masculine else "",
        age=0.54 * float(random.uniform()),
        hardness=float(random.uniform(0.0, 0.35)),
    )


def _hall(random: Random, stone: Colour) -> tuple[Colour, Colour]:
    """Two muted colours, usually dark behind bright stone."""
    hue, strong = float(random.uniform()), float(random.uniform(0.15, 0.5))
    if sum(stone) > 420 or random.uniform() < 0.3:
        return hsv(hue, strong, float(random.uniform(0.35, 0.6))), hsv(hue, strong, float(random.uniform(0.12, 0.3)))
    return hsv(hue, 0.6 * strong, float(random.uniform(0.8, 0.95))), hsv(hue, strong, float(random.uniform(0.5, 0.7)))
