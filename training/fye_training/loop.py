"""The training loop of all stages: optimizer, averaged weights, log, sample sheets, and resumable checkpoints."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fye_rt.errors import InputError, NumericalError
from fye_rt.files import atomic_file
from fye_rt.timings import Progress
from fye_training.presets import Stage

GRADIENT_NORM = 1.0  # clips gradients: those of the rare batch at alpha_bar = 0 are many times larger
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
LOG_EVERY = 50  # steps


class Task(Protocol):
    """The module that a stage trains, its losses and its sample sheets."""

    module: nn.Module

    def losses(self, step: int) -> dict[str, Tensor]:
        """Scalars of one batch; "loss" is minimised. Random numbers depend on the step alone."""

    def sheet(self, path: Path) -> dict[str, float]:
        """Write a picture of samples, with the averaged weights loaded; returns figures for the log."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, intervals and stopping conditions. A stop writes a checkpoint.

    Attributes:
        folder: folder of checkpoints STAGE.pt, logs STAGE.jsonl and sheets STAGE-STEP.png.
        checkpoint_seconds: time between checkpoints.
        sheet_seconds: time between sheets.
        bfloat16: compute in bfloat16 where PyTorch deems it safe.
        stop_at_step: step at which to stop.
        stop_after_seconds: training time after which to stop.
        stopped: called after every step; True stops.
    """

    folder: Path
    checkpoint_seconds: float = 120.0
    sheet_seconds: float = 300.0
    bfloat16: bool = True
    stop_at_step: int | None = None
    stop_after_seconds: float | None = None
    stopped: Callable[[], bool] = lambda: False


def fit(name: str, task: Task, stage: Stage, run: Run, progress: Progress) -> bool:
    """Train until `stage.steps`, from the stage's checkpoint if it exists.

    On a CPU, resumed training gives the same weights as uninterrupted training, bit for bit.

    Returns:
        Whether the stage is finished; False if a condition of `run` stopped it.

    Raises:
        InputError: the checkpoint belongs to another recipe.
        NumericalError: the loss is not finite.
        OutputError: the folder cannot be written.
    """
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, stage.learning_rate, BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    averaged = {key: value.detach().clone() for key, value in task.module.state_dict().items()}
    path = run.folder / f"{name}.pt"
    step = restore(path, task.module, optimizer, averaged) if path.exists() else 0
    start_time = save_time = sheet_time = time.monotonic()
    current = task.module.state_dict()  # the live tensors, which the optimizer changes in place
    sums: dict[str, Tensor] = {}
    counted, since = 0, time.perf_counter()

    def stop() -> bool:
        late = run.stop_after_seconds is not None and time.monotonic() - start_time >= run.stop_after_seconds
        return late or run.stopped() or (run.stop_at_step is not None and step >= run.stop_at_step)

    while step < stage.steps and not stop():
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * stage.pace(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=run.bfloat16):
            losses = task.losses(step)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
        step += 1
        _average(averaged, current, min(stage.ema, step / (step + 10)))
        for key, value in (*losses.items(), ("gradient_norm", norm)):
            sums[key] = sums.get(key, 0.0) + value.detach()  # stays on the device until it is logged
        counted += 1
        progress(name, step, stage.steps)
        if step % LOG_EVERY == 0 or step == stage.steps:
            if not math.isfinite(float(sums["loss"])):
                raise NumericalError(
                    f"{name}: the loss is not finite at step {step}; resume with a lower learning rate"
                )
            seconds = time.perf_counter() - since
            samples = step * stage.portraits * stage.targets
            entry = {"step": step, "samples": samples} | {key: float(value) / counted for key, value in sums.items()}
            entry["samples_per_second"] = counted * stage.portraits * stage.targets / seconds
            _log(run, name, entry)
            sums, counted, since = {}, 0, time.perf_counter()
        now = time.monotonic()
        if now - save_time >= run.checkpoint_seconds:
            save(path, task.module, optimizer, averaged, step)
            save_time = now
        if now - sheet_time >= run.sheet_seconds:
            _log(run, name, {"step": step} | _sheet(task, averaged, run.folder / f"{name}-{step:06}.png"))
            sheet_time = time.monotonic()
    save(path, task.module, optimizer, averaged, step)
    _log(run, name, {"step": step} | _sheet(task, averaged, run.folder / f"{name}-{step:06}.png"))
    return step >= stage.steps


def finished(name: str, stage: Stage, run: Run) -> bool:
    """Whether a stage has a checkpoint with all its steps done.

    Raises:
        InputError: the checkpoint is damaged.
    """
    path = run.folder / f"{name}.pt"
    return path.exists() and int(read(path).get("step", 0)) >= stage.steps


def save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, averaged: dict[str, Tensor], step: int
) -> None:
    """Write a checkpoint; it appears whole or not at all."""
    state = {"step": step, "module": module.state_dict(), "averaged": averaged, "optimizer": optimizer.state_dict()}
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def restore(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, averaged: dict[str, Tensor]) -> int:
    """Load a checkpoint into module, optimizer and averaged weights; returns its step.

    Raises:
        InputError: the checkpoint is damaged or belongs to other networks.
    """
    state = read(path)
    try:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        if averaged.keys() != state["averaged"].keys():
            raise ValueError("other keys")
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} was written by another recipe; choose a new folder with --run") from error
    for key, value in state["averaged"].items():
        averaged[key].copy_(value)
    return int(state["step"])


def load(module: nn.Module, path: Path, *, strict: bool = True) -> None:
    """Load a checkpoint's averaged weights into a module.

    Args:
        module: module to load into.
        path: path of the checkpoint.
        strict: whether checkpoint and module must have the same keys.

    Raises:
        InputError: the checkpoint is missing, damaged, or belongs to other networks.
    """
    try:
        module.load_state_dict(read(path)["averaged"], strict=strict)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path} was written by another recipe; choose a new folder with --run") from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `save` onto the CPU. Only tensors and plain data are unpickled.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; train that stage first") from error
    except Exception as error:  # torch raises a dozen types on damaged bytes
        raise InputError(f"{path} is not a training checkpoint ({type(error).__name__}); delete it") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is not a training checkpoint; delete it")
    return state


@torch.no_grad()
def _average(averaged: dict[str, Tensor], current: dict[str, Tensor], decay: float) -> None:
    """Update the exponential moving average of the weights, which samples better than the latest weights."""
    floating = [key for key, value in current.items() if value.is_floating_point()]
    torch._foreach_lerp_([averaged[key] for key in floating], [current[key] for key in floating], 1 - decay)


@torch.no_grad()
def _sheet(task: Task, averaged: dict[str, Tensor], path: Path) -> dict[str, float]:
    """Write a sheet with the averaged weights, then restore the current ones."""
    current = {key: value.clone() for key, value in task.module.state_dict().items()}
    task.module.load_state_dict(averaged)
    figures = task.sheet(path)
    task.module.load_state_dict(current)
    return figures


def _log(run: Run, name: str, entry: dict[str, float]) -> None:
    with (run.folder / f"{name}.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
