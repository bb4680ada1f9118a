"""The torch backend computes what ONNX Runtime computes, from the same file."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.arrays import to_uint8
from fye_rt.backends.host import HostWorkspace
from fye_rt.clips.frames import frames_of
from fye_rt.denoise import Pins, denoise, predict
from fye_rt.engine import Denoising, Engine, Settings
from fye_rt.errors import BackendError, NumericalError
from fye_rt.forecast import Forecaster, jump_table
from fye_rt.forecasts.adaptive import Adaptive
from fye_rt.options import Forecast
from fye_rt.schedule import Schedule, SchedulerConfig, schedule
from fye_rt.windows import Window, blended_windows
from tests.fye_rt.backends.imitated_cuda import Cuda, install
from tests.fye_rt.command_line import PORTRAIT, python

pytest.importorskip("torch")

import torch
from safetensors.torch import save_file

from fye_torch import engine as backend
from fye_torch.graphs import SHAPES, Memory, Replayed
from fye_torch.loop import Buffers, TorchWorkspace
from fye_torch.switches import Switches

SIZES = {"frames": 3, "height": 64, "width": 72, "latent_height": 8, "latent_width": 9}
GRAPHS = ["image_encoder", "vae_encoder", "reference", "guider", "denoiser", "denoiser_cond", "vae_decoder"]
# of the largest value. fp32: additions in another order, through up to 100 layers; see test_parity.py. fp16: rounding
# to 2**-11 in each of them; 1.1e-2 on a CPU
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def inputs(bundle: Bundle, graph: str) -> dict[str, Any]:
    random, sizes = np.random.default_rng(0), dict(SIZES)
    height, width = SIZES["latent_height"], SIZES["latent_width"]
    for level in range(4):
        sizes[f"tokens{level}"] = height * width
        height, width = (height + 1) // 2, (width + 1) // 2
    arrays: dict[str, Any] = {}
    for tensor in bundle.graphs[graph].inputs:
        shape = [sizes[d] if isinstance(d, str) else d for d in tensor.shape]
        whole = tensor.dtype == "int64"
        arrays[tensor.name] = np.array([500], np.int64) if whole else random.standard_normal(shape, dtype=np.float32)
    return arrays


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_equals_onnx_runtime(bundle: Bundle, graph: str) -> None:
    assert_equals_onnx_runtime(bundle, graph)


@pytest.mark.slow
@pytest.mark.parametrize("compute", TOLERANCES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_on_a_gpu_equals_onnx_runtime(cuda: Cuda, bundle: Bundle, graph: str, compute: str) -> None:
    if compute not in backends.computes("torch"):
        pytest.skip(f"PyTorch does not compute in {compute} on a CPU")
    assert_equals_onnx_runtime(bundle, graph, compute, runs=3)  # as it is, captured, replayed


def assert_equals_onnx_runtime(bundle: Bundle, graph: str, compute: str = "fp32", runs: int = 1) -> None:
    given = inputs(bundle, graph)
    expected = backends.load("onnxruntime")(bundle, graph, Settings(compute="fp32", threads=1)).run(given)
    engine = backends.load("torch")(bundle, graph, Settings(compute=compute, threads=1))
    for _ in range(runs):
        made = engine.run(given)
        assert list(made) == list(expected) == [spec.name for spec in bundle.graphs[graph].outputs]
        for name, array in expected.items():
            assert made[name].dtype == np.float32 and made[name].shape == array.shape
            bound = TOLERANCES[compute] * max(1.0, float(np.abs(array).max()))
            np.testing.assert_allclose(made[name], array, rtol=0, atol=bound)


@pytest.mark.slow
def test_a_clip_on_a_cpu_needs_no_triton(tiny_bundle: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['triton'] = None; from fye_rt.cli.main import main; sys.exit(main(sys.argv[1:]))"
    options = (
        "--backend",
        "torch",
        "--bundle",
        tiny_bundle,
        "--frames",
        2,
        "--steps",
        1,
        "--forecast",
        "off",
        "--quiet",
    )
    result = python(
        "-c", code, "animate", PORTRAIT, PORTRAIT.parent / "landmarks", "-o", tmp_path / "clip.mp4", *options
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "clip.mp4").is_file()


@pytest.mark.slow
def test_networks_with_switched_modules_equal_onnx_runtime(bundle: Bundle, plain: None) -> None:
    modules = pytest.importorskip("fye_torch.modules")
    for graph in ("vae_encoder", "reference", "denoiser", "denoiser_cond", "vae_decoder"):
        assert_equals_onnx_runtime(bundle, graph)
        opened = backend.open_engine(bundle, graph, Settings())
        assert any(isinstance(module, modules.Norm) for module in opened.module.modules())
    denoiser = backend.open_engine(bundle, "denoiser", Settings())
    assert isinstance(denoiser.module, modules.Denoiser) and denoiser.module.guided


@Switches({(torch.backends.cudnn.conv, "fp32_precision"): "tf32"})  # PyTorch's default
def test_float32_is_not_rounded_to_tf32_and_half_precision_changes_no_setting(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switches() -> tuple[str, str]:
        return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision

    engine = backend.open_engine(bundle, "guider", Settings(compute="fp32", threads=1))
    forward, seen = engine.module.forward, []
    monkeypatch.setattr(
        engine.module, "forward", lambda *given: (seen.append(switches()), forward(*(x.float() for x in given)))[1]
    )
    before = switches()
    engine.run(inputs(bundle, "guider"))
    with engine._precision():  # as another Animator in another thread may have it
        engine.run(inputs(bundle, "guider"))
        assert switches() == ("ieee", "ieee")
    assert seen == [("ieee", "ieee")] * 2 and switches() == before
    with pytest.raises(KeyError, match="landmark_images"):
        engine.run({})
    assert switches() == before
    engine.compute = "fp16"
    engine.run(inputs(bundle, "guider"))
    assert seen[2:] == [before]


@pytest.mark.parametrize(("compute", "own"), [("fp16", True), ("bf16", True), ("fp32", False)])
def test_float32_attention_is_that_of_pytorch(compute: str, own: bool) -> None:
    modules = pytest.importorskip("fye_torch.modules")
    operations = backend._operations(torch.device("cuda"), compute)
    for name in ("reference_attention", "temporal_attention"):
        assert getattr(operations, name) is getattr(modules.KERNELS if own else modules.PLAIN, name)
    for name in ("norm_silu", "geglu", "forecast_step"):
        assert getattr(operations, name) is getattr(modules.KERNELS, name)
    assert backend._operations(torch.device("cpu"), compute) is None


def test_a_clip_equals_onnx_runtime_s(bundle: Bundle) -> None:
    random = np.random.default_rng(1)
    portrait, images = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (4, 64, 64, 3), np.uint8)
    clips = []
    for name in ("torch", "onnxruntime"):
        with Animator(bundle, name, compute="fp32", threads=1) as animator:
            states = animator.encode_portrait(portrait), animator.encode_motion(images)
            clips.append(animator.decode(animator.denoise(*states, options=Options(steps=2))))
    # each step multiplies the differences of rounding before it, by more or less on other processors; 3e-4 measured
    np.testing.assert_allclose(*clips, rtol=0, atol=1e-3)


def smooth(graph: str, latents: Any, timestep: Any, features: Any, *portrait: Any) -> tuple[Any, ...]:
    """In the denoiser's place."""
    moved = (latents * (1 + timestep / 1000) + features.mean(1) + portrait[0].mean()).tanh()
    return (latents.sin(), moved)[graph == "denoiser_cond" :]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guidance": 1.0},
        {"forecast": Forecast(method="newton", order=2, quantity="epsilon", evaluations=4)},
        {"forecast": Forecast(method="newton", order=1, quantity="epsilon", evaluations=4, face_mask=True)},
        {"forecast": Forecast(method="adaptive", tolerance=0.2)},
        {"solver": "unipc"},
        {"windows": "context", "window_size": 4, "window_overlap": 2},
        {"windows": "progressive", "window_size": 5},
    ],
    ids=["guided", "conditional", "forecast", "face", "adaptive", "solver", "windows", "progressive"],
)
def test_latents_denoised_on_the_device_equal_those_of_the_host(
    bundle: Bundle, plain: None, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    random = np.random.default_rng(1)
    portrait, images = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (7, 64, 64, 3), np.uint8)
    face = random.random((7, 8, 8)) < 0.5
    options = Options(**{"steps": 6, **settings})
    latents, steps = [], []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(backend.TorchEngine, "workspace", Engine.workspace)
        seen: list[Any] = []
        with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
            states = animator.encode_portrait(portrait), replace(animator.encode_motion(images), face=face)
            for graph in ("denoiser", "denoiser_cond"):  # the random network multiplies what rounding differs by
                monkeypatch.setattr(animator.graphs.engine(graph).module, "forward", partial(smooth, graph))
            told: list[tuple[str, int, int]] = []
            on_step, progress = lambda *step, to=seen: to.append(step), lambda *count, to=told: to.append(count)
            latents.append(animator.denoise(*states, options=options, on_step=on_step, progress=progress))
        steps.append(([(number, timestep, x.shape) for number, timestep, x in seen], told))
        assert not seen[-1][2].flags.writeable
    np.testing.assert_allclose(*latents, rtol=0, atol=2e-5)
    assert steps[0] == steps[1]


