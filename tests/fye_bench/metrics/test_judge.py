"""Quality metrics have the values that their definitions promise."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_bench.metrics.images import MOST_DECIBEL, distances, psnr, steadiness
from fye_bench.metrics.judge import Judge, Scores, change, summarise
from fye_bench.metrics.statistics import correlation, groups, mean, paired
from fye_bench.metrics.texture import texture_error
from fye_bench.metrics.truth import CASES, Drawn, cases, draw
from fye_rt.errors import InputError, OptionError
from fye_training.identity import FAMILIES, is_held_out
from fye_training.performance import KINDS

SIZE = (128, 128)


@pytest.fixture(scope="module")
def clip() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(20, 200, (3, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    """An exaggerated clip of each family."""
    return [draw(case, SIZE, frames=5, stride=6) for case in cases(20) if case.kind == "exaggerated"]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def true(drawn: list[Drawn], judge: Judge) -> list[Scores]:
    return [judge.true(one) for one in drawn]


@pytest.fixture(scope="module")
def copied(drawn: list[Drawn], judge: Judge) -> list[Scores]:
    return [judge.copied(one) for one in drawn]


def test_identical_clips_are_perfect(clip: NDArray[np.uint8]) -> None:
    found = distances(clip, clip, np.ones(clip.shape[:3], np.float32))
    perfect = {"l1": 0.0, "psnr": MOST_DECIBEL, "ssim": pytest.approx(1.0)}
    assert found == perfect | {f"face_{name}": value for name, value in perfect.items()}
    assert steadiness(clip, clip) == {"flicker": 1.0, "temporal_error": 0.0}


def test_a_known_offset_has_its_known_distance(clip: NDArray[np.uint8]) -> None:
    brighter = clip + np.uint8(10)
    mask = np.zeros(clip.shape[:3], np.float32)
    found = distances(brighter, clip, np.ones_like(mask))
    assert found["l1"] == found["face_l1"] == 10
    assert found["psnr"] == found["face_psnr"] == pytest.approx(20 * math.log10(255 / 10))
    # a steady error is no flicker
    assert steadiness(brighter, clip) == {"flicker": 1.0, "temporal_error": 0.0}

    spoilt = clip.copy()
    spoilt[:, :32] += np.uint8(10)
    mask[:, 32:] = 1
    assert distances(spoilt, clip, mask)["face_psnr"] == MOST_DECIBEL
    assert psnr(spoilt, clip) == pytest.approx(20 * math.log10(255 / 10) + 10 * math.log10(2))

    nowhere = distances(spoilt, clip, np.zeros_like(mask))
    assert math.isnan(nowhere["face_psnr"]) and nowhere["psnr"] == psnr(spoilt, clip)


def test_flicker_compares_changes_with_those_of_the_truth() -> None:
    true = np.zeros((4, 64, 64, 3), np.uint8)
    true += 2 * np.arange(4, dtype=np.uint8)[:, None, None, None]
    restless = true.copy()
    restless[1::2] += np.uint8(6)
    # changes of +8, -4, +8 where the truth has +2, +2, +2
    assert steadiness(restless, true) == {"flicker": pytest.approx(20 / 6), "temporal_error": pytest.approx(6)}
    assert steadiness(np.repeat(true[:1], 4, axis=0), true) == {"flicker": 0.0, "temporal_error": 2.0}
    assert math.isnan(steadiness(true[:1], true[:1])["flicker"])


def test_clips_of_different_shapes_are_refused(clip: NDArray[np.uint8], drawn: list[Drawn], judge: Judge) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        psnr(clip[:2], clip)
    with pytest.raises(InputError, match="give uint8"):
        judge.compare(drawn[0], drawn[0].frames[:1])


def test_a_texture_follows_the_face_and_not_its_place(drawn: list[Drawn]) -> None:
    for one in drawn:
        assert texture_error(one.frames, one.face, one.frames, one.face) == 0
        portrait = np.repeat(one.portrait[None], len(one), axis=0)
        known = texture_error(portrait, one.portrait_face.still(len(one)), one.frames, one.face)
        misplaced = texture_error(portrait, one.face, one.frames, one.face)
        # light and resampling remain where the mesh is right; a wrong mesh shows the wrong part of the picture
        assert known < 0.8 * misplaced
        tinted = np.clip(one.frames.astype(int) - 20, 0, 255).astype(np.uint8)
        assert texture_error(tinted, one.face, one.frames, one.face) == pytest.approx(20, abs=2)  # clipped at black


def test_the_true_frames_beat_copying_the_portrait(true: list[Scores], copied: list[Scores]) -> None:
    best, worst = summarise(true), summarise(copied)
    for name in ("l1", "face_l1", "temporal_error", "identity_error", "eyes_error", "mouth_error", "lips_error"):
        assert best[name]["mean"] < worst[name]["mean"], name
    for name in ("psnr", "ssim", "face_psnr", "face_ssim", "eyes_correlation", "gaze_correlation", "mouth_correlation"):
        assert best[name]["mean"] > worst[name]["mean"], name
    assert best["flicker"]["mean"] == 1
    assert worst["flicker"]["mean"] == worst["portrait_error"]["mean"] == worst["mouth_correlation"]["mean"] == 0


def test_a_change_is_the_difference_of_two_runs(true: list[Scores], copied: list[Scores]) -> None:
    first, second = summarise(copied), summarise(true)
    for name, estimate in change(copied, true).items():
        assert estimate["mean"] == pytest.approx(first[name]["mean"] - second[name]["mean"]), name
        assert estimate["of"] == pytest.approx(second[name]["mean"]), name
        assert estimate["low"] <= estimate["mean"] <= estimate["high"], name
    assert {estimate["mean"] for estimate in change(true, true).values()} == {0.0}


def test_the_same_clip_has_the_same_scores(drawn: list[Drawn], judge: Judge) -> None:
    again = draw(drawn[0].case, SIZE, frames=5, stride=6)
    assert np.array_equal(again.frames, drawn[0].frames)
    first, second = judge.compare(drawn[0], drawn[0].frames[::-1]), judge.compare(again, again.frames[::-1])
    assert first.numbers == second.numbers and np.array_equal(first.read, second.read)


def test_the_suite_is_held_out_and_shows_everything_evenly() -> None:
    suite = cases(20)
    assert all(is_held_out(case.identity_seed) and case.motion_seed >= 2**31 for case in suite)
    assert {(case.family, case.kind) for case in suite} == {(family, kind) for family in FAMILIES for kind in KINDS}
    assert cases(7) == suite[:7]
    families = [case.family for case in cases()]
    assert {families.count(family) for family in FAMILIES} == {CASES // len(FAMILIES)}
    with pytest.raises(OptionError, match="give 1 or more"):
        cases(0)


def test_landmark_images_are_those_of_the_truth(drawn: list[Drawn]) -> None:
    from fye_rt.landmarks import draw as draw_landmarks

    for one in drawn:
        assert np.array_equal(one.landmarks, draw_landmarks(one.face.points, SIZE))


def test_an_interval_holds_its_mean_and_leaves_unknown_cases_out() -> None:
    estimate = mean([1.0, 2.0, 3.0, math.nan])
    assert estimate["mean"] == 2 and estimate["n"] == 3
    assert 1 <= estimate["low"] < 2 < estimate["high"] <= 3
    assert mean([math.nan]) == {"mean": None, "low": None, "high": None, "n": 0}


def test_correlation_is_pearsons_over_all_frames() -> None:
    random = np.random.default_rng(0)
    truth = [random.normal(size=n) for n in (5, 9, 16)]
    read = [column + random.normal(size=len(column)) for column in truth]
    expected = np.corrcoef(np.concatenate(truth), np.concatenate(read))[0, 1]
    estimate = correlation(truth, read)
    assert estimate["mean"] == pytest.approx(expected)
    assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert correlation(truth, [0 * column for column in read])["mean"] == 0
    assert correlation([0 * column for column in truth], read)["mean"] is None


def test_a_paired_change_is_narrower_than_the_cases_spread() -> None:
    old = list(np.linspace(10, 30, 8))
    found = paired([value * 1.01 for value in old], old)
    assert found["mean"] / found["of"] == pytest.approx(0.01)
    assert found["high"] - found["low"] < 0.2 < np.ptp(old)


def test_groups_are_all_families_and_kinds() -> None:
    labels = [{"family": case.family, "kind": case.kind} for case in cases(5)]
    found = groups(labels)
    assert list(found) == ["all", *FAMILIES, *KINDS]
    assert found["all"] == [0, 1, 2, 3, 4] and found["people"] == [0, 4] and found["calm"] == [0]
