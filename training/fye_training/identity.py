"""Characters from seeds.

Seeds below HELD_OUT_SEED are for training; seeds from it on are held out, for measuring only.
"""

import numpy as np

from fye_rt.errors import InputError
from fye_training.drawing.character import FAMILIES, Identity
from fye_training.families.animals import animal
from fye_training.families.cartoons import cartoon
from fye_training.families.people import person
from fye_training.families.sculptures import sculpture

__all__ = ["FAMILIES", "HELD_OUT_SEED", "Identity", "held_out", "identity", "is_held_out"]

HELD_OUT_SEED = 1_000_000


def held_out(index: int) -> int:
    """Seed of held-out identity number `index`."""
    return HELD_OUT_SEED + index


def is_held_out(seed: int) -> bool:
    """Whether a seed's character is held out of training."""
    return seed >= HELD_OUT_SEED


def identity(seed: int, family: str | None = None) -> Identity:
    """The character of a seed.

    Args:
        seed: at least 0.
        family: one of FAMILIES; None cycles through them, seed by seed.

    Raises:
        InputError: an unknown family.
    """
    name = FAMILIES[seed % len(FAMILIES)] if family is None else family
    if name not in FAMILIES:
        raise InputError(f"no family of characters is called {name!r}; choose from {', '.join(FAMILIES)}")
    number = FAMILIES.index(name)
    create = (person, cartoon, sculpture, animal)[number]
    return create(seed, np.random.default_rng((seed, number)))
