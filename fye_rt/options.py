"""What a caller can choose about one clip, validated once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fye_rt.errors import OptionError

BLENDED = ("context", "reference", "tiles")
WINDOWS = (*BLENDED, "progressive")
# by method: the settings that it takes
FORECASTS: Mapping[str, tuple[str, ...]] = {
    "off": (),
    "reuse": ("evaluations", "interval", "warm_up", "last_step", "quantity"),
    "taylor": ("evaluations", "interval", "warm_up", "last_step", "quantity", "order", "face_mask"),
    "newton": ("evaluations", "interval", "warm_up", "last_step", "quantity", "order", "face_mask"),
    "paper": ("evaluations", "interval", "warm_up", "face_mask"),
    "calibrated": ("evaluations",),
    "adaptive": ("tolerance", "max_evaluations", "quantity"),
    "quality": (),
    "balanced": (),
    "fast": (),
}
DEFAULT_WINDOWS = "progressive"  # of the command line: for clips of any length; one window is the same in all kinds
DEFAULT_FORECAST = "balanced"  # of the command line: the fastest that costs no quality; `Options` forecasts nothing
QUANTITIES = ("v", "x0", "epsilon")
SOLVERS = ("ddim", "dpm", "unipc")
GUIDANCE = 3.5  # the public code's
COMPUTES = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")
MAX_WINDOW = 32  # the motion modules' positional encoding ends here
MIN_PROGRESSIVE = 3  # frames of a window: two ends, and something between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Which steps the network is evaluated at, and how what it would say at the others is forecast.

    A setting that is None is left to the method; one that the method doesn't take is refused.

    Attributes:
        method: "off": every step. "reuse": the last evaluation. "taylor", "newton": a polynomial through the last
            ones. "paper": the published cache, 12 of 30 steps, its slope corrected. "calibrated": jumps that
            `fye calibrate` has fitted to the model, or else first order. "adaptive": first order, from step
            to step as far as an estimate of the error allows. "quality", "balanced", "fast": presets of
            `fye_rt.forecasts.choose.PRESETS`.
        evaluations: of the network, 1 to as many as there are steps, evenly spread; 2 of 5 steps by default.
        interval: in place of `evaluations`: every so many steps.
        warm_up: first steps that are all evaluated, 1 by default.
        last_step: whether the last step is evaluated, which keeps the detail; it is by default.
        quantity: what is forecast: "v", "x0" or "epsilon", the default.
        order: of the polynomial, 0 to 4; 1 by default.
        face_mask: whether the polynomial counts in the face alone, and the rest is reused.
        tolerance: error of a jump that is accepted, in standard deviations of the latents' noise, above 0.
        max_evaluations: of "adaptive", at least 2.

    Raises:
        OptionError: a value outside its range, or one that the method does not take.
    """

    method: str = "off"
    evaluations: int | None = None
    interval: int | None = None
    warm_up: int | None = None
    last_step: bool | None = None
    quantity: str | None = None
    order: int | None = None
    face_mask: bool | None = None
    tolerance: float | None = None
    max_evaluations: int | None = None

    def __post_init__(self) -> None:
        _require(self.method in tuple(FORECASTS), "forecast", self.method, ", ".join(FORECASTS))
        settings = FORECASTS[self.method]
        for name, value in self.as_dict().items():
            if name != "method" and name not in settings:
                takes = f"it takes {', '.join(settings)}" if settings else "it takes no settings"
                raise OptionError(f"{name}={value!r} does not go with forecast={self.method!r}; {takes}")
        for name, least in (("evaluations", 1), ("interval", 1), ("warm_up", 1), ("max_evaluations", 2)):
            value = getattr(self, name)
            _require(value is None or (_whole(value) and value >= least), name, value, f"{least} or more")
        _require(self.order is None or (_whole(self.order) and 0 <= self.order <= 4), "order", self.order, "0 to 4")
        _require(self.quantity in (None, *QUANTITIES), "quantity", self.quantity, ", ".join(QUANTITIES))
        if self.evaluations is not None and self.interval is not None:
            raise OptionError("evaluations and interval say the same thing twice; give one of them")
        tolerance = self.tolerance
        number = isinstance(tolerance, int | float) and 0 < tolerance < math.inf
        _require(tolerance is None or number, "tolerance", tolerance, "above 0")

    def as_dict(self) -> dict[str, Any]:
        """What was set, by name, for reports."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to denoise one clip.

    Attributes:
        steps: steps of the solver, 1 to 1000.
        guidance: classifier-free guidance scale; at 1 or below only the conditional half is evaluated.
        seed: of the per-frame noise, 0 to 2**64 - 1.
        shared_noise: part of its variance that all frames share, 0 to 1: for a model that was trained so, it makes
            clips steadier. 0 is the public code's.
        forecast: which steps are evaluated and how the others are forecast: a `Forecast`, or the name of its method;
            "off" evaluates all.
        solver: "ddim", "dpm" (DPM-Solver++ 2M) or "unipc" (UniPC of order 2); the last two are for fewer steps.
        windows: "context" (overlapping, cross-faded), "reference" (the public code's list, which wraps around),
            "tiles" (the public code's forward_long: Gaussian blend) or "progressive" (key frames first, then the
            intervals between them: for long clips).
        window_size: frames per network evaluation, 1 to 32; 3 or more with "progressive".
        window_overlap: frames that neighbouring windows share, 0 to window_size - 1; "reference" ignores it,
            as the public code does, and "progressive" shares key frames alone.
        compute: "auto" takes the fastest precision that the backend is proven with.

    Raises:
        OptionError: a value outside its range; the message lists the valid ones.
    """

    steps: int = 30
    guidance: float = GUIDANCE
    seed: int = 0
    shared_noise: float = 0.0
    forecast: Forecast | str = "off"
    solver: str = "ddim"
    windows: str = "context"
    window_size: int = 24
    window_overlap: int = 4
    compute: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "seed", "window_size", "window_overlap"):
            _require(_whole(getattr(self, name)), name, getattr(self, name), "a whole number")
        _require(1 <= self.steps <= 1000, "steps", self.steps, "1 to 1000")
        number = isinstance(self.guidance, int | float)
        _require(number and 0 <= self.guidance <= 100, "guidance", self.guidance, "0 to 100")
        _require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        number = isinstance(self.shared_noise, int | float)
        _require(number and 0 <= self.shared_noise <= 1, "shared_noise", self.shared_noise, "0 to 1")
        _require(1 <= self.window_size <= MAX_WINDOW, "window_size", self.window_size, f"1 to {MAX_WINDOW}")
        _require(
            0 <= self.window_overlap < self.window_size,
            "window_overlap",
            self.window_overlap,
            f"0 to window_size - 1 = {self.window_size - 1}",
        )
        _require(self.solver in SOLVERS, "solver", self.solver, ", ".join(SOLVERS))
        if self.forecasting.method != "off" and self.solver != "ddim":
            raise OptionError(f"forecast={self.forecasting.method!r} forecasts DDIM; solver={self.solver!r} takes none")
        _require(self.windows in WINDOWS, "windows", self.windows, ", ".join(WINDOWS))
        if self.windows == "progressive":
            enough = self.window_size >= MIN_PROGRESSIVE
            _require(
                enough, "window_size", self.window_size, f"{MIN_PROGRESSIVE} to {MAX_WINDOW} with progressive windows"
            )
        _require(self.compute in COMPUTES, "compute", self.compute, ", ".join(COMPUTES))

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for reports."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return settings | {"forecast": self.forecasting.as_dict()}

    @property
    def forecasting(self) -> Forecast:
        """`forecast` with its settings, where only its name was given too."""
        return self.forecast if isinstance(self.forecast, Forecast) else Forecast(method=self.forecast)


def _whole(value: object) -> bool:
    return isinstance(value, int)


def _require(valid: bool, name: str, value: object, allowed: str) -> None:
    if not valid:
        raise OptionError(f"{name}={value!r} is not valid; allowed: {allowed}")
