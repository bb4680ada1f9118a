"""Time the full-size model with random weights on an NVIDIA GPU: torch backend against reference implementation.

    python -m fye_bench.speed.gpu --json FILE     512x512, 16 frames, 30 steps, guidance 3.5, float16
    python -m fye_bench.speed.gpu --config tiny --size 64x64 --frames 4 --steps 6      any machine: does it run?

First, one evaluation and the decoder are compared with float32. Then interleaved rounds time both, and after them whole
clips, from encoded inputs to frames in the host's memory; cuDNN looks for the fastest convolutions of both. The floor
of a clip is its operations over the measured rate of multiplication. The exit code is 1 if the runtime strays further
from float32 than the reference implementation allows.
"""

import argparse
import copy
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fye_bench.environment import environment
from fye_bench.speed.baseline import Baseline, Portrait
from fye_bench.speed.floor import operations
from fye_export import networks, random_checkpoint
from fye_export.config import NETWORKS, ModelConfig
from fye_export.graphs import graph_specs
from fye_rt import files
from fye_rt.arrays import Array, to_uint8
from fye_rt.backends.host import HostWorkspace
from fye_rt.denoise import denoise
from fye_rt.engine import Workspace, joined
from fye_rt.forecast import even, jump_table, newton
from fye_rt.network import Network, network
from fye_rt.noise import frame_noise
from fye_rt.options import Options
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.settings import parse_size
from fye_rt.windows import blended_windows
from fye_torch import switches
from fye_torch.engine import TorchEngine, assemble, with_kernels

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORKLOAD = "config", "size", "frames", "steps", "guidance", "compute"  # arguments that a result records
BUDGETS = (None, 12, 6, 5)  # network evaluations of a clip; None: every step
GOAL = 25.0  # frames a second
FASTER = {"evaluation": 2.5, "clip": 7.0}  # promised speed-up over the reference implementation
# The runtime's relative RMS error may be twice the reference implementation's in the same precision: it rounds the same
# numbers otherwise. In float32 they differ by the order of additions, and neither order is the right one
EXCESS, ROUNDING = 2.0, 1e-4

_WINDOWS = {"one window": (1.0, 0), "two windows": (0.75, 1)}  # parts of the frames, and the overlap

Networks = Mapping[str, nn.Module]
_say = partial(print, flush=True)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a clip: landmark images uint8 (F, H, W, 3), a portrait uint8 (H, W, 3), CLIP's pixels, and noise."""

    landmarks: NDArray[np.uint8]
    portrait: NDArray[np.uint8]
    clip_pixels: Array
    noise: Array


class Runtime:
    """The torch backend around existing networks."""

    def __init__(self, config: ModelConfig, parts: Networks, compute: str, operations: Any) -> None:
        device = next(parts["unet"].parameters()).device
        switched = {name: with_kernels(part, name, operations) for name, part in parts.items()}
        self.engines: dict[str, TorchEngine] = {
            name: assemble(spec, [switched[part] for part in spec.networks], device, compute, operations)
            for name, spec in graph_specs(config).items()
        }

    def encode(self, inputs: Inputs) -> Network:
        """Return the denoiser of a portrait and a motion."""
        pixels = _planar(inputs.portrait[None]) * np.float32(2) - np.float32(1)
        tokens = self.engines["image_encoder"].run({"clip_pixels": inputs.clip_pixels[None]})
        latents = self.engines["vae_encoder"].run({"pixels": pixels})
        images = _planar(inputs.landmarks)
        guider, engine = self.engines["guider"], self.engines["denoiser"]
        chunks = [guider.run_on_device({"landmark_images": images[i : i + 8]}) for i in range(0, len(images), 8)]
        features = joined([chunk["landmark_features"] for chunk in chunks])
        tensors = self.engines["reference"].run_on_device({**latents, **tokens})
        return network(engine, {name: engine.to_device(array) for name, array in tensors.items()}, features)

    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """Decode latents into frames."""
        decoder = self.engines["vae_decoder"]
        chunk = max(1, decoder.pixels // (64 * latents.shape[3] * latents.shape[4]))
        pieces = [np.ascontiguousarray(latents[:, :, i : i + chunk]) for i in range(0, latents.shape[2], chunk)]
        begun = [decoder.begin_decoding(piece) for piece in pieces]
        return np.concatenate([finish() for finish in begun])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.speed.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=random_checkpoint.PRESETS, default="full")
    parser.add_argument("--size", default="512x512", metavar="HxW")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--compute", choices=DTYPES, default="fp16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also time the denoiser after torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    arguments = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and arguments.config == "full":
        print("fye: there is no GPU here; see that all runs with --config tiny --size 64x64", file=sys.stderr)
        return 2
    with switches.SEARCH, switches.FLOAT32:
        result = _measure(arguments, device, random_checkpoint.PRESETS[arguments.config])
    if arguments.json is not None:
        files.write_json(
            arguments.json, {"command": ["python", "-m", "fye_bench.speed.gpu", *(argv or sys.argv[1:])]} | result
        )
    wrong = beyond_rounding(result["against_float32"])
    for name in wrong:
        print(f"fye: {name} is further from float32 than rounding explains", file=sys.stderr)
    return 1 if wrong else 0


