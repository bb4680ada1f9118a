"""Choice of the forecaster that the loop follows, from options."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from fye_rt import forecast
from fye_rt.errors import OptionError
from fye_rt.forecast import (
    PAPER_INTERVAL,
    PAPER_WARM_UP,
    Forecaster,
    JumpTable,
    newton,
    published,
    reuse,
    taylor,
)
from fye_rt.forecasts.adaptive import Adaptive
from fye_rt.forecasts.fitted import Fitted, find
from fye_rt.forecasts.solvers import SOLVERS
from fye_rt.options import GUIDANCE, TOLERANCE, Forecast, Options
from fye_rt.schedule import Schedule

logger = logging.getLogger("fye_rt")


@dataclass(frozen=True, slots=True)
class Preset:
    """Numbers of network evaluations, whatever the number of steps.

    Attributes:
        calibrated: evaluations with a table fitted to the model.
        otherwise: evaluations without such a table, with first order on epsilon.
    """

    calibrated: int
    otherwise: int


# docs/measurements/index.md: what each costs in quality
PRESETS = {"quality": Preset(8, 15), "balanced": Preset(6, 12), "fast": Preset(4, 8)}
EVALUATED = 2 / 5  # default share of evaluated steps: that of the published cache


def choose_forecast(schedule: Schedule, options: Options, fitted: Callable[[], Iterable[Fitted]] = tuple) -> Forecaster:
    """Choose the forecaster of one clip.

    Args:
        schedule: the DDIM steps.
        options: options of the clip.
        fitted: reads the tables fitted to the model; called only if they are needed.

    Raises:
        OptionError: more evaluations than the schedule has steps.
    """
    settings = options.forecasting
    quantity = settings.quantity or "epsilon"
    table: JumpTable | None = None
    if settings.method == "off":
        return SOLVERS[options.solver](schedule)
    if settings.method == "paper":
        # the published cache's steps where the settings leave them open
        interval = settings.interval or (None if settings.evaluations else PAPER_INTERVAL)
        settings = replace(settings, warm_up=settings.warm_up or PAPER_WARM_UP, interval=interval)
        steps = _evaluated(settings, len(schedule))
        return forecast.jump_table(schedule, steps, published(), "v", reuse if settings.face_mask else None)
    if settings.method == "adaptive":
        most = settings.max_evaluations or len(schedule)
        return Adaptive(schedule, settings.tolerance or TOLERANCE, most, quantity)
    if settings.method in PRESETS:
        preset = PRESETS[settings.method]
        if preset.calibrated >= len(schedule):
            return forecast.jump_table(schedule)
        settings = Forecast(method="newton", evaluations=min(preset.otherwise, len(schedule)))
        table = _find(schedule, options, fitted, preset.calibrated, preset.otherwise)
    elif settings.method == "calibrated":
        evaluations = len(_evaluated(settings, len(schedule)))
        table = _find(schedule, options, fitted, evaluations, evaluations)
    if table is not None:
        return table
    order = 1 if settings.order is None else settings.order
    extrapolate = {"reuse": reuse, "taylor": taylor(order)}.get(settings.method, newton(order))
    outside = reuse if settings.face_mask else None
    return forecast.jump_table(schedule, _evaluated(settings, len(schedule)), extrapolate, quantity, outside)


def _find(
    schedule: Schedule, options: Options, fitted: Callable[[], Iterable[Fitted]], evaluations: int, otherwise: int
) -> JumpTable | None:
    guidance = GUIDANCE if options.guidance is None else options.guidance
    table = find(fitted(), len(schedule), guidance, evaluations)
    if table is None and otherwise < len(schedule):
        logger.warning(
            "the bundle has no fitted table for %d evaluations of %d steps at guidance %g: using first order with %d "
            "evaluations; make a table with: fye calibrate BUNDLE --steps %d --guidance %g",
            *(evaluations, len(schedule), guidance, otherwise, len(schedule), guidance),
        )
    return table


def _evaluated(settings: Forecast, steps: int) -> list[int]:
    warm_up = settings.warm_up or 1
    last = settings.last_step is not False
    if settings.interval is not None:
        return forecast.every(steps, settings.interval, warm_up, last)
    evaluations = settings.evaluations or max(1, round(EVALUATED * steps))
    if evaluations > steps:
        raise OptionError(f"evaluations={evaluations} is not valid; allowed: 1 to {steps}, the steps")
    return forecast.even(steps, evaluations, warm_up, last)