def network(latents: Any, timestep: Any, *_: Any) -> tuple[Any, Any]:
    """In the denoiser's place: a frame depends on those before it."""
    return latents.sin(), (latents.cumsum(2) + timestep / 1000).tanh()


class Ways:
    """A clip of random noise, on the device's workspace and on the host's, both with `network`."""

    def __init__(self, windows: list[Window], frames: int) -> None:
        self.windows, self.seen = windows, {"host": [], "device": []}
        self.noise = np.random.default_rng(1).standard_normal((1, 4, frames, 5, 6), dtype=np.float32)
        self.face = np.random.default_rng(2).random((frames, 5, 6)) < 0.5

    def host(self, steps: Schedule, forecaster: Forecaster, guidance: float = 2.0) -> HostWorkspace:
        def evaluate(latents: Any, timestep: int, frames: Any) -> Any:
            self.seen["host"].append(frames.tolist())
            unconditional, conditional = (half.numpy() for half in network(torch.from_numpy(latents), timestep))
            return (unconditional if guidance > 1 else None), conditional

        face = self.face if forecaster.masked else None
        return HostWorkspace(evaluate, steps.timesteps.tolist(), self.windows, guidance, forecaster.ring, face)

    def device(self, steps: Schedule, forecaster: Forecaster, guidance: float = 2.0, operations: Any = None) -> Any:
        modules = pytest.importorskip("fye_torch.modules")

        def inputs(frames: Any) -> dict[str, Any]:
            self.seen["device"].append(frames.tolist())
            return {}

        def halves(latents: Any, timestep: Any) -> Any:
            unconditional, conditional = network(latents, timestep)
            return (unconditional if guidance > 1 else None), conditional

        face = self.face if forecaster.masked else None
        given = self.noise.shape, self.windows, steps.timesteps.tolist(), guidance, forecaster.ring, face, inputs
        buffers = Buffers(torch.device("cpu"), self.noise.shape, forecaster.ring, forecaster.masked)
        whole = partial(halves, buffers.latents, buffers.timestep)
        step = (operations or modules.PLAIN).forecast_step
        return TorchWorkspace(buffers, whole, halves, step, lambda named: [], Denoising(*given), nullcontext)


