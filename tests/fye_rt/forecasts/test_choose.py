from typing import Any

import numpy as np
import pytest

from fye_rt import forecast
from fye_rt.arrays import Array
from fye_rt.errors import InputError, OptionError
from fye_rt.forecast import Forecaster, JumpTable
from fye_rt.forecasts.adaptive import Adaptive
from fye_rt.forecasts.choose import PRESETS, choose_forecast
from fye_rt.forecasts.fitted import Fitted
from fye_rt.noise import frame_noise
from fye_rt.options import Forecast, Options
from fye_rt.schedule import SchedulerConfig, schedule
from tests.fye_rt.networks import denoised, smooth

TABLE = schedule(30, SchedulerConfig())
NOISE = frame_noise(0, range(6), 8, 8)


def slow(latents: Array, timestep: int) -> Array:
    return smooth(latents, timestep, 300.0)


def run(chosen: Forecaster, noise: Array = NOISE, seen: list[int] | None = None, **more: Any) -> Array:
    def evaluate(latents: Array, timestep: int, frames: Any) -> tuple[None, Array]:
        if seen is not None and frames[0] == 0:
            seen.append(int(np.flatnonzero(TABLE.timesteps == timestep)[0]))
        return None, slow(latents, timestep)

    return denoised(evaluate, TABLE, chosen, None, noise, **more)


def of(**settings: Any) -> Forecaster:
    return choose_forecast(TABLE, Options(forecast=Forecast(**settings)))


def steps(chosen: Forecaster) -> list[int]:
    seen: list[int] = []
    run(chosen, seen=seen)
    return seen


FULL = run(of())


@pytest.mark.parametrize(
    ("settings", "evaluated"),
    [
        ({"method": "reuse", "evaluations": 6}, [0, 6, 12, 17, 23, 29]),
        ({"method": "newton", "interval": 10}, [0, 10, 20, 29]),
        ({"method": "taylor", "interval": 10, "warm_up": 3, "last_step": False}, [0, 1, 2, 10, 20]),
        ({"method": "paper"}, [0, 1, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29]),
        ({"method": "adaptive", "tolerance": 1e9}, [0, 1, 3, 7, 15, 29]),  # a jump is at most twice the one before
    ],
)
def test_a_method_evaluates_the_steps_that_its_settings_name(settings: dict[str, Any], evaluated: list[int]) -> None:
    assert steps(of(**settings)) == evaluated


def test_polynomials_evaluate_as_often_as_the_published_cache_by_default() -> None:
    for name in ("reuse", "taylor", "newton"):
        assert of(method=name).evaluations == of(method="paper").evaluations == 12


def test_higher_order_forecasts_come_nearer_to_the_full_run() -> None:
    errors = {
        name: np.abs(run(of(method=name, evaluations=10)) - FULL).mean() for name in ("reuse", "taylor", "newton")
    }
    assert errors["taylor"] == errors["newton"]  # the first order of both
    assert errors["newton"] < errors["reuse"] / 2
    second = np.abs(run(of(method="newton", order=2, evaluations=10, warm_up=2)) - FULL).mean()
    assert second < errors["newton"]


@pytest.mark.parametrize("quantity", ["v", "x0", "epsilon"])
@pytest.mark.parametrize("name", ["reuse", "taylor", "newton"])
def test_a_method_that_evaluates_every_step_is_plain_ddim(name: str, quantity: str) -> None:
    everything = run(of(method=name, quantity=quantity, evaluations=30))
    if quantity == "v":
        np.testing.assert_array_equal(everything, FULL)
    np.testing.assert_allclose(everything, FULL, rtol=0, atol=1e-5)


def test_one_evaluated_step_is_one_step_of_the_first_prediction() -> None:
    single = schedule(1, SchedulerConfig())
    ddim = forecast.jump_table(single)
    expected = denoised(lambda latents, timestep, frames: (None, slow(latents, timestep)), single, ddim, None, NOISE)
    # x0 that is reused on the way arrives where one step of it goes
    np.testing.assert_allclose(run(of(method="reuse", evaluations=1, quantity="x0")), expected, rtol=0, atol=1e-5)


def test_a_face_mask_forecasts_inside_and_reuses_outside() -> None:
    face = np.zeros((6, 8, 8), np.bool_)
    face[:, 2:5, 3:7] = True
    masked = run(of(method="newton", evaluations=8, face_mask=True, quantity="v"), face=face)
    whole, reused = (run(of(method=name, evaluations=8, quantity="v")) for name in ("newton", "reuse"))
    np.testing.assert_array_equal(masked[..., face], whole[..., face])
    np.testing.assert_array_equal(masked[..., ~face], reused[..., ~face])
    with pytest.raises(InputError, match="region"):
        run(of(method="newton", evaluations=8, face_mask=True))


def test_the_published_cache_reuses_outside_its_face_mask() -> None:
    nowhere, everywhere = np.zeros((6, 8, 8), np.bool_), np.ones((6, 8, 8), np.bool_)
    masked = of(method="paper", face_mask=True)
    np.testing.assert_array_equal(run(masked, face=everywhere), run(of(method="paper")))
    reused = run(of(method="reuse", quantity="v", interval=3, warm_up=2))
    np.testing.assert_array_equal(run(masked, face=nowhere), reused)


