import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_training.expressions import EXAGGERATION, EXPRESSIONS, INDEX
from fye_training.performance import FPS, KINDS, MOST_TURN, Performance, perform, poses, resting


def same(one: Performance, other: Performance) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("weights", "rotation", "translation")
    )


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
def test_a_performance_moves_smoothly_and_within_its_limits(kind: str) -> None:
    for seed in range(10):
        played = perform(seed, 200, kind, start_neutral=False)
        assert played.weights.shape == (200, len(EXPRESSIONS)) and len(played) == 200
        assert played.weights.min() >= 0.0 and played.weights.max() <= EXAGGERATION
        assert (np.abs(played.rotation) <= MOST_TURN).all()
        # a shake of the head reaches 200 degrees a second
        assert np.abs(np.diff(played.rotation, axis=0)).max() * FPS < 200.0
        slow = [index for name, index in INDEX.items() if not name.startswith(("eyeBlink", "eyeLook"))]
        # a loud syllable opens the mouth within two frames; lids and eyes are faster
        assert np.abs(np.diff(played.weights[:, slow], axis=0)).max() < 1.0


def test_eyes_blink_every_few_seconds() -> None:
    closed = perform(2, 60 * 25, "calm").weights[:, INDEX["eyeBlinkLeft"]] > 0.5
    blinks = int((np.diff(closed.astype(int)) == 1).sum())
    assert 60 / 4 <= blinks <= 60 / 1.2


def test_talking_opens_the_mouth_several_times_a_second() -> None:
    jaw = perform(3, 20 * 25, "talking").weights[:, INDEX["jawOpen"]]
    peaks = int(((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.05)).sum())
    assert 1.0 < peaks / 20 < 6.0


def test_heads_turn_far_where_asked_to() -> None:
    turned = np.concatenate([perform(seed, 200, "head turns").rotation for seed in range(10)])
    calm = np.concatenate([perform(seed, 200, "calm").rotation for seed in range(10)])
    assert (np.abs(turned).max(axis=0) > (15.0, 28.0, 12.0)).all()
    assert np.abs(calm).max() < 20.0


def test_both_eyes_look_the_same_way() -> None:
    weights = perform(4, 1500, "gaze").weights
    for one, other in (
        ("OutLeft", "InRight"),
        ("InLeft", "OutRight"),
        ("UpLeft", "UpRight"),
        ("DownLeft", "DownRight"),
    ):
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
    winking = np.abs(weights[:, INDEX["eyeBlinkLeft"]] - weights[:, INDEX["eyeBlinkRight"]]) > 0.5
    assert winking.mean() > 0.02
    # neighbours have nothing to do with each other
    assert abs(np.corrcoef(weights[:-1, INDEX["jawOpen"]], weights[1:, INDEX["jawOpen"]])[0, 1]) < 0.06


def test_performances_follow_each_other_and_can_be_cut() -> None:
    both = resting(2) + perform(1, 10, "calm")
    assert len(both) == 12 and same(both[2:], perform(1, 10, "calm")) and len(both[::3]) == 4


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="calm, talking"):
        perform(0, 10, "asleep")