def test_the_device_denoises_a_window_of_permuted_frames_as_the_host_does() -> None:
    steps, order = schedule(3, SchedulerConfig()), np.array([2, 0, 1])
    ways = Ways([Window(order, np.ones(3))], 3)
    table = jump_table(steps)
    made, expected = (
        denoise(way(steps, table), steps, table, ways.windows, ways.noise) for way in (ways.device, ways.host)
    )
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-5)
    assert ways.seen["host"] == ways.seen["device"] == 3 * [order.tolist()]


@pytest.mark.parametrize(
    ("guidance", "kernels"), [(1.0, False), (2.0, False), (2.0, True)], ids=["plain", "guided", "kernels"]
)
@pytest.mark.parametrize("size", [5, 3], ids=["one window", "several windows"])
def test_the_device_decides_adaptively_and_holds_pins_as_the_host_does(
    size: int, guidance: float, kernels: bool
) -> None:
    modules = pytest.importorskip("fye_torch.modules")
    steps = schedule(12, SchedulerConfig())
    ways = Ways(list(blended_windows(5, "context", size, 1)), 5)
    adaptive = Adaptive(steps, tolerance=0.1, max_evaluations=8)
    fixed = np.random.default_rng(3).standard_normal((12, 1, 4, 2, 5, 6), dtype=np.float32)
    pins = Pins(np.array([0, 3]), dict(enumerate(fixed)))
    latents, counts, steps_seen = [], [], []
    for way in (partial(ways.device, operations=modules.KERNELS if kernels else None), ways.host):
        shown: list[Any] = []
        counted: list[Any] = []
        on_step, progress = lambda *step, to=shown: to.append(step), lambda *count, to=counted: to.append(count)
        workspace = way(steps, adaptive, guidance=guidance)
        latents.append(denoise(workspace, steps, adaptive, ways.windows, ways.noise, on_step, progress, pins))
        steps_seen.append([(number, timestep) for number, timestep, _ in shown])
        counts.append(counted)
        np.testing.assert_array_equal(shown[-1][2][:, :, [0, 3]], fixed[11])
        np.testing.assert_array_equal(latents[-1], shown[-1][2])
        assert not shown[-1][2].flags.writeable and not np.array_equal(shown[0][2], shown[-1][2])
    assert steps_seen[0] == steps_seen[1] and counts[0] == counts[1]
    assert 2 < len(steps_seen[0]) < 12  # some steps are skipped
    np.testing.assert_allclose(*latents, rtol=0, atol=2e-5)