def beyond_rounding(checks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Name the results of `Rivals.checks` in which the runtime's error exceeds the reference's: see `EXCESS`."""
    wrong = []
    for name, found in checks.items():
        way, result = name.split(", ")
        twin = checks.get(f"baseline, {result}", checks["baseline, v_conditional"])
        if way == "runtime" and not found["relative_rms"] <= EXCESS * twin["relative_rms"] + ROUNDING:
            wrong.append(name)
    return wrong


def _measure(arguments: argparse.Namespace, device: torch.device, config: ModelConfig) -> dict[str, Any]:
    options = Options(steps=arguments.steps, guidance=arguments.guidance)
    inputs = random_inputs(config, parse_size(arguments.size), arguments.frames)
    parts = random_networks(config, device)
    exactly = exact(config, parts, inputs)
    dtype, plain = DTYPES[arguments.compute], None
    if arguments.compile:  # before the runtime changes the layout of the weights
        plain = graph_specs(config)["denoiser"].module(copy.deepcopy(parts["unet"]).to(dtype))
    rivals = Rivals.meet(config, parts, arguments.compute, inputs)

    checks = rivals.checks(exactly)
    for name, found in checks.items():
        _say(f"{name:<28}relative RMS {found['relative_rms']:.1e}  cosine {found['cosine']:.6f}")
    stages = rivals.stages(plain, arguments.rounds)
    for name, found in stages.items():
        times = "  ".join(f"{way} {1e3 * seconds:.1f} ms" for way, seconds in found["median"].items())
        _say(f"{name:<28}{times}  {found['faster']:.2f}x")
    clips, rate = rivals.clips(options), _matrix_rate(device, dtype)
    counted = operations(config, parse_size(arguments.size), arguments.frames)
    for clip in clips:
        clip["frames_per_second"] = arguments.frames / clip["seconds"]
        clip["faster"] = clips[0]["seconds"] / clip["seconds"]
        clip["floor_seconds"] = (clip["evaluations"] * counted["denoiser"] + counted["vae_decoder"]) / rate
        _say(
            f"clip, {clip['way']:<10}{clip['evaluations']:>3} evaluations {clip['seconds']:>8.2f} s "
            f"(floor {clip['floor_seconds']:.2f} s) {clip['frames_per_second']:>7.2f} frames/s {clip['faster']:>6.2f}x"
        )
    weights = sum(tensor.nbytes for part in parts.values() for tensor in part.parameters())
    memory = {way: {"weights": weights, "added": added} for way, added in rivals.memory(options).items()}
    for way, taken in memory.items():
        _say(f"memory, {way:<20}weights {weights / 1e9:.2f} GB, and {taken['added'] / 1e9:.2f} GB at its peak")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "none"
    return {
        "environment": environment() | {"gpu": name, "torch_cuda": torch.version.cuda},
        "workload": {key: getattr(arguments, key) for key in WORKLOAD},
        "against_float32": checks,
        "stages": stages,
        "clips": clips,
        "memory_bytes": memory,
        "matrix_flop_per_second": rate,
        "operations": counted,
        "promised": {"faster": FASTER, "frames_per_second": GOAL},
    }


def random_inputs(config: ModelConfig, size: tuple[int, int], frames: int) -> Inputs:
    """Return random pictures of a size (height, width), and noise."""
    random = np.random.default_rng(0)
    side = config.image_encoder.image_size
    return Inputs(
        random.integers(0, 256, (frames, *size, 3), np.uint8),
        random.integers(0, 256, (*size, 3), np.uint8),
        random.standard_normal((3, side, side), dtype=np.float32),
        frame_noise(0, range(frames), size[0] // 8, size[1] // 8, config.vae.latent_channels, 0.0),
    )


def random_networks(
    config: ModelConfig, device: torch.device, names: Sequence[str] = NETWORKS, dtype: torch.dtype = torch.float32
) -> dict[str, nn.Module]:
    """Make networks with the random weights of `fye_export.random_checkpoint` on their device: seconds on a GPU.

    Args:
        config: sizes of the networks.
        device: device of the weights. On a CPU they equal those of the checkpoint with seed 0.
        names: names of the networks.
        dtype: type of the weights, which hold float16 numbers.
    """
    networks_by_name = {}
    for name in names:
        with torch.device("meta"):
            network = networks.build(config, name)
        network.to(dtype).to_empty(device=device)
        gain = random_checkpoint.gain(name)
        for key, tensor in network.state_dict().items():
            random_checkpoint.fill(tensor, key, f"0 {name} {key}", gain)
        for module in network.modules():  # CLIP's only buffer that its state dict lacks
            if isinstance(ids := getattr(module, "position_ids", None), Tensor):
                ids.copy_(torch.arange(ids.shape[-1]))
        networks_by_name[name] = network
    return networks_by_name


def exact(config: ModelConfig, parts: Networks, inputs: Inputs) -> dict[str, Array]:
    """Run one evaluation and the decoder in float32, by PyTorch alone."""
    plain = Runtime(config, parts, "fp32", None)
    unconditional, conditional = plain.encode(inputs)(inputs.noise, 500, np.arange(len(inputs.landmarks)))
    frames = plain.engines["vae_decoder"].run({"latents": inputs.noise[:, :, :1].copy()})["frames"]
    assert unconditional is not None
    return {"v_unconditional": unconditional, "v_conditional": conditional, "frames": frames}


@torch.inference_mode()
def inferred(module: Callable[..., object], *tensors: Tensor) -> object:
    """Call a module without gradients."""
    return module(*tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The reference implementation and the runtime, with the same networks, portrait and motion.

    Attributes:
        baseline: the reference implementation.
        fresh: makes a torch backend that shares nothing but the weights with others.
        runtime: the torch backend.
        inputs: inputs of the clip.
        portrait: the portrait as the baseline encodes it.
        features: the motion's features as the baseline encodes them.
        network: the runtime's denoiser of portrait and motion.
    """

    baseline: Baseline
    fresh: Callable[..., Runtime]
    runtime: Runtime
    inputs: Inputs
    portrait: Portrait
    features: Tensor
    network: Network

    @classmethod
    def meet(cls, config: ModelConfig, parts: Networks, compute: str, inputs: Inputs) -> "Rivals":
        """Convert networks to the precision of `compute`, in place, and encode the clip in both ways."""
        from fye_torch.modules import KERNELS, PLAIN

        parts = {name: part.to(DTYPES[compute]) for name, part in parts.items()}
        baseline = Baseline(copy.deepcopy(parts), SchedulerConfig())
        operations = KERNELS if baseline.device.type == "cuda" else PLAIN
        fresh = partial(Runtime, config, parts, compute, operations=operations)
        encoded = _encoded(baseline, inputs)
        runtime = fresh()
        return cls(baseline, fresh, runtime, inputs, *encoded, runtime.encode(inputs))

    def renewed(self, **changed: Any) -> "Rivals":
        """Return the same clip with a fresh runtime, with some of its parameters changed."""
        runtime = self.fresh(**changed)
        return replace(self, runtime=runtime, network=runtime.encode(self.inputs))

    @property
    def latents(self) -> Tensor:
        """The noise on the baseline's device, in its precision."""
        return _at(self.baseline.networks, self.inputs.noise)

    def checks(self, exact: Mapping[str, Array]) -> dict[str, Any]:
        """Compare one evaluation and the decoder with float32."""
        noise, runtime = self.inputs.noise, self.runtime
        outputs = dict(zip(("v_unconditional", "v_conditional"), self.evaluate(), strict=True))
        again = self.evaluate()  # the second run of a shape is replayed from a graph, as all later ones
        first = np.ascontiguousarray(noise[:, :, :1])
        outputs["frames"] = runtime.engines["vae_decoder"].run({"latents": first})["frames"]
        reference = _numpy(self.baseline.evaluate(self.latents, 500, self.features, self.portrait))
        found = {f"runtime, {name}": difference(array, exact[name]) for name, array in outputs.items()}
        found["runtime, replayed"] = difference(again[1], exact["v_conditional"])
        for name, (share, overlap) in _WINDOWS.items():  # latents on the GPU against latents on the host
            denoised = partial(self._latents, Options(steps=4, guidance=3.5), 3, round(share * noise.shape[2]), overlap)
            found[f"runtime, {name}"] = difference(denoised(), denoised(host=True))
        found["baseline, v_conditional"] = difference(reference[1:], exact["v_conditional"])
        found["baseline, v_unconditional"] = difference(reference[:1], exact["v_unconditional"])
        found["baseline, frames"] = difference(self.baseline.decode(first), exact["frames"])
        return found

    def stages(self, plain: nn.Module | None, rounds: int) -> dict[str, Any]:
        """Time each stage in interleaved rounds; `plain` is a denoiser to compile."""
        baseline, runtime, inputs, latents = self.baseline, self.runtime, self.inputs, self.latents
        ways: dict[str, dict[str, Callable[[], object]]] = {
            "evaluation": {
                "baseline": lambda: baseline.evaluate(latents, 500, self.features, self.portrait),
                "runtime": self.evaluate,
            }
            | ({} if plain is None else {"compiled": self.evaluation(torch.compile(plain))}),
            "decode": {
                "baseline": lambda: baseline.decode(inputs.noise),
                "runtime": lambda: runtime.decode(inputs.noise),
            },
            "encode": {
                "baseline": lambda: _encoded(baseline, inputs),
                "runtime": lambda: runtime.encode(inputs),
            },
        }
        found = {}
        for stage, runs in ways.items():
            seconds: dict[str, list[float]] = {way: [] for way in runs}
            for turn in range(rounds + 2):
                for way, run in runs.items():
                    taken = timed(run)
                    if turn > 1:  # the first two prepare, compile and capture
                        seconds[way].append(taken)
            median = {way: statistics.median(times) for way, times in seconds.items()}
            found[stage] = {"median": median, "seconds": seconds, "faster": median["baseline"] / median["runtime"]}
        return found

    def ways(self, options: Options) -> list[tuple[str, int, Callable[[], object]]]:
        """List ways to make a clip, with their evaluations: the baseline, and the runtime with fewer and fewer."""
        ways: list[tuple[str, int, Callable[[], object]]] = [("baseline", options.steps, partial(self._first, options))]
        for budget in BUDGETS:
            if budget is None or budget < options.steps:
                ways.append(("runtime", budget or options.steps, partial(self._second, options, budget)))
        return ways

    def clips(self, options: Options) -> list[dict[str, Any]]:
        """Time whole clips in all `ways`."""
        clips = []
        for way, evaluations, run in self.ways(options):
            seconds = statistics.median(timed(run) for _ in range(1 if way == "baseline" else 3))
            clips.append({"way": way, "evaluations": evaluations, "seconds": seconds})
        return clips

    def memory(self, options: Options) -> dict[str, int]:
        """Measure bytes of GPU memory of a clip beside the weights, encoding and CUDA graphs included."""

        def first() -> None:
            portrait, features = _encoded(self.baseline, self.inputs)
            replace(self, portrait=portrait, features=features)._first(options)

        return {"baseline": _added(first), "runtime": _added(lambda: self.renewed()._second(options, None))}

    def _first(self, options: Options) -> NDArray[np.uint8]:
        latents = self.baseline.denoise(self.portrait, self.features, self.inputs.noise, options)
        return to_uint8(self.baseline.decode(latents))

    def _second(self, options: Options, evaluations: int | None) -> NDArray[np.uint8]:
        return self.runtime.decode(self._latents(options, evaluations))

    def _latents(
        self, options: Options, evaluations: int | None, window: int = 32, overlap: int = 0, host: bool = False
    ) -> Array:
        noise, guidance = self.inputs.noise, float(options.guidance or 0)
        steps = schedule(options.steps, SchedulerConfig())
        evaluated = None if evaluations is None else even(len(steps), evaluations)
        table = jump_table(steps, evaluated, newton(1), "v" if evaluations is None else "epsilon")
        windows = blended_windows(noise.shape[2], "context", window, overlap)
        workspace: Workspace
        if host:
            workspace = HostWorkspace(self.network, steps.timesteps.tolist(), windows, guidance, table.ring)
        else:
            workspace = self.network.workspace(noise.shape, windows, steps, table, guidance, None)
        return denoise(workspace, steps, table, windows, noise)

    def evaluate(self) -> tuple[Array, Array]:
        """Evaluate both halves of guidance."""
        unconditional, conditional = self.network(self.inputs.noise, 500, self._all)
        assert unconditional is not None
        return unconditional, conditional

    def evaluation(self, denoiser: Callable[..., object]) -> Callable[[], object]:
        """Return an evaluation by a module, on tensors that lie on the device: a graph copies nothing from the host."""
        latents = self.latents
        constant = [torch.as_tensor(tensor).to(latents) for tensor in self.network.inputs(self._all).values()]
        return partial(inferred, denoiser, latents, torch.full((1,), 500, device=latents.device), *constant)

    @property
    def _all(self) -> NDArray[np.int64]:
        return np.arange(len(self.inputs.landmarks))


def _encoded(baseline: Baseline, inputs: Inputs) -> tuple[Portrait, Tensor]:
    portrait = baseline.encode_portrait(inputs.portrait, inputs.clip_pixels)
    return portrait, baseline.encode_motion(inputs.landmarks)


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure operations per second of a product of two large matrices."""
    side = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / statistics.median([timed(lambda: a @ b) for _ in range(12)][2:])


def _added(run: Callable[[], object]) -> int:
    """Measure the bytes of GPU memory that PyTorch adds during a run; 0 without a GPU."""
    if not torch.cuda.is_available():
        run()
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_reserved() - before


def timed(run: Callable[[], object]) -> float:
    """Return the seconds until a run is finished, on the GPU too."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def difference(outputs: Array, exact: Array) -> dict[str, float]:
    """Return the relative RMS error and the cosine."""
    x, y = outputs.astype(np.float64).ravel(), exact.astype(np.float64).ravel()
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return {
        "relative_rms": float(np.linalg.norm(x - y) / np.linalg.norm(y)),
        "cosine": float(x @ y / norms),
    }


def _planar(images: NDArray[np.uint8]) -> Array:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def _at(parts: Networks, array: Array) -> Tensor:
    """Move an array to the networks' device and precision."""
    return torch.from_numpy(array).to(next(parts["unet"].parameters()))


def _numpy(tensor: Tensor) -> Array:
    return tensor.float().cpu().numpy()


if __name__ == "__main__":
    sys.exit(main())
