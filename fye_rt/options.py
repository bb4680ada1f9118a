"""Options of one clip, validated once. Every interface parses its input into a `ClipRequest`."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Union

from fye_rt.errors import InputError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fye_rt.landmarks.motion import Motion

ImageSource = Union[str, os.PathLike[str], "NDArray[np.uint8]"]
MotionSource = Union[str, os.PathLike[str], "Motion", "NDArray[np.uint8]"]

BLENDED = ("context", "reference", "tiles")
WINDOWS = (*BLENDED, "progressive")
# settings that each method takes
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
DEFAULT_WINDOWS = "progressive"  # of `parse_request`, for long clips; with one window all kinds are the same
DEFAULT_FORECAST = "balanced"  # of `parse_request`: the fastest that costs no quality; that of `Options` is "off"
QUANTITIES = ("v", "x0", "epsilon")
SOLVERS = ("ddim", "dpm", "unipc")
GUIDANCE = 3.5  # of the reference implementation
COMPUTES = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")
MAX_WINDOW = 32  # frames; the positional encoding of the motion modules ends here
MIN_PROGRESSIVE = 3  # frames of a window: two ends and something between them
MIN_SIDE, MAX_SIDE = 64, 2048  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Decides at which steps the network is evaluated, and how its predictions at the others are forecast.

    None leaves a setting to the method. A setting that the method does not take is refused.

    Attributes:
        method: "off" evaluates every step. "reuse" repeats the last evaluation. "taylor" and "newton" continue the last
            evaluations by a polynomial. "paper" is the published cache, 12 of 30 steps, with its slope corrected.
            "calibrated" follows jumps that `fye calibrate` fitted to the model; without them it is first order.
            "adaptive" is first order, from step to step as far as an estimate of the error allows. "quality",
            "balanced" and "fast" are presets of `fye_rt.forecasts.choose.PRESETS`.
        evaluations: network evaluations, 1 to the number of steps, evenly spread; by default 2 of 5 steps.
        interval: distance between evaluated steps, in place of `evaluations`.
        warm_up: number of first steps that are all evaluated; by default 1.
        last_step: whether the last step is evaluated, which keeps the detail; by default true.
        quantity: forecast quantity: "v", "x0" or "epsilon"; by default "epsilon".
        order: order of the polynomial, 0 to 4; by default 1.
        face_mask: whether the polynomial applies to the face alone, and the rest is reused.
        tolerance: accepted error of a jump, in standard deviations of the latents' noise, above 0.
        max_evaluations: most evaluations of "adaptive", at least 2.

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
        positive = self.tolerance is None or (_number(self.tolerance) and 0 < self.tolerance < math.inf)
        _require(positive, "tolerance", self.tolerance, "above 0")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that are not None, by name, for reports."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to denoise one clip.

    Attributes:
        steps: steps of the solver, 1 to 1000.
        guidance: classifier-free guidance scale, 0 to 100; at 1 or below only the conditional half is evaluated. None:
            the bundle's default.
        seed: random seed of the per-frame noise, 0 to 2**64 - 1.
        shared_noise: share of the noise's variance that all frames have in common, 0 to 1. It makes clips steadier if
            the model was trained so; the reference implementation has 0. None: the bundle's default.
        forecast: a `Forecast`, or the name of its method; "off" evaluates every step.
        solver: "ddim", "dpm" (DPM-Solver++ 2M) or "unipc" (UniPC of order 2); the last two are for fewer steps.
        windows: "context" (overlapping, cross-faded), "reference" (the reference implementation's list, which wraps
            around), "tiles" (the reference implementation's forward_long: Gaussian blend) or "progressive" (key frames
            first, then the intervals between them: for long clips).
        window_size: frames per network evaluation, 1 to 32; 3 or more with "progressive".
        window_overlap: frames that neighbouring windows share, 0 to window_size - 1; ignored by "reference", as in the
            reference implementation, and by "progressive", whose intervals share key frames alone.
        compute: compute precision; "auto" takes the fastest that the backend is proven with.

    Raises:
        OptionError: a value outside its range; the message lists the valid ones.
    """

    steps: int = 30
    guidance: float | None = None
    seed: int = 0
    shared_noise: float | None = None
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
        _require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        for name, highest in (("guidance", 100), ("shared_noise", 1)):
            value = getattr(self, name)
            _require(value is None or (_number(value) and 0 <= value <= highest), name, value, f"0 to {highest}")
        _require(1 <= self.window_size <= MAX_WINDOW, "window_size", self.window_size, f"1 to {MAX_WINDOW}")
        overlaps = f"0 to {self.window_size - 1}, below window_size={self.window_size}"
        _require(0 <= self.window_overlap < self.window_size, "window_overlap", self.window_overlap, overlaps)
        _require(self.solver in SOLVERS, "solver", self.solver, ", ".join(SOLVERS))
        if self.forecasting.method != "off" and self.solver != "ddim":
            method = self.forecasting.method
            raise OptionError(f"forecast={method!r} works with solver='ddim' alone; solver={self.solver!r} takes none")
        _require(self.windows in WINDOWS, "windows", self.windows, ", ".join(WINDOWS))
        if self.windows == "progressive":
            sizes = f"{MIN_PROGRESSIVE} to {MAX_WINDOW} with progressive windows"
            _require(self.window_size >= MIN_PROGRESSIVE, "window_size", self.window_size, sizes)
        _require(self.compute in COMPUTES, "compute", self.compute, ", ".join(COMPUTES))

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, for reports."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"forecast": self.forecasting.as_dict()}

    def resolved(self, guidance: float = GUIDANCE, shared_noise: float = 0.0) -> "Options":
        """Replace each None with the given value."""
        return replace(
            self,
            guidance=guidance if self.guidance is None else self.guidance,
            shared_noise=shared_noise if self.shared_noise is None else self.shared_noise,
        )

    @property
    def forecasting(self) -> Forecast:
        """`forecast` as a `Forecast`, also if only the name of its method was given."""
        return self.forecast if isinstance(self.forecast, Forecast) else Forecast(method=self.forecast)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Changes to the motion before it moves the portrait. It has no settings yet: the motion stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The part of the picture that is animated. It has no settings yet: all of the picture is fitted into the clip."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipRequest:
    """A requested clip. The command line, batches and evaluations parse their input into it (`parse_request`).

    `windows="reference"` reproduces the reference implementation, quirks included: the first frame of a motion only
    anchors it and is dropped; the portrait's darkest 63 levels are one lower; and a portrait in which MediaPipe finds
    no face gets the driving face's landmarks as they are (for all frames, with a notice).

    Attributes:
        portrait: a file, or uint8 (H, W, 3) RGB; it is fitted to `size` and padded with black.
        motion: a driving video, a Motion or its .npz, a legacy template .npy, or landmark images that already fit the
            portrait: a folder of pictures in the order of the numbers in their names, or uint8 (F, H, W, 3). The kind
            of a file is read from its content, not from its name.
        options: how to denoise.
        control: changes to the motion.
        crop: part of the picture to animate.
        size: (height, width) of the clip, multiples of 8, 64 to 2048; None: the bundle's, or that of landmark images.
        frames: number of first frames of the motion to use; None: all.
        portrait_landmarks: landmarks of the fitted portrait, in place of detection: a Motion of one frame, or its file
            (.npz, .npy).
        landmarker: MediaPipe's model file, needed for a video and for a portrait without `portrait_landmarks`; None:
            the downloaded one.

    Raises:
        OptionError: a value outside its range.
        InputError: a size that no clip can have.
    """

    portrait: ImageSource
    motion: MotionSource
    options: Options = field(default_factory=Options)
    control: Control = field(default_factory=Control)
    crop: Crop = field(default_factory=Crop)
    size: tuple[int, int] | None = None
    frames: int | None = None
    portrait_landmarks: "str | os.PathLike[str] | Motion | None" = None
    landmarker: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _require(self.frames is None or (_whole(self.frames) and self.frames >= 1), "frames", self.frames, "1 or more")
        if self.size is not None:
            check_sides(self.size, "the clip")


