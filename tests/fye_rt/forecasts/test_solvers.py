from typing import Any

import numpy as np
import pytest

from fye_rt.arrays import Array
from fye_rt.forecasts.solvers import SOLVERS
from fye_rt.noise import frame_noise
from fye_rt.options import SOLVERS as NAMES
from fye_rt.schedule import SchedulerConfig, schedule
from tests.fye_rt.networks import denoised, smooth, smooth_network

CONFIG = SchedulerConfig()
STEPS = (1, 2, 3, 4, 5, 6, 8, 12, 15, 30)
ORACLES: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}),
}


def run(solver: str, steps: int, noise: Array) -> Array:
    table = schedule(steps, CONFIG)
    return denoised(smooth_network, table, SOLVERS[solver](table), None, noise)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("solver", ORACLES)
def test_a_solver_agrees_with_diffusers(solver: str, steps: int) -> None:
    torch = pytest.importorskip("torch", reason="diffusers is the oracle")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle")
    name, settings = ORACLES[solver]
    scheduler = getattr(diffusers, name).from_config(CONFIG.as_dict(), **settings)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == schedule(steps, CONFIG).timesteps.tolist()
    noise = frame_noise(0, range(4), 8, 8)
    expected = torch.from_numpy(noise)
    for timestep in scheduler.timesteps.tolist():
        prediction = torch.from_numpy(smooth(expected.numpy(), timestep))
        expected = scheduler.step(prediction, timestep, expected).prev_sample
    np.testing.assert_allclose(run(solver, steps, noise), expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ORACLES)
def test_every_solver_converges_to_the_limit_of_small_steps(solver: str) -> None:
    noise = frame_noise(1, range(2), 8, 8)
    true = run("ddim", 500, noise)
    errors = [np.abs(run(solver, steps, noise) - true).mean() for steps in (5, 20, 80)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[1] < np.abs(run("ddim", 20, noise) - true).mean()  # second order


@pytest.mark.parametrize("solver", ORACLES)
def test_a_solver_evaluates_every_step_and_keeps_at_most_three_predictions(solver: str) -> None:
    method = SOLVERS[solver](schedule(8, CONFIG))
    assert [jump.step for jump in method.jumps] == list(range(8))
    assert [jump.end for jump in method.jumps] == list(range(1, 9))
    assert method.ring <= 3
    # nothing of the latents is left at the end, and the predictions sum to one picture
    assert method.jumps[-1].a == 0
    assert sum(method.jumps[-1].w) == pytest.approx(1)


def test_options_name_every_solver() -> None:
    assert tuple(SOLVERS) == NAMES
