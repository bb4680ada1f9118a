from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_training.expressions import EXAGGERATION, EXPRESSIONS, INDEX
from fye_training.performance import FPS, KINDS, MOST_TURN, Performance, perform, poses, resting


def same(one: Performance, other: Performance) -> bool:
    names = ("weights", "rotation", "translation")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def indices(*starts: str) -> list[int]:
    return [index for name, index in INDEX.items() if name.startswith(starts)]


MOUTH, LOOK, BROWS = indices("mouth", "jaw", "cheekPuff", "noseSneer"), indices("eyeLook"), indices("brow")
SLOW = [index for index in range(len(EXPRESSIONS)) if index not in indices("eyeBlink", "eyeLook")]


@lru_cache
def clips(kind: str) -> list[Performance]:
    return [perform(seed, 200, kind, start_neutral=False) for seed in range(15)]


def together(kind: str) -> NDArray[np.float64]:
    return np.concatenate([played.weights for played in clips(kind)])


def syllables(jaw: NDArray[np.float64]) -> int:
    return int(((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.05)).sum())


def winks(weights: NDArray[np.float64]) -> float:
    return float((np.abs(weights[:, INDEX["eyeBlinkLeft"]] - weights[:, INDEX["eyeBlinkRight"]]) > 0.5).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_performance(kind: str) -> None:
    assert same(perform(5, 60, kind), perform(5, 60, kind))
    assert not same(perform(5, 60, kind), perform(6, 60, kind))


def test_kinds_differ_under_one_seed() -> None:
    assert len({perform(5, 60, kind).rotation.tobytes() for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_performance_starts_neutral_and_comes_to_life(kind: str) -> None:
    played = perform(1, 100, kind)
    assert same(played[:1], resting(1))
    assert played.weights[25:].max() > 0.2 and np.abs(played.rotation[25:]).max() > 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_performance_without_neutral_start_moves_from_its_first_frame(kind: str) -> None:
    assert np.mean([np.abs(played.rotation[0]).max() for played in clips(kind)]) > 1.0
    whole, cut = perform(3, 50, kind), perform(3, 50, kind, start_neutral=False)
    assert same(whole[13:], cut[13:])  # after half a second both are the same


@pytest.mark.parametrize("kind", KINDS)
def test_a_performance_stays_within_its_limits(kind: str) -> None:
    for played in clips(kind):
        assert played.weights.shape == (200, len(EXPRESSIONS)) and len(played) == 200
        assert played.weights.min() >= 0.0 and played.weights.max() <= EXAGGERATION
        assert (np.abs(played.rotation) <= MOST_TURN).all()
        assert np.abs(played.translation).max() < 2.5  # centimetres


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), frames=st.integers(1, 60), kind=st.sampled_from(KINDS), neutral=st.booleans())
def test_clips_of_any_length_are_finite_and_within_their_limits(
    seed: int, frames: int, kind: str, neutral: bool
) -> None:
    played = perform(seed, frames, kind, neutral)
    assert len(played) == len(played.rotation) == len(played.translation) == frames
    assert played.weights.min() >= 0.0 and played.weights.max() <= EXAGGERATION
    assert np.isfinite(played.translation).all() and (np.abs(played.rotation) <= MOST_TURN).all()


# the quickest change of an expression from frame to frame: a loud syllable opens the mouth within two
@pytest.mark.parametrize(
    ("kind", "quickest"), [("calm", 0.3), ("talking", 0.7), ("exaggerated", 0.55), ("gaze", 0.3), ("head turns", 0.3)]
)
def test_a_performance_moves_smoothly(kind: str, quickest: float) -> None:
    for played in clips(kind):
        assert np.abs(np.diff(played.weights[:, SLOW], axis=0)).max() < quickest
        assert np.abs(np.diff(played.weights[:, indices("eyeBlink")], axis=0)).max() < 0.4  # closed within 3 frames
        for there, back in (("Out", "In"), ("Up", "Down")):
            gaze = played.weights[:, INDEX[f"eyeLook{there}Left"]] - played.weights[:, INDEX[f"eyeLook{back}Left"]]
            assert np.abs(np.diff(gaze)).max() < 1.5  # eyes jump, but take two frames from one end to the other
        # a shake of the head reaches 200 degrees a second
        assert np.abs(np.diff(played.rotation, axis=0)).max() * FPS < 200.0
        assert np.abs(np.diff(played.translation, axis=0)).max() * FPS < 5.0  # centimetres a second


def test_each_kind_of_performance_moves_as_its_name_says() -> None:
    def most(kind: str, columns: list[int]) -> float:
        return float(together(kind)[:, columns].max(axis=1).mean())

    for columns, more, less in (
        (MOUTH, "exaggerated", "calm"),
        (BROWS, "exaggerated", "calm"),
        (LOOK, "gaze", "calm"),
        (MOUTH, "talking", "gaze"),
    ):
        assert most(more, columns) > 1.5 * most(less, columns)
    assert together("calm")[:, MOUTH].max() < 0.7 < 1.0 < together("exaggerated")[:, MOUTH].max()
    assert winks(together("exaggerated")) > 0.02
    assert all(winks(together(kind)) == 0.0 for kind in KINDS if kind != "exaggerated")


def test_eyes_blink_every_few_seconds() -> None:
    closed = perform(2, 60 * 25, "calm").weights[:, INDEX["eyeBlinkLeft"]] > 0.5
    blinks = int((np.diff(closed.astype(int)) == 1).sum())
    assert 60 / 4 <= blinks <= 60 / 1.2
    # 0.16 s with lids more than half closed, and nearly shut in some frame, wherever frames fall in between
    assert 3 <= closed.sum() / blinks <= 5
    assert perform(2, 60 * 25, "calm").weights[:, INDEX["eyeBlinkLeft"]][closed].max() > 0.95


def test_talking_opens_the_mouth_three_to_five_times_a_second_with_pauses() -> None:
    jaws = [played.weights[:, INDEX["jawOpen"]] for played in clips("talking")]
    # while the mouth is open; who does not talk holds it open for longer than a second
    speaking = sum(int((jaw > 0.05).sum()) for jaw in jaws) / FPS
    assert 3.0 < sum(map(syllables, jaws)) / speaking < 5.5
    assert 0.25 < np.mean([jaw > 0.05 for jaw in jaws]) < 0.7
    still = [played.weights[:, INDEX["jawOpen"]] for played in clips("calm")]
    assert sum(map(syllables, still)) / (sum(int((jaw > 0.05).sum()) for jaw in still) / FPS) < 2.0


def test_head_turns_reach_large_angles() -> None:
    turned = np.concatenate([perform(seed, 200, "head turns").rotation for seed in range(10)])
    calm = np.concatenate([perform(seed, 200, "calm").rotation for seed in range(10)])
    assert (np.abs(turned).max(axis=0) > (15.0, 28.0, 12.0)).all() and np.abs(calm).max() < 20.0


def test_both_eyes_look_the_same_way() -> None:
    weights = perform(4, 1500, "gaze").weights
    pairs = (("OutLeft", "InRight"), ("InLeft", "OutRight"), ("UpLeft", "UpRight"), ("DownLeft", "DownRight"))
    for one, other in pairs:
        np.testing.assert_array_equal(weights[:, INDEX[f"eyeLook{one}"]], weights[:, INDEX[f"eyeLook{other}"]])
        assert weights[:, INDEX[f"eyeLook{one}"]].max() > 0.5


def test_poses_cover_expressions_gazes_and_turns() -> None:
    played = poses(0, 4000)
    weights = played.weights
    assert same(poses(0, 4000), played)
    assert weights.min() >= 0.0 and weights.max() <= EXAGGERATION
    assert (np.abs(played.rotation) <= MOST_TURN).all()
    used = (weights > 0.3).mean(axis=0)
    rare = {name for name, share in zip(EXPRESSIONS, used, strict=True) if share < 0.005}
    assert rare <= {"jawForward", "mouthClose", "mouthShrugUpper"}
    blinking = weights[:, indices("eyeBlink")]
    for share, at_least, at_most in (
        (weights[:, INDEX["jawOpen"]] > 0.4, 0.1, 0.4),
        (weights[:, MOUTH].max(axis=1) == 0.0, 0.1, 0.3),
        (blinking.min(axis=1) > 0.4, 0.05, 0.2),
        (blinking.min(axis=1) > 0.8, 0.015, 0.1),
        (weights[:, INDEX["jawOpen"]] > 0.8, 0.05, 0.2),
        (np.abs(blinking[:, 0] - blinking[:, 1]) > 0.5, 0.02, 0.2),
        (weights[:, LOOK].max(axis=1) > 0.5, 0.3, 0.7),
        (weights[:, LOOK].max(axis=1) == 0.0, 0.2, 0.4),
        (weights[:, BROWS].max(axis=1) > 0.4, 0.3, 0.7),
        (np.abs(played.rotation[:, 1]) > 20.0, 0.1, 0.3),
    ):
        assert at_least < share.mean() < at_most
    # both sides of a face go together, where they are meant to
    smiling = weights[:, [INDEX["mouthSmileLeft"], INDEX["mouthSmileRight"]]]
    both = smiling[(smiling > 0.0).all(axis=1)]
    assert (np.abs(both[:, 0] - both[:, 1]) <= 0.11 * both.max(axis=1)).all()
    # neighbours have nothing to do with each other
    assert abs(np.corrcoef(weights[:-1, INDEX["jawOpen"]], weights[1:, INDEX["jawOpen"]])[0, 1]) < 0.06


def test_performances_can_be_joined_and_cut() -> None:
    both = resting(2) + perform(1, 10, "calm")
    assert len(both) == 12 and same(both[2:], perform(1, 10, "calm")) and len(both[::3]) == 4


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="calm, talking"):
        perform(0, 10, "asleep")
