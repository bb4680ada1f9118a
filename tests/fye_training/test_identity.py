from collections import Counter

import pytest

from fye_rt.errors import InputError
from fye_training.drawing.colour import luminance
from fye_training.families.animals import SPECIES
from fye_training.families.sculptures import MATERIALS
from fye_training.identity import FAMILIES, HELD_OUT_SEED, held_out, identity, is_held_out

SEEDS = range(200)

pytestmark = pytest.mark.usefixtures("opencv")


def test_a_seed_always_gives_the_same_character() -> None:
    assert [identity(seed) for seed in SEEDS] == [identity(seed) for seed in SEEDS]
    assert len(set(map(repr, map(identity, SEEDS)))) == len(SEEDS)


def test_training_and_held_out_seeds_never_meet() -> None:
    assert not any(is_held_out(seed) for seed in (0, 1, HELD_OUT_SEED - 1))
    assert [held_out(index) for index in range(3)] == [HELD_OUT_SEED, HELD_OUT_SEED + 1, HELD_OUT_SEED + 2]
    assert all(is_held_out(held_out(index)) for index in range(50))


def test_seeds_are_spread_evenly_over_the_families() -> None:
    for first in (0, 17, HELD_OUT_SEED):
        counted = Counter(identity(seed).family for seed in range(first, first + 40))
        assert counted == dict.fromkeys(FAMILIES, 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_character_has_the_requested_family(family: str) -> None:
    assert all(identity(seed, family).family == family for seed in SEEDS)


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"'plants'.*people, cartoons, sculptures, animals"):
        identity(0, "plants")


def test_people_come_with_every_kind_of_hair_glasses_beard_and_hat() -> None:
    people = [identity(seed, "people") for seed in range(400)]
    assert {character.glasses for character in people} == {"", "round", "square", "cat"}
    assert {character.beard for character in people} == {"", "stubble", "moustache", "goatee", "full"}
    assert {character.hat for character in people} == {"", "beanie", "cap", "band"}
    assert len({character.hair_style for character in people}) == 13
    assert min(character.age for character in people) < 0.05 and max(character.age for character in people) > 0.95


def test_animals_are_of_every_species_and_nobody_else_has_a_coat() -> None:
    coats = [identity(seed, "animals").coat for seed in range(300)]
    assert all(coat is not None for coat in coats)
    ears = {coat.ears for coat in coats if coat}
    assert ears == {kind.ears for kind in SPECIES.values()}
    assert all(identity(seed, family).coat is None for seed in SEEDS for family in FAMILIES[:3])


def test_cartoons_have_larger_eyes_than_people() -> None:
    largest = max(identity(seed, "people").shape.eye_size for seed in SEEDS)
    assert min(identity(seed, "cartoons").shape.eye_size for seed in SEEDS) > largest


def test_sculptures_are_of_one_material() -> None:
    for seed in SEEDS:
        character = identity(seed, "sculptures")
        stone = next(shade for _, shade, _, _ in MATERIALS.values() if shade == character.shade)
        # lips, brows, hair and cloth lie between the material's light and its shadow
        for colour in (character.lips, character.brow, character.hair, character.cloth):
            assert luminance(stone) <= luminance(colour) <= luminance(character.skin)
