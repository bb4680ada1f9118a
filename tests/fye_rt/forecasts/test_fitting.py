import numpy as np
import pytest

from fye_rt.arrays import Array
from fye_rt.forecast import Forecaster, even, jump_table, newton
from fye_rt.forecasts.fitting import Recorded, distance, fit, fit_all, record, refine, search, solve
from fye_rt.noise import frame_noise
from fye_rt.schedule import SchedulerConfig, schedule
from tests.fye_rt.networks import denoised, smooth, smooth_network

TABLE = schedule(30, SchedulerConfig())


def clip(seed: int) -> Recorded:
    return record(
        TABLE, lambda latents, step: smooth(latents, TABLE.timesteps[step]), frame_noise(seed, range(4), 8, 8)
    )


def distance_of(forecaster: Forecaster, held_out: Recorded) -> float:
    result = denoised(smooth_network, TABLE, forecaster, None, held_out.latents[0])
    return float(np.sqrt(np.square(result - held_out.latents[-1]).mean()))


CLIPS = [clip(seed) for seed in range(3)]
OTHERS = [clip(seed) for seed in range(10, 13)]


def test_a_recorded_clip_is_plain_ddim() -> None:
    assert CLIPS[0].latents.shape == (31, 1, 4, 4, 8, 8)
    assert CLIPS[0].predictions.shape == (30, 1, 4, 4, 8, 8)
    assert distance_of(jump_table(TABLE), CLIPS[0]) == 0


@pytest.mark.parametrize("evaluations", [4, 6, 8])
def test_fitted_jumps_beat_first_order_on_other_clips(evaluations: int) -> None:
    steps = even(30, evaluations)
    fitted, error = fit(TABLE, CLIPS, steps)
    assert error == pytest.approx(np.sqrt(np.mean([distance_of(fitted, clip) ** 2 for clip in CLIPS])), rel=1e-4)
    of_fitted, of_first_order = (
        np.mean([distance_of(forecaster, other) for other in OTHERS])
        for forecaster in (fitted, jump_table(TABLE, steps, newton(1), "epsilon"))
    )
    assert of_fitted < of_first_order


def test_searched_steps_beat_even_ones() -> None:
    steps = search(TABLE, CLIPS, 6)
    assert len(steps) == 6 and steps[0] == 0 and steps[-1] == 29 and steps == sorted(set(steps))
    searched, even_ones = (fit(TABLE, CLIPS, chosen)[0] for chosen in (steps, even(30, 6)))
    assert np.mean([distance_of(searched, other) for other in OTHERS]) < np.mean(
        [distance_of(even_ones, other) for other in OTHERS]
    )


@pytest.mark.parametrize("evaluations", [5, 6, 8])
def test_refined_steps_beat_searched_ones_also_on_other_clips(evaluations: int) -> None:
    asked: list[tuple[str, int, int]] = []
    searched = search(TABLE, CLIPS, evaluations)
    refined = refine(TABLE, CLIPS, searched, progress=lambda *step: asked.append(step))
    assert refined != searched and [refined[0], refined[-1], len(refined)] == [0, 29, evaluations]
    before, after = (fit(TABLE, CLIPS, steps) for steps in (searched, refined))
    assert after[1] < before[1]
    assert distance(TABLE, OTHERS, after[0]) < distance(TABLE, OTHERS, before[0])
    assert refine(TABLE, CLIPS, refined) == refined
    assert asked[-1][::2] == ("refine", 5 * 30 * len(CLIPS)) and 0 < asked[-1][1] <= asked[-1][2]


def test_refinement_evaluates_nothing_twice() -> None:
    called: list[int] = []

    def counted(latents: Array, step: int) -> Array:
        called.append(step)
        return smooth(latents, TABLE.timesteps[step])

    asked: list[tuple[str, int, int]] = []
    clip = Recorded(counted, CLIPS[0].latents, CLIPS[0].predictions)
    refine(TABLE, [clip], [0, 9, 19, 29], progress=lambda *step: asked.append(step))
    assert called.count(0) == 1 and len(called) == asked[-1][1]
    assert refine(TABLE, [clip], [0, 1, 2], progress=lambda *step: asked.append(step)) == [0, 1, 2]  # there is no room


def test_a_point_whose_x0_and_epsilon_stand_still_arrives_exactly() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(5, 40))  # a target, latents and predictions that have nothing to do with it
    known, end = [12, 7, 3], 17
    a, *w = solve(TABLE, known, end, vectors @ vectors.T)
    x0, epsilon = 0.3, -1.1
    power = TABLE.alpha_bar_t[known]
    v = np.sqrt(power) * epsilon - np.sqrt(1 - power) * x0
    x = np.sqrt(power[0]) * x0 + np.sqrt(1 - power[0]) * epsilon
    level = TABLE.alpha_bar_prev[end - 1]
    assert a * x + np.dot(w, v) == pytest.approx(np.sqrt(level) * x0 + np.sqrt(1 - level) * epsilon)


def test_all_steps_evaluated_has_nothing_to_fit() -> None:
    fitted, error = fit(TABLE, CLIPS[:1], range(30))
    assert error < 1e-4
    assert search(TABLE, CLIPS[:1], 1) == [0]
    assert search(TABLE, CLIPS[:1], 30) == list(range(30))
    assert fitted.evaluations == 30


def test_distance_measures_the_clips_that_a_table_makes() -> None:
    fitted, error = fit(TABLE, CLIPS, even(30, 7))
    assert distance(TABLE, CLIPS, fitted) == pytest.approx(error, rel=1e-6)
    assert distance(TABLE, OTHERS[:1], fitted) == pytest.approx(distance_of(fitted, OTHERS[0]), rel=1e-4)


def test_calibration_gives_each_table_its_error_on_other_clips() -> None:
    progress: list[tuple[str, int, int]] = []
    fitted = fit_all(TABLE, CLIPS, (1.0, 2.0), [4, 8], progress=lambda *step: progress.append(step))
    assert [entry.table.evaluations for entry in fitted] == [4, 8]
    assert fitted[1].error < fitted[0].error
    assert all(entry.guidance == (1.0, 2.0) and entry.steps == 30 for entry in fitted)
    assert progress == sorted(progress) and progress[-1] == ("fit", *(3 * 3 * 12 + 5 * 30 * 3,) * 2)
    for entry in fitted:
        assert entry.error == pytest.approx(distance(TABLE, OTHERS, entry.table), rel=0.5)
    assert np.isnan(fit_all(TABLE, CLIPS[:1], (1.0, 1.0), [4])[0].error)
