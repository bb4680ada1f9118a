import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fye_rt.errors import OptionError
from fye_rt.forecast import (
    Extrapolate,
    conversion,
    even,
    every,
    jump,
    jump_table,
    move,
    newton,
    published,
    reuse,
    taylor,
)
from fye_rt.options import QUANTITIES
from fye_rt.schedule import SchedulerConfig, schedule

STEPS = schedule(30, SchedulerConfig())
FORECASTS = [reuse, newton(1), newton(2), newton(3), taylor(1), taylor(2), published()]
histories = st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True).map(lambda known: sorted(known)[::-1])


@pytest.mark.parametrize("steps", [1, 6, 30, 1000])
def test_no_forecast_evaluates_every_step(steps: int) -> None:
    table = jump_table(schedule(steps, SchedulerConfig()))
    assert [jump.step for jump in table.jumps] == list(range(steps))
    assert [jump.end for jump in table.jumps] == list(range(1, steps + 1))
    assert table.ring == 1
    assert {(jump.c, jump.d, jump.b) for jump in table.jumps} == {(1.0, 0.0, 0.0)}


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_true_v_moves_a_noised_point_along_its_own_path(quantity: str) -> None:
    # with v of a known pair (x0, epsilon), DDIM is exact: it arrives at the same pair's point of the next level
    x0, epsilon = 0.7, -1.3
    for row in jump_table(STEPS, quantity=quantity).jumps:
        signal, noise = np.sqrt(STEPS.alpha_bar_t[row.step]), np.sqrt(1 - STEPS.alpha_bar_t[row.step])
        power = STEPS.alpha_bar_prev[row.step]
        x, v = signal * x0 + noise * epsilon, signal * epsilon - noise * x0
        q = row.c * v + row.d * x
        assert q == pytest.approx({"v": v, "x0": x0, "epsilon": epsilon}[quantity], abs=1e-15)
        moved = row.a * x + row.b * v + row.w[0] * q
        assert moved == pytest.approx(np.sqrt(power) * x0 + np.sqrt(1 - power) * epsilon, abs=1e-14)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("extrapolate", FORECASTS)
def test_a_jump_equals_the_steps_it_replaces(extrapolate: Extrapolate, quantity: str) -> None:
    """One step after another with the forecast quantity, against the one sum."""
    generator = np.random.default_rng(0)
    evaluated = [0, 1, 3, 7, 8, 15, 27]  # and nothing after step 27
    table = jump_table(STEPS, evaluated, extrapolate, quantity)
    assert table.evaluations == len(evaluated)
    x, known = generator.normal(size=5), []
    collapsed, kept = x, []
    for step in range(30):
        if step in evaluated:
            v = generator.normal(size=5)  # of the slow loop and of the fast one, which stand at the same point
            c, d = conversion(STEPS.alpha_bar_t[step], quantity)
            known.insert(0, (step, c * v + d * x))
            a, b = move(STEPS, step, "v")
            x = a * x + b * v
            row = table.jumps[len(known) - 1]
            kept.insert(0, row.c * v + row.d * collapsed)
            collapsed = row.a * collapsed + row.b * v + sum(w * q for w, q in zip(row.w, kept, strict=False))
        else:
            weights = extrapolate([past for past, _ in known], step)
            a, b = move(STEPS, step, quantity)
            x = a * x + b * sum(w * q for w, (_, q) in zip(weights, known, strict=False))
        if step + 1 in evaluated or step == 29:
            np.testing.assert_allclose(collapsed, x, rtol=1e-12, atol=1e-12)


def test_a_forecast_of_no_step_is_plain_ddim_to_the_last_bit() -> None:
    for extrapolate in FORECASTS:
        assert jump_table(STEPS, range(30), extrapolate) == jump_table(STEPS)


@given(histories, st.integers(0, 300), st.sampled_from(FORECASTS))
def test_forecast_weights_sum_to_1(history: list[int], ahead: int, extrapolate: Extrapolate) -> None:
    weights = np.array(extrapolate(history, history[0] + ahead))
    assert weights.sum() == pytest.approx(1, abs=1e-9 * max(1.0, float(np.abs(weights).max())))


@given(histories, st.integers(0, 30), st.integers(0, 3))
def test_newton_is_exact_for_polynomials_of_its_order(history: list[int], ahead: int, order: int) -> None:
    degree = min(order, len(history) - 1)
    weights = newton(order)(history, history[0] + ahead)

    def polynomial(step: int) -> float:
        return sum((k + 1) * ((step - history[0]) / 100) ** k for k in range(degree + 1))

    forecast = sum(w * polynomial(step) for w, step in zip(weights, history, strict=False))
    scale = sum(abs(w * polynomial(step)) for w, step in zip(weights, history, strict=False))
    assert forecast == pytest.approx(polynomial(history[0] + ahead), abs=1e-10 * max(1.0, scale))


def test_taylor_has_the_true_slope_and_is_not_exact_for_a_parabola() -> None:
    assert taylor(1)([9, 6], 11) == pytest.approx([1 + 2 / 3, -2 / 3])
    assert taylor(1)([9, 6], 11) == pytest.approx(newton(1)([9, 6], 11))
    weights = taylor(2)([9, 6, 3], 11)
    parabola = sum(w * step**2 for w, step in zip(weights, [9, 6, 3], strict=True))
    assert parabola != pytest.approx(11**2)
    # derivatives by differences of differences: 2 (7.5) 2 + 2 * 2^2 / 2 above 81
    assert parabola == pytest.approx(81 + 15 * 2 + 2 * 2)


def test_the_published_cache_reuses_first_and_then_extrapolates() -> None:
    assert published()([21, 18], 23) == [1.0]
    assert published()([27, 24], 28) == pytest.approx([1 + 1 / 3, -1 / 3])
    assert every(30, interval=3, warm_up=2) == [0, 1, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29]  # 12 of 30
    assert every(7, interval=3, last=False) == [0, 3]


def test_even_steps_have_the_first_and_the_last() -> None:
    assert even(30, 6) == [0, 6, 12, 17, 23, 29]
    assert even(30, 1) == [0]
    assert even(30, 6, warm_up=3) == [0, 1, 2, 11, 20, 29]
    assert even(30, 2, warm_up=3) == [0, 1]
    assert even(30, 6, last=False) == [0, 5, 10, 15, 20, 25]
    for steps in (2, 7, 30):
        for evaluations in range(2, steps + 1):
            chosen = even(steps, evaluations)
            assert len(set(chosen)) == evaluations and (chosen[0], chosen[-1]) == (0, steps - 1)


def test_at_pure_noise_epsilon_is_the_latents() -> None:
    first, second = jump_table(STEPS, [0, 2], newton(1), "epsilon").jumps
    assert (first.c, first.d) == (0, 1) and first.b != 0
    assert second.b == 0 and len(second.w) == 2
    assert jump(STEPS, [0], 1, reuse, "epsilon").a == move(STEPS, 0, "v")[0]


@pytest.mark.parametrize("evaluated", [[], [1, 2], [0, 2, 2], [0, 3, 1], [0, 30]])
def test_evaluated_steps_that_do_not_ascend_from_0_are_refused(evaluated: list[int]) -> None:
    with pytest.raises(OptionError, match="ascend from 0 to at most 29"):
        jump_table(STEPS, evaluated)
