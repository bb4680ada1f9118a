import numpy as np
import pytest

from fye_rt.errors import OptionError
from fye_rt.forecast import plan
from fye_rt.schedule import SchedulerConfig, schedule


@pytest.mark.parametrize("steps", [1, 6, 30, 1000])
def test_off_evaluates_every_step_and_keeps_one_prediction(steps: int) -> None:
    table = plan(schedule(steps, SchedulerConfig()))
    assert [jump.step for jump in table.jumps] == list(range(steps))
    assert table.ring == 1
    assert {(jump.c, jump.d) for jump in table.jumps} == {(1.0, 0.0)}


def test_the_true_v_moves_a_noised_point_along_its_own_path() -> None:
    # with v of a known pair (x0, epsilon), DDIM is exact: it arrives at the same pair's point of the next level
    steps = schedule(30, SchedulerConfig())
    x0, epsilon = 0.7, -1.3
    for jump in plan(steps).jumps:
        signal, noise = np.sqrt(steps.alpha_bar_t[jump.step]), np.sqrt(1 - steps.alpha_bar_t[jump.step])
        power = steps.alpha_bar_prev[jump.step]
        moved = jump.a * (signal * x0 + noise * epsilon) + jump.w[0] * (signal * epsilon - noise * x0)
        assert moved == pytest.approx(np.sqrt(power) * x0 + np.sqrt(1 - power) * epsilon, abs=1e-15)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="forecast='guess' is not valid; allowed: off"):
        plan(schedule(4, SchedulerConfig()), "guess")
