"""What a caller can choose about one clip, validated once."""

from dataclasses import dataclass, fields
from typing import Any

from fye_rt.errors import OptionError

WINDOWS = ("context", "reference", "tiles")
FORECASTS = ("off",)
SOLVERS = ("ddim", "dpm", "unipc")
COMPUTES = ("auto", "fp32", "bf16", "fp16")
MAX_WINDOW = 32  # the motion modules' positional encoding ends here


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to denoise one clip.

    Attributes:
        steps: steps of the solver, 1 to 1000.
        guidance: classifier-free guidance scale; at 1 or below only the conditional half is evaluated.
        seed: of the per-frame noise, 0 to 2**64 - 1.
        forecast: which steps are evaluated and how the others are forecast; "off" evaluates all.
        solver: "ddim", "dpm" (DPM-Solver++ 2M) or "unipc" (UniPC of order 2); the last two are for fewer steps.
        windows: "context" (overlapping, cross-faded), "reference" (the public code's list, which wraps around)
            or "tiles" (the public code's forward_long: Gaussian blend).
        window_size: frames per network evaluation, 1 to 32.
        window_overlap: frames that neighbouring windows share, 0 to window_size - 1; "reference" ignores it,
            as the public code does.
        compute: "auto" takes the fastest precision that the backend is proven with.

    Raises:
        OptionError: a value outside its range; the message lists the valid ones.
    """

    steps: int = 30
    guidance: float = 3.5
    seed: int = 0
    forecast: str = "off"
    solver: str = "ddim"
    windows: str = "context"
    window_size: int = 24
    window_overlap: int = 4
    compute: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "seed", "window_size", "window_overlap"):
            _require(isinstance(getattr(self, name), int), name, getattr(self, name), "a whole number")
        _require(1 <= self.steps <= 1000, "steps", self.steps, "1 to 1000")
        number = isinstance(self.guidance, int | float)
        _require(number and 0 <= self.guidance <= 100, "guidance", self.guidance, "0 to 100")
        _require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        _require(1 <= self.window_size <= MAX_WINDOW, "window_size", self.window_size, f"1 to {MAX_WINDOW}")
        _require(
            0 <= self.window_overlap < self.window_size,
            "window_overlap",
            self.window_overlap,
            f"0 to window_size - 1 = {self.window_size - 1}",
        )
        _require(self.forecast in FORECASTS, "forecast", self.forecast, ", ".join(FORECASTS))
        _require(self.solver in SOLVERS, "solver", self.solver, ", ".join(SOLVERS))
        _require(self.windows in WINDOWS, "windows", self.windows, ", ".join(WINDOWS))
        _require(self.compute in COMPUTES, "compute", self.compute, ", ".join(COMPUTES))

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for reports."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _require(valid: bool, name: str, value: object, allowed: str) -> None:
    if not valid:
        raise OptionError(f"{name}={value!r} is not valid; allowed: {allowed}")