def test_a_prediction_of_the_device_is_blended_and_guided_as_on_the_host() -> None:
    steps = schedule(4, SchedulerConfig())
    ways = Ways(list(blended_windows(9, "context", 4, 2)), 9)
    for guidance in (1.0, 2.0):
        made, expected = (
            predict(way(steps, jump_table(steps), guidance), steps, ways.windows, ways.noise, 2)
            for way in (ways.device, ways.host)
        )
        np.testing.assert_array_equal(made, expected)


def test_a_restarted_clip_forgets_an_earlier_nan() -> None:
    steps = schedule(3, SchedulerConfig())
    ways, table = Ways([Window(np.arange(3), np.ones(3))], 3), jump_table(steps)
    for way in (ways.device, ways.host):
        workspace = way(steps, table)
        first = denoise(workspace, steps, table, ways.windows, ways.noise)
        workspace.load(np.full_like(ways.noise, np.inf))
        for _ in workspace.evaluate(0):
            assert workspace.fault() == workspace.fault() == (0, 0)
        np.testing.assert_array_equal(denoise(workspace, steps, table, ways.windows, ways.noise), first)


@pytest.mark.parametrize(
    ("half", "failing", "frames", "place"),
    [
        (0, 1, 3, r"step 0 \(timestep 999\), window 1 of 1 \(frames 0 to 2\)"),
        (1, 1, 3, r"step 0 \(timestep 999\), window 1 of 1 \(frames 0 to 2\)"),
        (1, 4, 6, r"step 1 \(timestep 666\), window 2 of 2 \(frames 2 to 5\)"),
    ],
    ids=["unconditional", "conditional", "window among others"],
)
def test_a_prediction_on_the_device_that_is_not_finite_is_named_with_its_window(
    bundle: Bundle, plain: None, monkeypatch: pytest.MonkeyPatch, half: int, failing: int, frames: int, place: str
) -> None:
    blank, calls = np.zeros((frames, 64, 64, 3), np.uint8), 0
    with Animator(bundle, "torch", threads=1) as animator:
        states = animator.encode_portrait(blank[0]), animator.encode_motion(blank)

        def forward(latents: Any, *_: Any) -> tuple[Any, Any]:
            nonlocal calls
            calls += 1
            wrong = latents / (0 if calls == failing else 1)
            return (wrong, latents) if half == 0 else (latents, wrong)

        monkeypatch.setattr(animator.graphs.engine("denoiser").module, "forward", forward)
        with pytest.raises(NumericalError, match=place):
            animator.denoise(*states, options=Options(steps=3, window_size=4, window_overlap=2))