_SOURCES = ("portrait", "motion", "portrait_landmarks", "landmarker")
_OPTIONS = tuple(f.name for f in fields(Options) if f.name != "forecast")
FORECAST_SETTINGS = tuple(f.name for f in fields(Forecast) if f.name != "method")
SETTINGS = (*_SOURCES, "size", "frames", "forecast", *_OPTIONS, *FORECAST_SETTINGS)  # names that `parse_request` takes


def parse_request(settings: Mapping[str, Any]) -> ClipRequest:
    """Build a request from settings by name, as the command line and files hold them.

    Args:
        settings: values for names in SETTINGS. An absent one, or None, has the default of `ClipRequest`, except that
            windows are progressive, and that the forecast is balanced: off with a solver other than DDIM, calibrated
            with `evaluations`. `size` may be "HxW", and `forecast` a method or an object of `Forecast`'s fields.

    Raises:
        OptionError: an unknown setting, or a value outside its range.
        InputError: a size that no clip can have.
    """
    known = {"portrait": "", "motion": ""} | {name: value for name, value in settings.items() if value is not None}
    if unknown := [name for name in known if name not in SETTINGS]:
        raise OptionError(f"{', '.join(map(repr, unknown))} is not known; allowed: {', '.join(SETTINGS)}")
    size = known.get("size")
    if isinstance(size, str):
        size = parse_size(size)
    elif size is not None and not (isinstance(size, tuple | list) and len(size) == 2 and all(map(_whole, size))):
        raise OptionError(f'size={size!r} is not valid; give "HxW"')
    try:
        options = Options(
            forecast=_forecast(known),
            **{"windows": DEFAULT_WINDOWS} | {name: known[name] for name in _OPTIONS if name in known},
        )
    except TypeError as error:
        raise OptionError(f"an option is of the wrong type ({error})") from error
    sources: dict[str, Any] = {name: known[name] for name in (*_SOURCES, "frames") if name in known}
    return ClipRequest(options=options, size=None if size is None else (size[0], size[1]), **sources)


