"""Define command-line options that several commands share, and turn parameter names in messages into flags."""

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_rt.options import (
    COMPUTES,
    DEFAULT_FORECAST,
    DEFAULT_WINDOWS,
    FORECASTS,
    QUANTITIES,
    SETTINGS,
    SOLVERS,
    WINDOWS,
    Options,
)

DEFAULTS = Options()
_forecast = partial(typer.Option, rich_help_panel="Forecast", show_default=False)
_option = partial(typer.Option, show_default=False)

Quiet = Annotated[bool, typer.Option("--quiet", help="Hide the progress bars.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the logs of MediaPipe and other libraries.")]
Landmarker = Annotated[
    Path | None, _option(metavar="FILE", help="MediaPipe's face_landmarker.task; by default the downloaded file.")
]
Frames = Annotated[int | None, _option(min=1, metavar="N", help="Use only the first N frames of the motion.")]
Backend = Annotated[
    str,
    typer.Option(help="Backend: auto, onnxruntime, openvino, torch, tensorrt, tensorrt-rtx or onnxruntime-cuda."),
]
BundleFolder = Annotated[Path | None, _option(metavar="DIR", help="Model bundle; by default the shipped one.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 means one per physical core.")]
LowMemory = Annotated[bool, typer.Option("--low-memory", help="Release each graph after its last use.")]

# by setting of `fye_rt.options.parse_request`; None: the option is absent
REQUEST: dict[str, Any] = {
    "size": Annotated[
        str | None,
        _option(metavar="HxW", help="Height and width of the clip, multiples of 8; by default the bundle's."),
    ],
    "frames": Frames,
    "landmarker": Landmarker,
    "portrait_landmarks": Annotated[
        Path | None, _option(metavar="FILE", help="Landmarks of the fitted portrait, used instead of detection.")
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
    "compute": Annotated[str | None, _option(help=f"Compute precision: {', '.join(COMPUTES)}; auto by default.")],
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
    "tolerance": Annotated[float | None, _forecast(help="Accepted error of a jump (adaptive); 0.005 by default.")],
    "max_evaluations": Annotated[
        int | None, _forecast(metavar="N", help="Evaluate the network at most N times (adaptive).")
    ],
}


def takes_request(*without: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace a command's parameter `settings` by the options of REQUEST, except some; it receives them by name."""
    names = [name for name in REQUEST if name not in without]

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


_NAMES = (*SETTINGS, "backend", "threads", "low_memory", "resume", "workers", "bundle", "ray")
_ASSIGNED = re.compile(rf"\b({'|'.join(_NAMES)})=('[\w.]+'|\"[\w.]+\"|[^\s,;:)]+)")
_NAMED = re.compile(rf"(?<![\w-])({'|'.join(name for name in _NAMES if '_' in name)})\b")


def as_flags(message: str) -> str:
    """Name a message's parameters as the command line does: `window_size=40` becomes `--window-size 40`."""

    def flag(match: re.Match[str]) -> str:
        return "--" + match[1].replace("_", "-")

    message = _ASSIGNED.sub(lambda match: f"{flag(match)} {match[2].strip(chr(39) + chr(34))}", message)
    return _NAMED.sub(flag, message)