def test_adaptive_evaluates_more_for_a_smaller_tolerance_and_comes_nearer() -> None:
    counts, errors = [], []
    for tolerance in (0.1, 0.01, 0.001):
        seen: list[int] = []
        made = run(of(method="adaptive", tolerance=tolerance), seen=seen)
        assert seen[:2] == [0, 1] and seen[-1] == 29
        counts.append(len(seen))
        errors.append(np.abs(made - FULL).mean())
    assert counts[0] < counts[1] < counts[2] < 30
    assert errors[0] > errors[1] > errors[2]


def test_adaptive_keeps_to_its_evaluations_and_evaluates_the_last_step() -> None:
    progress: list[tuple[str, int, int]] = []
    seen: list[int] = []
    chosen = of(method="adaptive", tolerance=1e-6, max_evaluations=7)
    run(chosen, seen=seen, progress=lambda *step: progress.append(step))
    assert len(seen) == 7 and seen[-1] == 29
    assert progress[-1] == ("denoise", 7, 7)


def test_adaptive_reports_at_the_end_how_many_it_took() -> None:
    progress: list[tuple[str, int, int]] = []
    run(of(method="adaptive", tolerance=0.1), progress=lambda *step: progress.append(step))
    assert progress[0] == ("denoise", 1, 30)
    assert progress[-1][1] == progress[-1][2] < 30


def test_a_forecaster_keeps_nothing_of_one_clip_for_the_next() -> None:
    other = frame_noise(5, range(6), 8, 8) * 2
    for chosen in (of(method="adaptive", tolerance=0.02), of(method="newton", order=2, evaluations=9)):
        first = run(chosen)
        between = run(chosen, other)
        np.testing.assert_array_equal(run(chosen), first)
        np.testing.assert_array_equal(run(chosen, other), between)

        def stop(index: int, timestep: int, latents: Array) -> None:
            if index > 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(chosen, other, on_step=stop)
        np.testing.assert_array_equal(run(chosen), first)


def test_interleaved_clips_of_one_forecaster_do_not_disturb_each_other() -> None:
    chosen = of(method="adaptive", tolerance=0.02)
    other = frame_noise(5, range(6), 8, 8) * 2
    expected, inner = run(chosen), run(chosen, other)

    def interrupt(index: int, timestep: int, latents: Array) -> None:
        np.testing.assert_array_equal(run(chosen, other), inner)

    np.testing.assert_array_equal(run(chosen, on_step=interrupt), expected)


def test_adaptive_with_no_tolerance_is_plain_ddim() -> None:
    chosen = of(method="adaptive", tolerance=1e-12)
    assert isinstance(chosen, Adaptive)
    np.testing.assert_allclose(run(chosen), FULL, rtol=0, atol=1e-5)


def test_calibrated_takes_a_table_that_fits() -> None:
    table = forecast.jump_table(TABLE, [0, 5, 29])
    fitted = [Fitted(30, (1.0, 2.0), table, 0.0)]
    settings = Forecast(method="calibrated", evaluations=3)
    assert choose_forecast(TABLE, Options(guidance=2.0, forecast=settings), lambda: fitted) is table


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_takes_its_fitted_table(name: str) -> None:
    evaluations = PRESETS[name].calibrated
    fitted = [Fitted(30, (1.0, 2.0), forecast.jump_table(TABLE, forecast.even(30, n)), 0.0) for n in range(2, 20)]
    chosen = choose_forecast(TABLE, Options(guidance=1.5, forecast=name), lambda: fitted)
    assert chosen.evaluations == evaluations
    assert chosen in [entry.table for entry in fitted]


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_without_a_table_warns_and_evaluates_more(name: str, caplog: pytest.LogCaptureFixture) -> None:
    preset = PRESETS[name]
    assert preset.otherwise > preset.calibrated
    chosen = of(method=name)
    assert chosen == of(method="newton", evaluations=preset.otherwise)
    assert f"no fitted table for {preset.calibrated} evaluations of 30 steps" in caplog.text
    assert f"first order with {preset.otherwise} evaluations" in caplog.text


def test_a_preset_evaluates_every_one_of_few_steps(caplog: pytest.LogCaptureFixture) -> None:
    for count in (2, 5, 8):
        few = schedule(count, SchedulerConfig())
        for name in PRESETS:
            chosen = choose_forecast(few, Options(steps=count, forecast=name))
            assert isinstance(chosen, JumpTable)
            assert [jump.step for jump in chosen.jumps] == list(range(count))
    assert not caplog.text


def test_calibrated_without_a_table_warns_and_is_first_order(caplog: pytest.LogCaptureFixture) -> None:
    settings = Forecast(method="calibrated", evaluations=6)
    chosen = choose_forecast(TABLE, Options(forecast=settings))
    assert chosen == of(method="newton", order=1, quantity="epsilon", evaluations=6)
    assert "fye calibrate BUNDLE --steps 30 --guidance 3.5" in caplog.text


def test_more_evaluations_than_steps_are_refused() -> None:
    with pytest.raises(OptionError, match="allowed: 1 to 30"):
        of(method="reuse", evaluations=31)
