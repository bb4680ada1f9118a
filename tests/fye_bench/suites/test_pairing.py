"""Pairs are spread evenly, whatever there is of each family and kind."""

from collections import Counter
from itertools import islice, product

import pytest

from fye_bench.suites.pairing import Pairing, crossings, spread

FOUR = {f"p{i}": f"family {i % 4}" for i in range(12)}
FIVE = {f"m{i}": f"kind {i % 5}" for i in range(10)}


def uneven(count: Counter[str], of: int) -> int:
    return max(count.values()) - (min(count.values()) if len(count) == of else 0)


def test_crossings_are_all_pairs_of_different_faces() -> None:
    own = [("p0", "m0"), ("p3", "m7")]
    found = list(crossings(FOUR, FIVE, own))
    assert {(pair.portrait, pair.motion) for pair in found} == set(product(FOUR, FIVE)) - set(own)
    assert len(found) == len(set(found)) and {pair.mode for pair in found} == {"cross"}


def test_every_portrait_has_one_crossing_before_any_has_two() -> None:
    for rounds in (1, 2, 3):
        found = list(islice(crossings(FOUR, FIVE), rounds * len(FOUR)))
        assert set(Counter(pair.portrait for pair in found).values()) == {rounds}
        assert uneven(Counter(pair.motion for pair in found), len(FIVE)) <= 2
        assert uneven(Counter(FIVE[pair.motion] for pair in found), 5) <= 1


@pytest.mark.parametrize("kinds", [4, 5, 7])
def test_any_first_crossings_are_spread_evenly(kinds: int) -> None:
    motions = {f"m{i}": f"kind {i % kinds}" for i in range(2 * kinds)}
    own = [Pairing(portrait, motion, "self") for portrait, motion in zip(FOUR, motions, strict=False)]
    every = [*own, *crossings(FOUR, motions, [pair[:2] for pair in own])]
    ordered = spread(every, FOUR, motions)
    assert sorted(ordered) == sorted(every) and ordered != every
    share = len(own) / len(every)
    for n in range(1, 4 * kinds * 2):
        some = ordered[:n]
        assert uneven(Counter(FOUR[pair.portrait] for pair in some), 4) <= 1
        assert uneven(Counter(motions[pair.motion] for pair in some), kinds) <= 1
        assert abs(sum(pair.mode == "self" for pair in some) - share * n) <= 2


def test_crossings_begin_with_the_smallest_family() -> None:
    portraits = {"wolf": "animals"} | {f"p{i}": "people" for i in range(20)}
    pairs = list(crossings(portraits, {"m": "talking"}))
    ordered = spread(pairs, portraits, {"m": "talking"})
    assert sorted(ordered) == sorted(pairs) and "wolf" in {pair.portrait for pair in ordered[:2]}


def test_a_single_face_with_its_own_motion_has_no_crossings() -> None:
    assert list(crossings({"p": "people"}, {"m": "talking"}, [("p", "m")])) == [] and spread([], {}, {}) == []
