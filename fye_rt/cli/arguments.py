"""Define command-line options that several commands share, and turn parameter names in messages into flags."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_rt.landmarks.control import Control
from fye_rt.options import (
    COLORS,
    COMPUTES,
    FORECASTS,
    GAPS,
    MASKS,
    QUANTITIES,
    SOLVERS,
    TOLERANCE,
    WINDOWS,
    ClipRequest,
    Crop,
    Options,
)
from fye_rt.settings import CROP_SETTINGS, DEFAULT_FORECAST, DEFAULT_WINDOWS, FORECAST_SETTINGS, SETTINGS

DEFAULTS = Options()
_forecast = partial(typer.Option, rich_help_panel="Forecast", show_default=False)
_option = partial(typer.Option, show_default=False)

Quiet = Annotated[bool, typer.Option("--quiet", help="Hide the progress bars.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the logs of MediaPipe and other libraries.")]
Landmarker = Annotated[
    Path | None, _option(metavar="FILE", help="MediaPipe's face_landmarker.task; by default the downloaded file.")
]
DEFAULT_CROP, DEFAULT_REQUEST = Crop(), ClipRequest(portrait="", motion="")
_place = partial(typer.Option, rich_help_panel="Crop and paste", show_default=False)
_drive = partial(typer.Option, rich_help_panel="Motion and sound", show_default=False)
_change = partial(typer.Option, rich_help_panel="Control", show_default=False)
_face = "largest, left, right, center, or its number from left to right"
Frames = Annotated[int | None, _option(min=1, metavar="N", help="Use only the first N frames of the motion.")]
Backend = Annotated[
    str,
    typer.Option(help="Backend: auto, onnxruntime, openvino, torch, tensorrt, tensorrt-rtx or onnxruntime-cuda."),
]
BundleFolder = Annotated[Path | None, _option(metavar="DIR", help="Model bundle; by default the shipped one.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 means one per physical core.")]
LowMemory = Annotated[bool, typer.Option("--low-memory", help="Release each graph after its last use.")]

# by setting of `fye_rt.settings.parse_request`; None: the option is absent
REQUEST: dict[str, Any] = {
    "size": Annotated[
        str | None,
        _option(metavar="HxW", help="Height and width of the clip, multiples of 8; by default the bundle's."),
    ],
    "crop": Annotated[
        str | None,
        _place(
            metavar="auto|face|none|X,Y,W,H",
            help=f"Part to animate, in pixels; auto crops to a small face; {DEFAULT_CROP.area} by default.",
        ),
    ],
    "crop_scale": Annotated[
        float | None, _place(help=f"Side of an automatic crop, in faces; {DEFAULT_CROP.scale} by default.")
    ],
    "crop_rotate": Annotated[bool | None, _place("--crop-rotate", help="Turn the crop so that the face is upright.")],
    "face": Annotated[str | None, _place(help=f"Face to animate: {_face}; {DEFAULT_CROP.face} by default.")],
    "paste": Annotated[bool | None, _place("--paste", help="Paste the frames back into the picture.")],
    "paste_mask": Annotated[
        str | None, _place(help=f"Part that is pasted: {', '.join(MASKS)}; {DEFAULT_CROP.mask} by default.")
    ],
    "feather": Annotated[
        float | None, _place(help=f"Width of the mask's soft edge, 0 to 1; {DEFAULT_CROP.feather} by default.")
    ],
    "paste_color": Annotated[
        str | None,
        _place(help=f"Colours of pasted frames: {', '.join(COLORS)}; mean adapts them to the picture at the edge."),
    ],
    "alpha": Annotated[
        bool | None,
        _place("--alpha", help="With --paste: frames on transparency; OUT ends in .webm, or is a folder for PNGs."),
    ],
    "frames": Frames,
    "start": Annotated[float | None, _drive(metavar="S", help="Second of the motion to start at.")],
    "seconds": Annotated[float | None, _drive(metavar="S", help="Length of the motion to use, in seconds.")],
    "driving_face": Annotated[str | None, _drive(help=f"Face of a driving video to follow: {_face}.")],
    "gaps": Annotated[
        str | None,
        _drive(help=f"Frames of a video without a face: {', '.join(GAPS)}; {DEFAULT_REQUEST.gaps} by default."),
    ],
    "mirror": Annotated[bool | None, _drive("--mirror", help="Mirror the motion.")],
    "audio": Annotated[str | None, _drive(metavar="FILE|none", help="Sound of the clip; by default the motion's.")],
    "fps": Annotated[float | None, _drive(help="Frames per second, in place of the motion's own times.")],
    "crf": Annotated[
        int | None,
        _drive(metavar="N", help=f"Quality of the mp4, 0 (best) to 51; {DEFAULT_REQUEST.crf} by default."),
    ],
    "edit": Annotated[
        list[str] | None,
        _change(
            metavar="NAME=VALUE,...",
            help="Change what the face does, as in smile=0.6,yaw=10; see docs/guide/control.md for all names: "
            f"{', '.join(field.name for field in fields(Control))}.",
        ),
    ],
    "control": Annotated[
        Path | None, _change(metavar="FILE", help="JSON file of a control, with keyframes; --edit comes on top.")
    ],
    "landmarker": Landmarker,
    "portrait_landmarks": Annotated[
        Path | None,
        _option(metavar="FILE", help="Landmarks of the portrait or points set by hand, used instead of detection."),
    ],
    "steps": Annotated[int | None, _option(metavar="N", help=f"Solver steps; {DEFAULTS.steps} by default.")],
    "guidance": Annotated[float | None, _option(help="Classifier-free guidance scale; by default the bundle's.")],
    "seed": Annotated[int | None, _option(metavar="N", help=f"Random seed of the noise; {DEFAULTS.seed} by default.")],
    "shared_noise": Annotated[
        float | None,
        _option(help="Share of the noise that all frames have in common, 0 to 1; by default the bundle's."),
    ],
    "solver": Annotated[str | None, _option(help=f"Solver: {', '.join(SOLVERS)}; {DEFAULTS.solver} by default.")],
    "windows": Annotated[str | None, _option(help=f"Windows: {', '.join(WINDOWS)}; {DEFAULT_WINDOWS} by default.")],
    "window_size": Annotated[
        int | None, _option(metavar="N", help=f"Frames per network evaluation; {DEFAULTS.window_size} by default.")
    ],
    "window_overlap": Annotated[
        int | None,
        _option(metavar="N", help=f"Frames that neighbouring windows share; {DEFAULTS.window_overlap} by default."),
    ],
    "compute": Annotated[
        str | None, _option(help=f"Compute precision: {', '.join(COMPUTES)}; {DEFAULTS.compute} by default.")
    ],
    "forecast": Annotated[
        str | None,
        _forecast(
            help=f"Forecast of skipped steps: {', '.join(FORECASTS)}; by default {DEFAULT_FORECAST}, calibrated with "
            "--evaluations, off if --solver is not ddim."
        ),
    ],
    "evaluations": Annotated[int | None, _forecast(metavar="N", help="Evaluate the network N times, evenly spread.")],
    "interval": Annotated[int | None, _forecast(metavar="N", help="Evaluate every N-th step instead.")],
    "warm_up": Annotated[int | None, _forecast(metavar="N", help="Evaluate all of the first N steps.")],
    "last_step": Annotated[bool | None, _forecast(help="Evaluate the last step (the default), which keeps detail.")],
    "quantity": Annotated[str | None, _forecast(help=f"Quantity to forecast: {', '.join(QUANTITIES)}.")],
    "order": Annotated[int | None, _forecast(metavar="M", help="Polynomial order, 0 to 4.")],
    "face_mask": Annotated[bool | None, _forecast("--face-mask", help="Reuse predictions outside the face.")],
    "tolerance": Annotated[
        float | None, _forecast(help=f"Accepted error of a jump (adaptive); {TOLERANCE} by default.")
    ],
    "max_evaluations": Annotated[
        int | None, _forecast(metavar="N", help="Evaluate the network at most N times (adaptive).")
    ],
}


# those that concern denoising, and the motion, alone
OF_DENOISING = (*(f.name for f in fields(Options)), *FORECAST_SETTINGS)
OF_MOTION = ("frames", "start", "seconds", "driving_face", "gaps", "mirror", "landmarker")


def takes_request(
    *without: str, only: Sequence[str] = tuple(REQUEST)
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace a command's parameter `settings` by options of REQUEST; it receives them by name."""
    names = [name for name in only if name not in without]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == "settings":
                parameters += [keyword(name, REQUEST[name]) for name in names]
            else:
                parameters.append(parameter)

        def run(**values: Any) -> Any:
            settings = {name: values.pop(name) for name in names}
            return command(**values, settings=settings)

        return signed(run, command, parameters)

    return decorate


def keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Return a parameter for `signed`."""
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def signed(run: Any, command: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """Give `run` the name and docstring of `command`, and parameters for typer to read."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


# typer has its own copy of click in some versions and depends on it in others
ClickException: Any = typer.BadParameter.__mro__[2]


def usage_error(error: Any, program: str) -> str:
    """Word a ClickException as one line that names the help of its command, or of `program`."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else program
    return f"{error.format_message().rstrip('.')}; see: {path} --help"


_FIELDS = {f"Crop.{field}": name for name, field in CROP_SETTINGS.items()}
_NAMES = (*SETTINGS, *_FIELDS, "backend", "threads", "low_memory", "resume", "workers", "bundle", "ray", "arch")
_ASSIGNED = re.compile(rf"\b({'|'.join(_NAMES)})=('[\w.,]+'|\"[\w.]+\"|[^\s,;:)]+)")
_NAMED = re.compile(rf"(?<![\w-])({'|'.join(name for name in _NAMES if '_' in name or '.' in name)})\b")


def as_flags(message: str) -> str:
    """Name a message's parameters as the command line does: `window_size=40` becomes `--window-size 40`."""

    def flag(match: re.Match[str]) -> str:
        return "--" + _FIELDS.get(match[1], match[1]).replace("_", "-")

    def assigned(match: re.Match[str]) -> str:
        value = match[2].strip("'\"")
        return flag(match) if value == "True" else f"{flag(match)} {value}"

    return _NAMED.sub(flag, _ASSIGNED.sub(assigned, message))
