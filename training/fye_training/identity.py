"""Who is drawn: characters from seeds.

Seeds below HELD_OUT_SEED are for training; those from it on are for measuring and never trained on.
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
    """Whether a seed's character is for measuring and never trained on."""
    return seed >= HELD_OUT_SEED


def identity(seed: int, family: str | None = None) -> Identity:
    """The character of a seed.

    Args:
        seed: at least 0.
        family: one of FAMILIES; None takes them in turn, seed by seed.

    Raises:
        InputError: an unknown family.
    """
    chosen = FAMILIES[seed % len(FAMILIES)] if family is None else family
    if chosen not in FAMILIES:
        raise InputError(f"no family of characters is called {chosen!r}; there are {', '.join(FAMILIES)}")
    number = FAMILIES.index(chosen)
    create = (person, cartoon, sculpture, animal)[number]
    return create(seed, np.random.default_rng((seed, number)))
