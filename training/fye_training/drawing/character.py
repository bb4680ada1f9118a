"""Data of a drawn character."""

from dataclasses import dataclass

from fye_training.drawing.canvas import Colour
from fye_training.shape import Shape

FAMILIES = ("people", "cartoons", "sculptures", "animals")
BACKGROUNDS = ("gradient", "spot", "bokeh", "stripes", "wall", "sky", "rays")
CLOTHES = ("crew", "vneck", "collar", "jacket", "hoodie", "stripes")  # random choices; "drapery" and "fur" exist too
HAIR_STYLES = (
    "bald", "receding", "short", "quiff", "side", "spiky", "curly", "afro", "bob", "long", "wavy", "bun", "ponytail"
)  # fmt: skip
FITS_HAT = ("bald", "receding", "short", "side", "bob", "long", "wavy")
HATS = ("", "beanie", "cap", "band")
BEARDS = ("", "stubble", "moustache", "goatee", "full")
GLASSES = ("", "round", "square", "cat")
EARS = ("pointed", "round", "long", "floppy", "side")
MARKINGS = ("", "stripes", "mask", "eye patches", "blaze", "spots")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coat:
    """Features of an animal's head.

    Attributes:
        ears: one of EARS.
        ear_size: size of the ears, 1 the usual.
        inner_ear: colour of the inner ear.
        muzzle: colour around the mouth and of the chest.
        nose: colour of the nose.
        nose_size: size of the nose, 1 the usual.
        marking: one of MARKINGS.
        dye: colour of the markings.
        whiskers: whether the animal has whiskers.
        tufts: length of the cheeks' fur, in centimetres.
        slit: whether the pupils are slits.
    """

    ears: str
    ear_size: float
    inner_ear: Colour
    muzzle: Colour
    nose: Colour
    nose_size: float
    marking: str
    dye: Colour
    whiskers: bool
    tufts: float
    slit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A character. Colours are RGB; sizes are relative, 1 the usual.

    Attributes:
        seed: seed of the character.
        family: one of FAMILIES.
        shape: the face's proportions.
        skin, shade, glow: the skin in ordinary light, in shadow, in the light's reflection.
        blush, lips, brow, iris, sclera, lash: colours of the face's parts.
        hair: colour of the hair.
        light: direction towards the light, a unit vector in the camera's frame.
        background: one of BACKGROUNDS; `backdrop` has its two colours.
        clothes: one of CLOTHES, "drapery" or "fur"; `trim` is their second colour.
        coat: features of an animal; None for other families.
        brow_width: thickness of the brows.
        iris_size: radius of the iris.
        lash_width: thickness of the upper lid's line.
        hair_style: one of HAIR_STYLES.
        parting: side of the parting, or to which the hair falls, -1 (the picture's left) to 1.
        skull_height: height of the head above the brows.
        hat: one of HATS; `cloth` is the colour of hat and clothes.
        beard: one of BEARDS.
        glasses: one of GLASSES; `frame` is their colour.
        age: 0 (no wrinkles) to 1 (many).
        freckles, earrings: whether the character has them.
        ink, ink_width: colour and width of the outlines; width 0: no outlines.
        contrast: darkness of the shadows, 0 to 1.
        hardness: 0 for soft shadows, 1 for a cartoon's hard ones.
        gloss: strength of highlights, 0 to 1.
    """

    seed: int
    family: str
    shape: Shape
    skin: Colour
    shade: Colour
    glow: Colour
    blush: Colour
    lips: Colour
    brow: Colour
    iris: Colour
    sclera: Colour
    lash: Colour
    hair: Colour
    light: tuple[float, float, float]
    background: str
    backdrop: tuple[Colour, Colour]
    clothes: str
    cloth: Colour
    trim: Colour
    ink: Colour
    contrast: float
    gloss: float
    coat: Coat | None = None
    brow_width: float = 1.0
    iris_size: float = 1.0
    lash_width: float = 1.0
    hair_style: str = "bald"
    parting: float = 0.0
    skull_height: float = 1.0
    hat: str = ""
    beard: str = ""
    glasses: str = ""
    frame: Colour = (30, 28, 34)
    age: float = 0.0
    freckles: bool = False
    earrings: bool = False
    ink_width: float = 0.0
    hardness: float = 0.0
