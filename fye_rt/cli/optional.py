"""Helpers of several commands: import modules that need an extra, and report on a model and a clip."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fye_rt.cli import terminal
from fye_rt.errors import BackendError

if TYPE_CHECKING:
    from fye_rt.bundle import Bundle
    from fye_rt.clips.clip import Clip, Rendering


def optional(module: str, extra: str) -> Any:
    """Import a module that needs an extra.

    Raises:
        BackendError: the module cannot be imported; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == module.partition(".")[0]:
            remedy = "run in a clone of fye-rt: pip install ."
        else:
            remedy = f"run: pip install 'fye-rt[{extra}]'"
        raise BackendError(f"{module} cannot be imported ({error}); {remedy}") from error


def model_notes(bundle: "Bundle") -> list[str]:
    """Return the note of a bundle's maker to its users, if any."""
    note = bundle.manifest.get("note")
    return [f"{bundle.path}: {note}"] if note else []


def say_written(output: Path | str, clip: "Clip | Rendering") -> None:
    """Print what was made and how long it took."""
    frames, height, width, _ = clip.shape
    seconds = sum(clip.timings.values())
    terminal.say(f"{output}: {frames} frames of {height}x{width} at {clip.fps:g} fps, made in {seconds:.1f} s")
