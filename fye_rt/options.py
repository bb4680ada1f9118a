"""Options of one clip, validated once. Every interface parses its input into a `ClipRequest` (`fye_rt.settings`)."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Union

from fye_rt.errors import InputError, OptionError
from fye_rt.landmarks.control import Control

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
QUANTITIES, SOLVERS = ("v", "x0", "epsilon"), ("ddim", "dpm", "unipc")
TOLERANCE = 0.005  # of the adaptive forecast: docs/measurements/index.md
GUIDANCE = 3.5  # of the reference implementation
FACE_SHARE = 0.35  # of a bundle that does not say which faces are small
COMPUTES = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")
MAX_WINDOW = 32  # frames; the positional encoding of the motion modules ends here
MIN_PROGRESSIVE = 3  # frames of a window: two ends and something between them
MIN_SIDE, MAX_SIDE = 64, 2048  # pixels
CROPS = ("auto", "face", "none", "X,Y,W,H")
FACES = ("largest", "left", "right", "center")
MASKS, COLORS = ("box", "oval", "face"), ("none", "mean")
GAPS = ("refuse", "hold", "skip")


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
            _require(value is None or (is_whole(value) and value >= least), name, value, f"{least} or more")
        _require(self.order is None or (is_whole(self.order) and 0 <= self.order <= 4), "order", self.order, "0 to 4")
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
            _require(is_whole(getattr(self, name)), name, getattr(self, name), "a whole number")
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
class Crop:
    """The part of the picture that is animated, and how the result gets back into the picture.

    Attributes:
        area: "auto" crops to the face if it is small in the fitted picture: if the longer side of its landmarks' box is
            under the bundle's `face_share` of the clip's shorter side. "face" always crops to it, "none" takes the
            whole picture, and "X,Y,W,H" a part in pixels: left, top, width, height. `windows="reference"` never crops.
        scale: side of an automatic crop divided by the longer side of the face's box, 1 to 10. The crop has the clip's
            shape; beyond the picture its border is repeated.
        rotate: whether an automatic crop is turned so that the face is upright.
        face: the face to animate if there are several: "largest", "left", "right", "center" (nearest to the middle), or
            its number from left to right, from 1.
        paste: whether frames are pasted back into the picture, at its full resolution (of at most 4096 pixels a side).
        mask: part of the crop that is pasted: "box", "oval" (an ellipse that touches its sides) or "face" (around all
            landmarks of the clip).
        feather: width of the mask's soft edge, as a share of half the mask's shorter side, 0 to 1.
        color: "mean" gives each frame the mean colour of the picture at the mask's edge; "none" leaves its colours.
        alpha: whether frames have the mask as alpha, instead of the picture around them. Needs `paste`.

    Raises:
        OptionError: a value outside its range.
    """

    area: str = "auto"
    scale: float = 2.3
    rotate: bool = False
    face: str | int = "largest"
    paste: bool = False
    mask: str = "box"
    feather: float = 0.3
    color: str = "none"
    alpha: bool = False

    def __post_init__(self) -> None:
        is_box = isinstance(self.area, str) and re.fullmatch(r"\d{1,5}(,\d{1,5}){3}", self.area) is not None
        _require(is_box or self.area in CROPS[:-1], "Crop.area", self.area, ", ".join(CROPS))
        for name, low, high in (("scale", 1, 10), ("feather", 0, 1)):
            value = getattr(self, name)
            _require(_number(value) and low <= value <= high, f"Crop.{name}", value, f"{low} to {high}")
        for name in ("rotate", "paste", "alpha"):
            _require(isinstance(getattr(self, name), bool), f"Crop.{name}", getattr(self, name), "true or false")
        for name, allowed in (("mask", MASKS), ("color", COLORS)):
            _require(getattr(self, name) in allowed, f"Crop.{name}", getattr(self, name), ", ".join(allowed))
        _check_face("Crop.face", self.face)
        if (changed := self.changed("mask", "feather", "color", "alpha")) and not self.paste:
            raise OptionError(f"{changed[0]} concerns frames that are pasted; set Crop.paste, too, or leave it out")
        if (changed := self.changed("scale", "rotate")) and self.area not in CROPS[:2]:
            raise OptionError(f"{changed[0]} concerns a crop to the face; leave it out, or Crop.area={self.area!r}")

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of a named area, pixels; None for any other area."""
        if self.area in CROPS[:-1]:
            return None
        left, top, width, height = map(int, self.area.split(","))
        return left, top, width, height

    def changed(self, *names: str) -> list[str]:
        """Return those of some fields that are not at their default, for messages: "Crop.scale"."""
        return [f"Crop.{f.name}" for f in fields(self) if f.name in names and getattr(self, f.name) != f.default]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipRequest:
    """A requested clip, into which `fye_rt.settings` parses what interfaces are given.

    `windows="reference"` reproduces the reference implementation, quirks included: the first frame of a motion only
    anchors it and is dropped; the portrait's darkest 63 levels are one lower; and a portrait in which MediaPipe finds
    no face gets the driving face's landmarks as they are (for all frames, with a notice).

    Attributes:
        portrait: a file, or uint8 (H, W, 3) RGB; it is fitted to `size` and padded with black.
        motion: a driving video, a Motion or its .npz, a legacy template .npy, or landmark images that already fit the
            portrait: a folder of pictures in the order of the numbers in their names, or uint8 (F, H, W, 3). The kind
            of a file is read from its content, not from its name.
        options: how to denoise.
        control: changes to the motion before it moves the portrait.
        crop: part of the picture to animate.
        size: (height, width) of the clip, multiples of 8, 64 to 2048; None: the bundle's, or that of landmark images.
        frames: number of first frames of the motion to use; None: all.
        start: second of a driving video, a motion or a template at which the clip begins, 0 or more.
        seconds: length of the used part of the motion, above 0; None: to its end.
        driving_face: the face to follow in a driving video; see `Crop.face`.
        gaps: what becomes of frames of a driving video without a face for more than half a second: "refuse" the video,
            "hold" the last face (before the first one: that one), or "skip" them.
        mirror: whether the motion is mirrored, so that the portrait moves as a mirror image would.
        audio: a file whose sound the clip gets, from its beginning; "none": no sound; None: that of a driving video.
        fps: frames per second at which the motion is played, 0.1 to 1000, in place of its own times; the sound of a
            driving video, which then fits no more, is left out.
        crf: H.264's constant rate factor, 0 (exact but for colours at half resolution) to 51 (worst); 17 looks exact.
        portrait_landmarks: landmarks of the portrait, in place of detection: a Motion of one frame, its file (.npz,
            .npy), or points set by hand (.json, .csv). They are those of the whole picture if they were made from a
            picture of its size, else those of the portrait as the clip shows it before an automatic crop.
        landmarker: MediaPipe's model file, for landmarks that are detected; None: the downloaded one.

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
    start: float = 0.0
    seconds: float | None = None
    driving_face: str | int = "largest"
    gaps: str = "refuse"
    mirror: bool = False
    audio: str | os.PathLike[str] | None = None
    fps: float | None = None
    crf: int = 17
    portrait_landmarks: "str | os.PathLike[str] | Motion | None" = None
    landmarker: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        frames = 1 if self.frames is None else self.frames
        _require(is_whole(frames) and frames >= 1, "frames", frames, "1 or more")
        _require(_number(self.start) and 0 <= self.start < math.inf, "start", self.start, "0 or more seconds")
        length = self.seconds is None or (_number(self.seconds) and 0 < self.seconds < math.inf)
        _require(length, "seconds", self.seconds, "above 0")
        _check_face("driving_face", self.driving_face)
        _require(self.gaps in GAPS, "gaps", self.gaps, ", ".join(GAPS))
        _require(isinstance(self.mirror, bool), "mirror", self.mirror, "true or false")
        _require(self.fps is None or (_number(self.fps) and 0.1 <= self.fps <= 1000), "fps", self.fps, "0.1 to 1000")
        _require(is_whole(self.crf) and 0 <= self.crf <= 51, "crf", self.crf, "0 to 51")
        if self.size is not None:
            check_sides(self.size, "the clip")
        part = ["Crop.area"] if self.crop.area not in ("auto", "none") else self.crop.changed("scale", "rotate")
        if part and self.options.windows == "reference":
            raise OptionError(f"windows='reference' takes the whole picture; leave out {part[0]}, or choose others")
        if self.crop.changed("face") and self.portrait_landmarks is not None:
            raise OptionError("Crop.face chooses among detected faces; leave it out, or leave out portrait_landmarks")


def check_sides(size: tuple[int, ...], name: str) -> None:
    """Raise InputError unless the sides of `size` (height, width) are multiples of 8, 64 to 2048."""
    if any(side % 8 or not MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise InputError(f"{name} is {size[0]}x{size[1]}; sides are multiples of 8, {MIN_SIDE} to {MAX_SIDE}")


def _check_face(name: str, face: str | int) -> None:
    known = face in FACES or (is_whole(face) and isinstance(face, int) and face >= 1)
    _require(known, name, face, f"{', '.join(FACES)}, or a number from 1")


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number, and neither True nor False."""
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(valid: bool, name: str, value: object, allowed: str) -> None:
    if not valid:
        raise OptionError(f"{name}={value!r} is not valid; allowed: {allowed}")
