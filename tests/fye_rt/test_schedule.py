import json
from pathlib import Path

import numpy as np
import pytest

from fye_rt.errors import BundleError, OptionError
from fye_rt.schedule import SchedulerConfig, alpha_bar, schedule

RELEASED = SchedulerConfig()
# the recorded numbers are float32 products of 1000 factors: a few units in the last place (6e-8) each
FLOAT32_PRODUCT = 5e-7


def test_alpha_bar_is_the_recorded_one_and_ends_in_exactly_zero(data: Path) -> None:
    recorded = np.load(data / "schedule" / "alphas_cumprod_zero_snr.npy")
    ours = alpha_bar(RELEASED)
    np.testing.assert_allclose(ours, recorded, rtol=0, atol=FLOAT32_PRODUCT)
    assert ours[-1] == 0
    assert (np.diff(ours) < 0).all()


def test_every_recorded_schedule_is_reproduced(data: Path) -> None:
    recorded = json.loads((data / "schedule" / "ddim_schedule.json").read_text())
    assert len(recorded) == 12
    for steps, expected in recorded.items():
        ours = schedule(int(steps), RELEASED)
        assert ours.timesteps.tolist() == expected["timesteps"]
        assert ours.prev_timesteps.tolist() == expected["prev_timesteps"]
        np.testing.assert_allclose(ours.alpha_bar_t, expected["alpha_bar_t"], rtol=0, atol=FLOAT32_PRODUCT)
        np.testing.assert_allclose(ours.alpha_bar_prev, expected["alpha_bar_prev"], rtol=0, atol=FLOAT32_PRODUCT)


def test_six_steps_end_at_timestep_zero_and_not_at_the_clean_latents() -> None:
    assert schedule(6, RELEASED).prev_timesteps[-1] == 0
    assert schedule(6, RELEASED).alpha_bar_prev[-1] == pytest.approx(1 - 0.00085, abs=1e-12)
    assert schedule(30, RELEASED).alpha_bar_prev[-1] == 1


def test_timesteps_of_every_step_count_agree_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle")
    oracle = diffusers.DDIMScheduler.from_config(RELEASED.as_dict())
    surplus = 0
    for steps in range(1, 1001):
        oracle.set_timesteps(steps)
        ours, theirs = schedule(steps, RELEASED).timesteps, oracle.timesteps.numpy()
        assert len(ours) == steps
        np.testing.assert_array_equal(ours, theirs[:steps])
        assert (theirs[steps:] == -1).all()  # outside the training range
        surplus += len(theirs) > steps
    assert surplus > 0


def test_every_step_count_goes_down_inside_the_training_range() -> None:
    for steps in range(1, 1001):
        ours = schedule(steps, RELEASED)
        assert len(ours) == steps
        assert ours.timesteps[0] == 999
        assert ours.timesteps[-1] >= 0
        assert (np.diff(ours.timesteps) < 0).all()
        assert (ours.prev_timesteps < ours.timesteps).all()
        assert (ours.alpha_bar_prev > ours.alpha_bar_t).all()


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_step_count_out_of_range_is_refused_with_the_range(steps: int) -> None:
    with pytest.raises(OptionError, match=f"steps={steps} is not valid; allowed: 1 to 1000"):
        schedule(steps, RELEASED)


def test_arrays_of_a_schedule_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        schedule(4, RELEASED).timesteps[0] = 0


def test_config_survives_its_json() -> None:
    config = SchedulerConfig(num_train_timesteps=500, beta_start=0.001, beta_end=0.02)
    assert SchedulerConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_config_reads_what_the_released_checkpoint_states() -> None:
    stated = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "clip_sample": False,
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
    }
    assert SchedulerConfig.from_dict(stated) == RELEASED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta_schedule", "linear"),
        ("timestep_spacing", "leading"),
        ("prediction_type", "epsilon"),
        ("rescale_betas_zero_snr", False),
        ("set_alpha_to_one", False),
        ("clip_sample", True),
        ("thresholding", True),
        *(("num_train_timesteps", value) for value in (1, 10**12, 1000.0)),
        *(("beta_start", value) for value in (0, float("nan"))),
        *(("beta_end", value) for value in ("0.012", 1.0)),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BundleError, match=name):
        SchedulerConfig.from_dict(RELEASED.as_dict() | {name: value})
