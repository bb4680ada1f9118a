"""Train a small model from scratch, or resume its training.

    python -m fye_training.train --preset mini --run RUN

RUN holds a checkpoint, a log and sample sheets of each stage, and at the end RUN/checkpoint: the model in the released
layout, for `fye export`. After Ctrl-C, kill or `--minutes` the same command resumes, on a CPU bit for bit.
"""

import argparse
import math
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fye_export import networks, weights
from fye_export.config import ModelConfig
from fye_export.layout import write
from fye_rt.bundle import Bundle
from fye_rt.cli.terminal import Bars
from fye_rt.errors import FyeError, InputError, OptionError
from fye_rt.files import atomic_file
from fye_rt.timings import Progress
from fye_training import loop
from fye_training.animation import AnimationTask
from fye_training.autoencoder import AutoencoderTask, encode, placed
from fye_training.forward import TRAINED, Animation, fresh
from fye_training.pool import Chunk, Order, Pool, draw_chunk
from fye_training.presets import PRESETS, Preset

SHEET_IDENTITIES, SHEET_FRAMES = 6, 6


def train(
    preset: Preset,
    run: loop.Run,
    stages: Sequence[str],
    *,
    seed: int,
    device: torch.device,
    workers: int,
    progress: Progress,
) -> bool:
    """Train the unfinished stages in order.

    Returns:
        Whether all of them are finished.

    Raises:
        InputError: an earlier stage has not been trained, or a checkpoint does not fit.
        OutputError: the folder cannot be written.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in stages:
        stage = preset.stages[name]
        if loop.finished(name, stage, run):
            continue
        task_of = {"vae": _autoencoder, "decoder": _autoencoder, "image": _images, "motion": _clips}[stage.learns]
        with _Stage(preset, name, run, seed, device, workers) as setting:
            if not loop.fit(name, task_of(setting), stage, run, progress):
                return False
    return True


class _Stage:
    """Inputs of a stage: its recipe, its frames, and the weights of earlier stages."""

    def __init__(self, preset: Preset, name: str, run: loop.Run, seed: int, device: torch.device, workers: int) -> None:
        self.preset, self.name, self.run = preset, name, run
        self.device, self.workers = device, workers
        self.stage = preset.stages[name]
        self.seed = seed + self.stage.seed
        self.pools: list[Pool] = []

    def __enter__(self) -> "_Stage":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self.pools:
            pool.close()

    def pool(self, order: Order, vae: nn.Module | None = None, scale: float = 1.0) -> Pool:
        per_step = self.stage.portraits * self.stage.targets
        steps = max(1, round(order.identities * (order.frames - 1) * self.preset.reuse / per_step))
        pool = Pool(
            order,
            self.preset.window,
            steps,
            None if vae is None else lambda frames: encode(vae, frames) * np.float32(scale),
            self.workers,
        )
        self.pools.append(pool)
        return pool

    def order(self, frames: int | None = None) -> Order:
        poses = _poses(self.preset, self.seed, self.stage.size)
        return poses if frames is None else replace(poses, frames=frames, strides=self.stage.strides)

    def begin(self, module: nn.Module) -> None:
        """Load the weights of the stages that this one starts from; the module may lack parts of them."""
        for name in self.stage.start:
            loop.load(module, self.run.folder / f"{name}.pt", strict=False)

    def vae(self) -> tuple[nn.Module, float]:
        """The VAE of the earlier stages, and its scaling factor."""
        return _trained_vae(self.preset, self.run, self.seed - self.stage.seed, self.device, before=self.name)

    def held_out(self, order: Order, vae: nn.Module | None = None, scale: float = 1.0) -> Chunk:
        chunk = draw_chunk(replace(order, identities=SHEET_IDENTITIES, frames=SHEET_FRAMES), held_out=True, number=0)
        if vae is None:
            return chunk
        latents = encode(vae, chunk.frames.reshape(-1, *chunk.frames.shape[2:])) * np.float32(scale)
        return replace(chunk, latents=latents.reshape(*chunk.frames.shape[:2], *latents.shape[1:]))


def _poses(preset: Preset, seed: int, size: int) -> Order:
    return Order(
        seed=seed,
        identities=preset.chunk,
        frames=preset.frames,
        size=size,
        clip_side=preset.model.image_encoder.image_size,
    )


def _autoencoder(setting: _Stage) -> AutoencoderTask:
    order = setting.order()
    frames = setting.held_out(order).frames[:, 1:3]
    held_out = frames.reshape(-1, *frames.shape[2:])
    task = AutoencoderTask(setting.preset, setting.stage, setting.pool(order), setting.seed, setting.device, held_out)
    setting.begin(task.module)
    return task


def _images(setting: _Stage) -> AnimationTask:
    module = fresh(setting.preset.model, motion=False, seed=setting.seed)
    setting.begin(module)
    module.requires_grad_(True)
    return _animation(setting, module, setting.order())


def _clips(setting: _Stage) -> AnimationTask:
    module = fresh(setting.preset.model, motion=True, seed=setting.seed)
    setting.begin(module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("motion_modules" in name)
    return _animation(setting, module, setting.order(frames=setting.stage.targets + 1))


def _animation(setting: _Stage, module: Animation, order: Order) -> AnimationTask:
    vae, scale = setting.vae()
    placed(module, setting.device).train()
    # the layout of its images; it has no group norms, which would be slower
    module.lmk_guider.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pool = setting.pool(order, vae, scale)
    held_out = setting.held_out(order, vae, scale)
    return AnimationTask(module, setting.stage, pool, setting.seed, vae, scale, held_out)


def _trained_vae(
    preset: Preset, run: loop.Run, seed: int, device: torch.device, before: str | None = None
) -> tuple[nn.Module, float]:
    """The VAE of the last stage, or of the last before `before`, and its scaling factor, the same for all sizes."""
    vae = networks.build(preset.model, "vae")
    loop.load(vae, run.folder / f"{preset.trained('vae', 'decoder', before=before)}.pt")
    vae = placed(vae, device)
    return vae, scaling_factor(vae, _poses(preset, seed, preset.stages[preset.trained("vae")].size))


def scaling_factor(vae: nn.Module, order: Order) -> float:
    """Factor that gives the latents of a few drawn frames a standard deviation of 1, to four digits."""
    frames = draw_chunk(order, 0).frames[:, :2]
    return float(f"{1 / encode(vae, frames.reshape(-1, *frames.shape[2:])).std():.4g}")


def start(preset: Preset, run: loop.Run, bundle: Bundle) -> None:
    """Take a bundle's weights as the result of the first VAE, image and motion stages; later stages remain to train.

    Raises:
        InputError: the bundle has other networks, or a stage has already begun.
    """
    model = ModelConfig.from_dict(dict(bundle.model))
    if replace(model, vae=replace(model.vae, scaling_factor=preset.model.vae.scaling_factor)) != preset.model:
        raise InputError(f"{bundle.path} has networks of other sizes than the preset; choose another with --preset")
    states = {
        name: {key: torch.from_numpy(value.astype(np.float32)) for key, value in weights.read(bundle, name).items()}
        for name in (*TRAINED, "vae")
    }
    animation = {f"{name}.{key}": value for name in TRAINED for key, value in states[name].items()}
    image = {key: value for key, value in animation.items() if "motion_modules" not in key}
    run.folder.mkdir(parents=True, exist_ok=True)
    for learns, averaged in (("vae", states["vae"]), ("image", image), ("motion", animation)):
        name = next(name for name, stage in preset.stages.items() if stage.learns == learns)
        path = run.folder / f"{name}.pt"
        if path.exists():
            raise InputError(f"{path} already exists; choose a new folder with --run")
        with atomic_file(path) as temporary:
            torch.save({"step": preset.stages[name].steps, "averaged": averaged}, temporary)


def release(preset: Preset, run: loop.Run, seed: int) -> Path:
    """Write the averaged weights to RUN/checkpoint, in the released layout and in float16.

    Raises:
        InputError: a stage has no checkpoint.
    """
    vae, scale = _trained_vae(preset, run, seed, torch.device("cpu"))
    animation = loop.read(run.folder / f"{preset.trained('motion')}.pt")["averaged"]
    states = {
        name: {key.removeprefix(f"{name}."): value for key, value in animation.items() if key.startswith(f"{name}.")}
        for name in TRAINED
    } | {"vae": vae.state_dict()}
    config = replace(preset.model, vae=replace(preset.model.vae, scaling_factor=scale))
    path = run.folder / "checkpoint"
    write(path, config, states.__getitem__, torch.float16)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_training.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="mini")
    parser.add_argument("--run", metavar="DIR", type=Path, default=Path("build/mini"), help="default: %(default)s")
    parser.add_argument("--stage", action="append", help="train only this stage of the preset; repeatable")
    parser.add_argument(
        "--start",
        metavar="BUNDLE",
        type=Path,
        help="take a bundle's weights as the result of RUN's first stages, without training",
    )
    parser.add_argument("--release", action="store_true", help="only write RUN/checkpoint from the trained stages")
    parser.add_argument("--steps", metavar="STAGE=N", action="append", default=[], help="steps of a stage; repeatable")
    parser.add_argument(
        "--facial",
        metavar=("EXPRESSION", "FACE"),
        type=float,
        nargs=2,
        help="weights of the facial loss in the image and motion stages; 0 0 leaves the mean squared error",
    )
    parser.add_argument(
        "--strides",
        metavar="N",
        type=int,
        nargs="+",
        help="distances between a clip's frames in the motion stage, in frames of the video; 1: neighbours only",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw frames (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command resumes")
    parser.add_argument("--stop-at", metavar="STEP", type=int, help="stop at this step; the same command resumes")
    parser.add_argument("--fp32", action="store_true", help="compute in float32 instead of bfloat16")
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # signals set a flag, so that a step is finished before the checkpoint is written
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        preset = _with_steps(PRESETS[options.preset], options.steps)
        preset = _with_strides(_with_facial(preset, options.facial), options.strides)
        run = loop.Run(
            options.run,
            bfloat16=not options.fp32,
            stop_at_step=options.stop_at,
            stop_after_seconds=None if options.minutes is None else 60 * options.minutes,
            stopped=stopped.is_set,
        )
        if options.start is not None:
            start(preset, run, Bundle.load(options.start))
            return 0
        if options.release:
            print(release(preset, run, options.seed))
            return 0
        bars = Bars(shown=not options.quiet and sys.stderr.isatty())
        bars.start()
        try:
            finished = train(
                preset,
                run,
                _stages(preset, options.stage),
                seed=options.seed,
                device=torch.device(options.device),
                workers=options.workers,
                progress=bars,
            )
        finally:
            bars.stop()
        if finished and not options.stage:
            print(release(preset, run, options.seed))
        elif not finished:
            print("stopped; the same command resumes")
    except FyeError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _stages(preset: Preset, names: Sequence[str] | None) -> Sequence[str]:
    for name in names or ():
        if name not in preset.stages:
            raise OptionError(f"--stage {name} is not valid; choose from {', '.join(preset.stages)}")
    return names or list(preset.stages)


def _with_steps(preset: Preset, settings: Sequence[str]) -> Preset:
    stages = dict(preset.stages)
    for text in settings:
        name, _, number = text.partition("=")
        if name not in stages or not number.isdecimal():
            raise OptionError(f"--steps {text} is not valid; write STAGE=N with a stage of {', '.join(stages)}")
        stages[name] = replace(stages[name], steps=int(number))
    return replace(preset, stages=stages)


def _with_facial(preset: Preset, weights: list[float] | None) -> Preset:
    if weights is None:
        return preset
    expression, face = weights
    if not (math.isfinite(expression) and math.isfinite(face) and min(weights) >= 0):
        raise OptionError(f"--facial {expression:g} {face:g} is not valid; weights are 0 or more")
    stages = {
        name: replace(stage, facial=(expression, face), late_facial=None)
        for name, stage in preset.stages.items()
        if stage.learns in ("image", "motion")
    }
    return replace(preset, stages=preset.stages | stages)


def _with_strides(preset: Preset, strides: list[int] | None) -> Preset:
    if strides is None:
        return preset
    if min(strides) < 1:
        raise OptionError(f"--strides {min(strides)} is not valid; distances are 1 or more")
    stages = {
        name: replace(stage, strides=tuple(strides))
        for name, stage in preset.stages.items()
        if stage.learns == "motion"
    }
    return replace(preset, stages=preset.stages | stages)


if __name__ == "__main__":
    sys.exit(main())