def test_graphs_share_the_networks_they_have_in_common(bundle: Bundle) -> None:
    settings = Settings(threads=1)
    engines = [backend.open_engine(bundle, graph, settings) for graph in ("denoiser", "denoiser_cond", "reference")]
    unets = {id(engine.module.unet) for engine in engines}
    assert len(unets) == 1
    other = backend.open_engine(replace(bundle, digest="another bundle's"), "denoiser", settings)
    assert id(other.module.unet) not in unets


def test_constants_of_the_unconditional_half_come_from_the_bundle(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {name: 0 * x + 7 for name, x in backend._tensors(bundle, ("unet.",)).items() if "unconditional" in name}
    kept = backend._tensors
    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_tensors", lambda *given: kept(*given) | stored)
    denoiser = backend.open_engine(bundle, "denoiser", Settings(threads=1)).module
    assert len(stored) == 16 and all((denoiser.get_buffer(name) == 7).all() for name in stored)


def test_a_shared_tensor_is_loaded_under_each_of_its_names(tmp_path: Path) -> None:
    one, two = torch.ones(2), torch.full((3,), 2.0)
    save_file({"unet.one": one, "vae.two": two}, tmp_path / "weights.safetensors")
    shared = {"unet.again": "unet.one", "unet.two": "vae.two", "vae.one": "unet.one"}
    manifest = {"weights": {"shared": shared}}
    stored: Any = SimpleNamespace(path=tmp_path, weights="weights.safetensors", manifest=manifest)
    found = backend._tensors(stored, ("unet.",))
    assert set(found) == {"unet.one", "unet.again", "unet.two"}
    assert torch.equal(found["unet.again"], one) and torch.equal(found["unet.two"], two)


def test_weights_of_other_networks_are_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = backend._tensors
    monkeypatch.setattr(backend, "_shared", {})
    more = {"lmk_guider.more": next(iter(kept(bundle, ("lmk_guider.",)).values()))}
    for tensors, message in (
        (lambda *given: {k: v[..., :1] for k, v in kept(*given).items()}, "weights don't fit the networks"),
        (lambda *given: kept(*given) | more, "no network has more"),
    ):
        monkeypatch.setattr(backend, "_tensors", tensors)
        with pytest.raises(BackendError, match=message):
            backend.open_engine(bundle, "guider", Settings())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ({}, {9, 7}),
        ({"guidance": 1.0}, {9, 7}),
        ({"forecast": Forecast(method="newton", order=2, quantity="epsilon", evaluations=5)}, {9, 7}),
        ({"forecast": Forecast(method="newton", evaluations=5, face_mask=True)}, {9, 7}),
        ({"windows": "context", "window_size": 4, "window_overlap": 2}, {4}),
        ({"windows": "progressive", "window_size": 5}, {3, 4, 5}),
    ],
    ids=["guided", "conditional", "forecast", "face", "windows", "progressive"],
)
def test_a_clip_of_replayed_graphs_equals_one_without(
    bundle: Bundle, plain: None, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], lengths: set[int]
) -> None:
    random = np.random.default_rng(1)
    portraits, images = random.integers(0, 256, (2, 64, 64, 3), np.uint8), random.integers(0, 256, (9, 64, 64, 3), "u1")
    options = Options(**{"steps": 6, **settings})
    cuda = install(monkeypatch)
    made: dict[bool, list[Any]] = {False: [], True: []}
    for replayed in made:
        with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
            graph = "denoiser_cond" if options.guidance == 1 else "denoiser"
            engine: Any = animator.graphs.engine(graph)
            monkeypatch.setattr(engine.module, "forward", partial(smooth, graph))
            if replayed:
                engine._memory = Memory(graph)
                engine._call = engine._replayed(engine.module, 2)
            # two portraits, two lengths, then both again: nothing is left of the clip before
            for portrait, frames in ((0, 9), (1, 9), (1, 7), (0, 9), (0, 7)):
                motion = replace(animator.encode_motion(images[:frames]), face=images[:frames, ::8, ::8, 0] > 99)
                states = animator.encode_portrait(portraits[portrait]), motion
                made[replayed].append(animator.denoise(*states, options=options))
    for one, other in zip(*made.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(made[True][0], made[True][1])
    np.testing.assert_array_equal(made[True][0], made[True][3])
    assert len(cuda.captures) == len(lengths) and all(capture.replays > 1 for capture in cuda.captures)


def test_clips_of_one_shape_with_different_methods_share_an_engine(
    bundle: Bundle, plain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = [
        Forecast(method="newton", order=order, evaluations=5, face_mask=masked or None)
        for order, masked in ((1, False), (1, True), (2, False), (2, True), (1, False))
    ]
    images = np.random.default_rng(1).integers(0, 256, (SHAPES + 1, 64, 64, 3), np.uint8)
    made: dict[bool, list[Any]] = {False: [], True: []}
    for together, clips in made.items():
        animators = [Animator(bundle, "torch", compute="fp32", threads=1) for _ in methods[:1] * together or methods]
        for number, forecast in enumerate(methods):
            animator = animators[number % len(animators)]
            monkeypatch.setattr(animator.graphs.engine("denoiser").module, "forward", partial(smooth, "denoiser"))
            motion = replace(animator.encode_motion(images[:3]), face=images[:3, ::8, ::8, 0] > 99)
            states = animator.encode_portrait(images[0]), motion
            clips.append(animator.denoise(*states, options=Options(steps=6, forecast=forecast)))
        for animator in animators:
            assert len(animator.graphs.engine("denoiser")._buffers) == (4 if together else 1)  # type: ignore[attr-defined]
    for one, other in zip(*made.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    engine: Any = animators[0].graphs.engine("denoiser")
    first = engine._buffers_for((1, 4, 3, 8, 8), 2, False)
    second, *others = range(4, 4 + SHAPES)
    for frames in (second, 3, *others):  # the first is used again, so the second goes
        engine._buffers_for((1, 4, frames, 8, 8), 2, False)
    assert len(engine._buffers) == SHAPES and engine._buffers_for((1, 4, 3, 8, 8), 2, False) is first
    assert ((1, 4, second, 8, 8), 2, False) not in engine._buffers


def test_an_evaluation_is_one_graph_and_a_jump_one_kernel(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = pytest.importorskip("fye_torch.modules")
    evaluations, jumps, plain = [], [], modules.PLAIN
    counted = replace(plain, forecast_step=lambda *given: (jumps.append(given), plain.forecast_step(*given))[1])
    monkeypatch.setattr(backend, "_shared", {})
    monkeypatch.setattr(backend, "_operations", lambda *given: counted)
    cuda, blank = install(monkeypatch), np.zeros((3, 64, 64, 3), np.uint8)
    with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
        engine: Any = animator.graphs.engine("denoiser")
        engine._memory = Memory("denoiser")
        monkeypatch.setattr(
            engine.module, "forward", lambda *given: (evaluations.append(given), smooth("denoiser", *given))[1]
        )
        states = animator.encode_portrait(blank[0]), animator.encode_motion(blank)
        for _ in range(3):
            animator.denoise(*states, options=Options(steps=14))
    assert len(evaluations) == 2  # the first as it is, the second captured
    assert [capture.replays for capture in cuda.captures] == [3 * 14 - 1] and len(jumps) == 3 * 14


def test_frames_are_converted_to_bytes_as_on_the_host(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    engine = backends.load("torch")(bundle, "vae_decoder", Settings(threads=1))
    given = inputs(bundle, "vae_decoder")
    expected = to_uint8(engine.run(given)["frames"])
    assert not engine.decodes_beside  # on a CPU, where nothing has to be copied
    for engine.decodes_beside in (False, True):
        waits = [engine.begin_decoding(latents) for latents in (given["latents"], given["latents"] + 1)]
        np.testing.assert_array_equal(waits[0](), expected)
        assert not np.array_equal(waits[1](), expected)
        with pytest.raises(NumericalError, match="vae_decoder returned NaN or infinity; run again with compute='fp32'"):
            engine.begin_decoding(np.full_like(given["latents"], np.nan))()


@pytest.mark.slow
@pytest.mark.parametrize("low_memory", [False, True])
def test_a_piece_is_decoded_while_the_next_one_is_denoised(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, low_memory: bool
) -> None:
    install(monkeypatch)
    random = np.random.default_rng(1)
    portrait, images = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (20, 64, 64, 3), "u1")
    options, clips, events = Options(steps=2, windows="progressive", window_size=9), [], []
    for overlapped in (False, True):
        with Animator(bundle, "torch", compute="fp32", threads=1, low_memory=low_memory) as animator:
            opened = animator.graphs.open

            def open_engine(*given: Any, opened: Any = opened, overlapped: bool = overlapped) -> Engine:
                engine: Engine = opened(*given)
                engine.decodes_beside = overlapped
                return engine

            animator.graphs.open = open_engine
            state = animator.encode_portrait(portrait)
            begin, denoise = animator.begin_decoding, animator.latents

            def decoding(latents: Any, begin: Any = begin) -> Any:
                events.append("begin")
                wait = begin(latents)

                def waited() -> Any:
                    events.append("wait")
                    return wait()

                return waited

            def denoised(*given: Any, denoise: Any = denoise) -> Any:
                for latents in denoise(*given):
                    events.append("denoise")
                    yield latents

            monkeypatch.setattr(animator, "begin_decoding", decoding)
            monkeypatch.setattr(animator, "latents", denoised)
            told: list[tuple[Any, ...]] = []
            events.clear()
            progress = partial(lambda told, *each: told.append(each), told)
            clips.append(list(frames_of(animator, state, images, options, progress)))
            pieces = len(clips[-1])
            one_by_one = ["denoise", "begin", "wait"] * pieces
            ahead = ["denoise", "begin"] + ["denoise", "begin", "wait"] * (pieces - 1) + ["wait"]
            assert pieces > 2 and events == (ahead if overlapped and not low_memory else one_by_one)
            shown = [done for stage, done, _ in told if stage == "decode"]
            assert shown == sorted(shown) and shown[0] == 0 and shown[-1] == 20
    for one, other in zip(*clips, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_denoisers_on_a_gpu_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fye_export.graphs import graph_specs
    from fye_export.random_checkpoint import PRESETS

    install(monkeypatch)
    for name, spec in graph_specs(PRESETS["tiny"]).items():
        for device in ("cuda", "cpu"):
            engine = backend.TorchEngine(torch.nn.Identity(), spec, torch.device(device), "fp16")
            wanted = device == "cuda" and name in ("denoiser", "denoiser_cond")
            assert isinstance(engine._call, Replayed) == wanted
            none = Denoising((1, 4, 1, 8, 8), [], [], 1.0, 1, None, lambda frames: {})
            assert engine.workspace(none) is None  # there are no kernels
            assert engine.decodes_beside == (device == "cuda")