def _forecast(settings: Mapping[str, Any]) -> Forecast:
    method = settings.get("forecast")
    if isinstance(method, Forecast):
        return method
    if isinstance(method, Mapping):
        if unknown := [name for name in method if name not in ("method", *FORECAST_SETTINGS)]:
            raise OptionError(f"forecast has no {', '.join(map(repr, unknown))}")
        return Forecast(**method)
    if method is None:
        plain = settings.get("solver", "ddim") == "ddim"
        method = ("calibrated" if "evaluations" in settings else DEFAULT_FORECAST) if plain else "off"
    return Forecast(method=method, **{name: settings[name] for name in FORECAST_SETTINGS if name in settings})


def check_sides(size: tuple[int, ...], name: str) -> None:
    """Raise InputError unless the sides of `size` (height, width) are multiples of 8, 64 to 2048."""
    if any(side % 8 or not MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise InputError(f"{name} is {size[0]}x{size[1]}; sides are multiples of 8, {MIN_SIDE} to {MAX_SIDE}")


def parse_size(text: str) -> tuple[int, int]:
    """Parse "HxW" into (height, width).

    Raises:
        OptionError: the text has another form.
    """
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if sides is None:
        raise OptionError(f"size={text!r} is not valid; give height and width in pixels, for instance 512x384")
    return int(sides[1]), int(sides[2])


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(valid: bool, name: str, value: object, allowed: str) -> None:
    if not valid:
        raise OptionError(f"{name}={value!r} is not valid; allowed: {allowed}")
