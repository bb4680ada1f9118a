"""`fye build` makes plans that the runtime runs, on an imitated GPU on which ONNX Runtime computes them."""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fye_engines import checking, plans, quantize
from fye_engines.building import Settings
from fye_engines.command import planned
from fye_engines.plans import BUILD, NEW_WEIGHTS, THERE, Maker, Request, Task, default_graphs, tasks
from fye_engines.prepare import Shapes
from fye_rt import Animator, Bundle, Options, backends, machine
from fye_rt.backends import gpu as gpus
from fye_rt.backends import tensorrt_kernels
from fye_rt.backends.cuda_memory import Gpu, as_tensorrt_dtype
from fye_rt.backends.tensorrt import RTX_BACKEND, TENSORRT_BACKEND
from fye_rt.backends.tensorrt_library import RTX, TENSORRT, Library
from fye_rt.bundle import sealed
from fye_rt.cli import doctor
from fye_rt.clips.frames import frames_of
from fye_rt.errors import BackendError, NumericalError, OptionError, OutOfMemoryError
from fye_rt.options import Forecast
from fye_rt.plans import PlanCache
from tests.fye_engines import fake_gpu
from tests.fye_engines.fake_gpu import FakeGpu
from tests.fye_rt.command_line import Fye
from tests.fye_rt.plans.sample import NOBODY

SHAPES = Shapes((1, 5, 5), (64, 64, 64), (72, 72, 72))
FRAMES = 9
OPTIONS = Options(steps=6, guidance=2.0, window_size=5, window_overlap=2, compute="fp32")
MASKED = Forecast(method="paper", face_mask=True)

Clip = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


BOTH = pytest.mark.parametrize("library", [TENSORRT, RTX], ids=lambda library: library.title, indirect=True)


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest) -> Library:
    """TensorRT, but for tests of `BOTH`."""
    return getattr(request, "param", TENSORRT)


@pytest.fixture(scope="module")
def built(tiny: Bundle, library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plans of every graph in float32. Not to be written to."""
    folder = tmp_path_factory.mktemp("built") / "plans"
    with pytest.MonkeyPatch.context() as patch:
        fake_gpu.install(patch, tiny, folder, library)
        make(tiny, library=library, precision="fp32")
    return folder


@pytest.fixture
def gpu(tiny: Bundle, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU without plans."""
    return fake_gpu.install(monkeypatch, tiny, tmp_path / "plans", library)


@pytest.fixture
def ready(gpu: FakeGpu, built: Path, tmp_path: Path) -> FakeGpu:
    """A GPU with plans in float32."""
    shutil.copytree(built, tmp_path / "plans")
    return gpu


@pytest.fixture
def either(library: Library, ready: FakeGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """The same; with TensorRT-RTX our own kernels are compiled: latents stay on the GPU then."""
    if library is RTX:
        fake_gpu.with_kernels(monkeypatch, ready, tmp_path / "plans" / "kernels.sm_89")
    return ready


@pytest.fixture(scope="module")
def clip(tiny: Bundle) -> Clip:
    """Latents of a clip; those of ONNX Runtime are remembered."""
    random = np.random.default_rng(1)
    portrait = random.integers(0, 256, (64, 72, 3), np.uint8)
    images = random.integers(0, 256, (FRAMES, 64, 72, 3), np.uint8)
    known: dict[Any, np.ndarray] = {}

    def call(backend: str, frames: int = 5, options: Options = OPTIONS, **more: Any) -> np.ndarray:
        key = frames, str(options)
        if backend == "onnxruntime" and key in known and not more:
            return known[key]
        with Animator(tiny, backend, threads=1, compute="fp32") as animator:
            state, motion = animator.encode_portrait(portrait), animator.encode_motion(images[:frames])
            made = animator.denoise(state, motion, options=options, **more)
        if backend == "onnxruntime":
            known[key] = made
        return made

    return call


def wanted(bundle: Bundle, **asked: Any) -> Request:
    return Request(**({"graphs": default_graphs(bundle), "shapes": SHAPES, "precision": "fp32"} | asked))


def work(bundle: Bundle, progress: Any = lambda stage, done, total: None, **asked: Any) -> tuple[Maker, list[Task]]:
    """What makes plans, and the tasks for it."""
    request, here, cache = wanted(bundle, **asked), Gpu(), PlanCache()
    if request.library is RTX:
        machine = replace(RTX_BACKEND.machine(here), sm="+".join(RTX.usual))
    else:
        machine = TENSORRT_BACKEND.machine(here)
    return Maker(bundle, request, cache, here, progress), tasks(bundle, request, cache, machine)


def make(bundle: Bundle, **asked: Any) -> list[dict[str, Any]]:
    """Make what is missing; gives the facts of what was made."""
    maker, todo = work(bundle, **asked)
    return [maker.carry_out(task) for task in todo if task.action != THERE]


def actions(bundle: Bundle, **asked: Any) -> list[str]:
    return [task.action for task in work(bundle, **asked)[1]]


def same(made: np.ndarray, expected: np.ndarray) -> None:
    # sums are float32 on the GPU and float64 on the host, and a network with random weights makes more of it
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("windows", ["context", "reference", "progressive"])
def test_a_clip_of_tensorrt_in_windows_equals_onnx_runtime(windows: str, either: FakeGpu, clip: Clip) -> None:
    options = replace(OPTIONS, windows=windows, shared_noise=0.5)
    same(clip(either.backend, FRAMES, options), clip("onnxruntime", FRAMES, options))


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        replace(OPTIONS, guidance=1.0),
        replace(OPTIONS, forecast=Forecast(method="taylor", evaluations=4, order=2, quantity="x0")),
        replace(OPTIONS, forecast=MASKED),
        replace(OPTIONS, solver="unipc"),
        replace(OPTIONS, forecast=Forecast(method="adaptive")),
    ],
    ids=["guidance", "no guidance", "second order", "face mask", "solver", "adaptive"],
)
def test_a_clip_of_tensorrt_with_every_method_equals_onnx_runtime(
    options: Options, either: FakeGpu, tiny: Bundle, clip: Clip, library: Library
) -> None:
    if options.guidance <= 1:
        make(tiny, library=library, graphs=("denoiser_cond",))
    same(clip(either.backend, options=options), clip("onnxruntime", options=options))
    assert bool(either.launches) == bool(list(PlanCache().root.glob("kernels.*")))


@BOTH
def test_latents_stay_on_the_gpu_if_kernels_are_compiled(either: FakeGpu, clip: Clip) -> None:
    clip(either.backend)
    kernels = list((PlanCache().root).glob("kernels.*"))
    assert either.launches == (OPTIONS.steps if kernels else 0)


@BOTH
def test_clips_whose_shape_no_kernel_takes_go_through_the_host(
    either: FakeGpu, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_kernels, "ALIGNMENT", 128)  # three frames are 864 numbers
    same(clip(either.backend, 3), clip("onnxruntime", 3))
    assert either.launches == 0


@BOTH
def test_frames_leave_the_gpu_as_bytes_if_kernels_are_compiled(either: FakeGpu, tiny: Bundle) -> None:
    latents = np.random.default_rng(3).standard_normal((1, 4, 9, 8, 9)).astype(np.float32)
    with Animator(tiny, either.backend) as animator, Animator(tiny, "onnxruntime", threads=1) as other:
        made, expected = animator.decode_pixels(latents), other.decode_pixels(latents)
        assert made.dtype == np.uint8 and np.abs(made.astype(int) - expected).max() <= 1
        assert either.conversions == (2 if list(PlanCache().root.glob("kernels.*")) else 0)  # in chunks of 8
        either.error = float("nan")
        with pytest.raises(NumericalError, match="vae_decoder returned NaN"):
            animator.decode_pixels(latents)


@pytest.mark.slow
@BOTH
def test_tensorrt_reports_the_latents_of_every_step(either: FakeGpu, clip: Clip) -> None:
    seen: dict[str, dict[int, np.ndarray]] = {either.backend: {}, "onnxruntime": {}}
    for backend, steps in seen.items():
        clip(backend, on_step=lambda step, timestep, latents, steps=steps: steps.update({step: latents}))
    assert list(seen[either.backend]) == list(range(OPTIONS.steps))
    for step, latents in seen["onnxruntime"].items():
        same(seen[either.backend][step], latents)
        assert not seen[either.backend][step].flags.writeable


@BOTH
def test_an_evaluation_is_one_graph_launch_from_the_second_run_on(ready: FakeGpu, clip: Clip) -> None:
    clip(ready.backend)
    runs = [each for each in ready.trt.executions if "v_conditional" in each.addresses]
    launches = [call for call in ready.cuda.calls if call.name == "graph.Graph.launch"]
    assert len(runs) == 2 and len(launches) == OPTIONS.steps - 1  # once as it is, once to be captured


@pytest.mark.slow
def test_an_engine_that_cannot_be_captured_runs_without_a_cuda_graph(
    ready: FakeGpu, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    compute = ready.trt.compute

    def break_capture(execution: Any) -> None:
        compute(execution)
        ready.cuda.invalidate(execution.stream)

    ready.trt.compute = break_capture
    same(clip("tensorrt"), clip("onnxruntime"))
    assert len([text for text in caplog.messages if "denoiser runs without a CUDA graph" in text]) == 1


def test_the_portrait_is_copied_to_the_gpu_once(ready: FakeGpu, clip: Clip) -> None:
    copies = []
    for steps in (4, 6):
        ready.cuda.calls.clear()
        clip("tensorrt", options=replace(OPTIONS, steps=steps))
        copies.append(len([call for call in ready.cuda.calls if call.name == "Buffer.copy_from"]))
    assert copies[1] - copies[0] == 2 * 2  # latents and timestep of two more steps


@pytest.mark.slow
def test_windows_of_several_lengths_share_memory(ready: FakeGpu, tiny: Bundle, clip: Clip) -> None:
    random = np.random.default_rng(2)
    images = random.integers(0, 256, (5, 64, 72, 3), np.uint8)
    with Animator(tiny, "tensorrt") as animator, Animator(tiny, "onnxruntime", threads=1) as other:
        portrait = [each.encode_portrait(images[0]) for each in (animator, other)]
        for frames in (3, 5, 3, 1, 5):
            made, expected = (
                each.denoise(state, each.encode_motion(images[:frames]), options=OPTIONS)
                for each, state in zip((animator, other), portrait, strict=True)
            )
            same(made, expected)


def test_a_clip_of_tensorrt_is_resumed(ready: FakeGpu, tiny: Bundle, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (FRAMES, 64, 72, 3), np.uint8)
    options = replace(OPTIONS, windows="progressive", steps=2)
    made = []
    for _ in range(2):
        with Animator(tiny, "tensorrt", compute="fp32") as animator:
            state = animator.encode_portrait(images[0])
            runs = len(ready.trt.executions)
            made.append(np.concatenate(list(frames_of(animator, state, images, options, resume=tmp_path / "kept"))))
            denoised = [each for each in ready.trt.executions[runs:] if "v_conditional" in each.addresses]
            assert bool(denoised) == (len(made) == 1)
    np.testing.assert_array_equal(*made)


def test_an_animator_of_tensorrt_runs_in_any_thread(ready: FakeGpu, clip: Clip) -> None:
    with ThreadPoolExecutor(1) as other:
        same(other.submit(clip, "tensorrt").result(), clip("onnxruntime"))


def test_a_closed_animator_frees_the_memory_of_the_gpu(ready: FakeGpu, clip: Clip) -> None:
    clip("tensorrt")
    ready.cuda.calls.clear()  # they hold what they were given
    assert ready.cuda.live_bytes == {"device": 0, "pinned": 0}


def test_too_little_memory_of_the_gpu_is_reported(ready: FakeGpu, clip: Clip) -> None:
    ready.cuda.capacity = 100_000
    with pytest.raises(OutOfMemoryError, match=r"^not enough memory on the GPU for \w+ at size 64x72; use a smaller"):
        clip("tensorrt")


@BOTH
def test_an_encoder_that_returns_nan_is_named(either: FakeGpu, clip: Clip) -> None:
    either.error = float("nan")
    with pytest.raises(NumericalError, match="_encoder returned NaN or infinity"):
        clip(either.backend)


@BOTH
def test_a_prediction_that_is_not_finite_is_reported_with_its_step(either: FakeGpu, clip: Clip) -> None:
    run = either.compute

    def compute(execution: Any) -> None:
        run(execution)
        if "v_conditional" in execution.addresses:
            shape = execution.shapes["v_conditional"]
            address, timestep = execution.addresses["v_conditional"], execution.addresses["timestep"]

            def spoil() -> None:
                if either.cuda.array(timestep, (1,), np.int64)[0] < 500:
                    either.cuda.array(address, shape, np.float32)[...] = np.inf

            either.cuda.enqueue(execution.stream, spoil)

    either.trt.compute = compute
    with pytest.raises(NumericalError, match=r"at step 3 \(timestep 499\)"):
        clip(either.backend)


def test_shapes_without_a_plan_are_refused_with_the_command_that_builds_one(ready: FakeGpu, tiny: Bundle) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    with Animator(tiny, "tensorrt", compute="fp32") as animator, pytest.raises(BackendError) as told:
        animator.encode_portrait(picture)
    assert "--graph vae_encoder --precision fp32 --size 64x64" in str(told.value)
    assert "64x72" not in str(told.value).partition("build it with")[2]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"driver": (581, 0, 1)}, "driver 580.65.6; this is driver 581.0.1"),
        ({"capability": (8, 9)}, "GPU architecture sm_90; this is GPU architecture sm_89"),
    ],
)
def test_plans_of_another_driver_or_gpu_are_refused(
    change: dict[str, Any], text: str, ready: FakeGpu, clip: Clip
) -> None:
    for name, value in change.items():
        setattr(ready.cuda, name, value)
    with pytest.raises(BackendError, match="fye build") as told:
        clip("tensorrt")
    assert text in str(told.value)


def test_a_missing_plan_is_reported_with_the_command_that_builds_it(gpu: FakeGpu, clip: Clip, tiny: Bundle) -> None:
    with pytest.raises(BackendError, match=rf"has no plan of \w+; build it with: fye build {tiny.path}"):
        clip("tensorrt")


def test_a_missing_gpu_is_reported(ready: FakeGpu, clip: Clip) -> None:
    ready.cuda.devices = 0
    with pytest.raises(BackendError, match="no GPU can be used"):
        clip("tensorrt")


@pytest.mark.slow
def test_only_the_denoiser_runs_in_int8_and_only_on_request(gpu: FakeGpu, tiny: Bundle, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.path, folder)

    def measured(frames: int) -> Bundle:
        clip = random.integers(0, 256, (frames, 64, 72, 3), np.uint8)
        assert set(quantize.measure(Bundle.load(folder), [(clip[0], clip)], [2.0], 1)) == {"denoiser"}
        return Bundle.load(folder)

    gpu.bundle = bundle = measured(2)
    asked = {"graphs": ("denoiser", "guider"), "precision": "int8"}
    with pytest.raises(OptionError, match="no ranges of denoiser_cond; measure them: fye calibrate"):
        make(bundle, graphs=("denoiser_cond",), precision="int8")
    make(bundle, **asked)
    keys = [entry.key for entry in PlanCache().entries() if entry.key is not None]
    assert {key.graph: key.precision for key in keys} == {"denoiser": "int8", "guider": "fp16"}
    with Animator(bundle, "onnxruntime", threads=1) as animator:
        images = random.integers(0, 256, (3, 64, 72, 3), np.uint8)
        state = animator.encode_portrait(images[0])
    options = replace(OPTIONS, steps=2, compute="auto")
    with Animator(bundle, "tensorrt", compute="int8") as animator:
        assert animator.denoise(state, animator.encode_motion(images), options=options).shape == (1, 4, 3, 8, 9)
    with Animator(bundle, "tensorrt") as animator:
        motion = animator.encode_motion(images)
        with pytest.raises(BackendError, match="there is one for precision int8"):
            animator.denoise(state, motion, options=options)
    assert actions(bundle, **asked) == [THERE, THERE]
    assert actions(measured(3), **asked) == [BUILD, THERE]  # ranges are part of what a plan computes


def half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def brain(array: np.ndarray) -> np.ndarray:
    return torch.from_numpy(array).bfloat16().float().numpy()


@pytest.mark.parametrize(
    ("module", "text", "extra"),
    [("cuda.core", "cuda-core is missing", "cuda"), ("tensorrt", "TensorRT is missing", "tensorrt")],
)
def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    module: str, text: str, extra: str, ready: FakeGpu, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: Animator(tiny, "tensorrt"), lambda: list(planned(tiny, wanted(tiny), (), PlanCache()))):
        with pytest.raises(BackendError, match=rf"{text} .*; run: pip install 'fye-rt\[{extra}\]'"):
            call()
    assert text in TENSORRT_BACKEND.unusable(tiny)


def test_the_backend_auto_is_tensorrt_if_plans_are_built(
    ready: FakeGpu, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: gpus.Found((gpus.Gpu("a GPU", "sm_90", 1 << 36),), "13.0", ""))
    assert backends.choose("auto", tiny) == "tensorrt" and backends.unusable("tensorrt", tiny) == ""
    monkeypatch.setenv("FYE_PLANS", str(tmp_path / "none"))
    assert "has no plan of denoiser; build it with: fye build" in backends.unusable("tensorrt", tiny)


@pytest.mark.slow
@BOTH
def test_portrait_and_landmarks_are_held_in_the_precision_of_the_plan(
    library: Library, gpu: FakeGpu, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision, rounded = ("fp16", half) if library is TENSORRT else ("bf16", brain)
    monkeypatch.setattr(checking, "MOST_RMS", 1.0)  # bfloat16 is too coarse for a network with random weights
    monkeypatch.setattr(checking, "LEAST_COSINE", 0.5)
    make(tiny, library=library, graphs=("denoiser",), precision=precision)
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (5, 64, 72, 3), np.uint8)
    with Animator(tiny, "onnxruntime", threads=1) as animator:
        state, motion = animator.encode_portrait(images[0]), animator.encode_motion(images)
        low = {name: rounded(array) for name, array in state.tensors.items()}
        features = rounded(motion.features)
        state, motion = replace(state, tensors=low), replace(motion, features=features)
        expected = animator.denoise(state, motion, options=replace(OPTIONS, compute="auto"))
    with Animator(tiny, gpu.backend) as animator:
        same(animator.denoise(state, motion, options=replace(OPTIONS, compute="auto")), expected)
    held = gpu.trt.executions[-1].plan["tensors"]
    kinds = {each["name"]: each["dtype"] for each in held}
    assert kinds["reference_key.0"] == {"fp16": "HALF", "bf16": "BF16"}[precision] and kinds["latents"] == "FLOAT"


@pytest.mark.parametrize("kind", [half, brain])
def test_numbers_are_rounded_to_the_nearest_of_the_lower_precision(kind: Callable[..., Any]) -> None:
    array = np.random.default_rng(0).standard_normal(10_000, np.float32)
    array[:4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0  # half way: to even
    name = {half: "HALF", brain: "BF16"}[kind]
    made = as_tensorrt_dtype(array, name)
    widened = (made.astype(np.uint32) << 16).view(np.float32) if name == "BF16" else made.astype(np.float32)
    np.testing.assert_array_equal(widened, kind(array))


def test_an_existing_plan_is_not_built_again(ready: FakeGpu, tiny: Bundle) -> None:
    assert set(actions(tiny)) == {THERE} and make(tiny) == []
    assert set(actions(tiny, rebuild=True)) == {BUILD}
    assert set(actions(tiny, settings=Settings(level=5))) == {BUILD}
    assert set(actions(tiny, attention="written-out")) == {BUILD}


def test_a_plan_records_its_difference_from_float32(ready: FakeGpu, tiny: Bundle) -> None:
    cache = PlanCache()
    entries = cache.entries()
    assert sorted(entry.key.graph for entry in entries if entry.key) == sorted(default_graphs(tiny))
    for entry in entries:
        assert entry.key is not None
        facts = cache.open(entry.key, "").facts
        assert facts["action"] == BUILD and facts["seconds"] >= 0
        outputs = {spec.name for spec in tiny.graphs[entry.key.graph].outputs}
        assert all(set(found) == outputs for found in facts["differences"].values())
        assert "1 of 64x72" in facts["differences"]
        assert all(each["relative_rms"] < 1e-5 for found in facts["differences"].values() for each in found.values())


@pytest.mark.parametrize("settings", [Settings(), Settings(refit=True, stripped=True)], ids=["whole", "stripped"])
def test_a_plan_that_computes_something_else_is_not_published(settings: Settings, gpu: FakeGpu, tiny: Bundle) -> None:
    gpu.error = 0.1
    with pytest.raises(BackendError, match="the plan of guider is not kept: at 8 of 64x72 landmark_features"):
        make(tiny, graphs=("guider",), settings=settings)
    assert PlanCache().entries() == []


def test_a_damaged_plan_is_refused_with_the_command_that_rebuilds_it(gpu: FakeGpu, tiny: Bundle, fye: Fye) -> None:
    make(tiny, graphs=("guider",), settings=Settings(level=1))
    (entry,) = PlanCache().entries()
    (entry.path / "plan.trt").write_bytes(bytes(entry.path.joinpath("plan.trt").stat().st_size))
    again = r"build it again with: fye build \S+ --graph guider .* --rebuild$"
    with Animator(tiny, "tensorrt", compute="fp32") as animator, pytest.raises(BackendError, match=again):
        animator.encode_motion(np.zeros((5, 64, 72, 3), np.uint8))
    assert "1 plans removed" in fye("build", "--prune")  # a new one in its place would have to be of its level


def test_a_damaged_plan_is_not_refitted(gpu: FakeGpu, tiny: Bundle, tuned: Bundle) -> None:
    make(tiny, graphs=("guider",), settings=Settings(refit=True))
    (entry,) = PlanCache().entries()
    (entry.path / "plan.trt").write_bytes(bytes(entry.path.joinpath("plan.trt").stat().st_size))
    gpu.bundle = tuned
    with pytest.raises(BackendError, match=rf"fye build {tuned.path} --graph guider --precision fp32 --rebuild"):
        make(tuned, graphs=("guider",))
    assert make(tuned, graphs=("guider",), rebuild=True)[0]["action"] == BUILD


def test_a_cancelled_build_leaves_no_plan(gpu: FakeGpu, tiny: Bundle) -> None:
    def progress(stage: str, done: float, total: float) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    maker, (task,) = work(tiny, progress, graphs=("guider",))
    with pytest.raises(KeyboardInterrupt):
        maker.carry_out(task)
    assert {path.name for path in PlanCache().root.iterdir()} == {".locks"}
    assert make(tiny, graphs=("guider",))  # nor is it locked


def test_a_second_build_takes_the_plan_of_the_first(gpu: FakeGpu, tiny: Bundle) -> None:
    maker, (task,) = work(tiny, graphs=("guider",))
    made = [maker.carry_out(task) for _ in range(2)]
    assert made[0]["seconds"] == made[1]["seconds"] and "created" in made[1]
    assert gpu.trt.builds == ["guider"]


def test_a_concurrent_build_waits_and_takes_the_plan_of_the_other(gpu: FakeGpu, tiny: Bundle) -> None:
    stages, facts, waits = list[str](), list[dict[str, Any]](), threading.Event()

    def second_progress(stage: str, done: float, total: float) -> None:
        stages.append(stage)
        waits.set()

    waiting, _ = work(tiny, second_progress, graphs=("guider",))
    second = threading.Thread(target=lambda: facts.append(waiting.carry_out(task)))

    def first_progress(stage: str, done: float, total: float) -> None:
        if not waits.is_set() and second.ident is None:
            second.start()
            waits.wait(60)

    maker, (task,) = work(tiny, first_progress, graphs=("guider",))
    first = maker.carry_out(task)
    second.join(60)
    assert stages == ["another process is building the plan of guider; waiting for it"]
    assert facts[0]["seconds"] == first["seconds"]
    assert gpu.trt.builds == ["guider"]


@pytest.fixture
def tuned(tiny: Bundle, tmp_path: Path) -> Bundle:
    """Another fine-tune: the same graphs with other weights."""
    folder = tmp_path / "tuned"
    shutil.copytree(tiny.path, folder)
    weights = folder / tiny.weights
    raw = bytearray(weights.read_bytes())
    raw[-2:] = b"\x00\x3c"
    weights.write_bytes(raw)
    manifest = json.loads((folder / "bundle.json").read_text())
    del manifest["sha256"]
    manifest["files"][tiny.weights]["sha256"] = hashlib.sha256(raw).hexdigest()
    (folder / "bundle.json").write_text(sealed(manifest))
    return Bundle.load(folder)


@BOTH
@pytest.mark.parametrize("stripped", [False, True])
def test_a_refittable_plan_takes_the_weights_of_a_fine_tune(
    stripped: bool, gpu: FakeGpu, tiny: Bundle, tuned: Bundle, library: Library
) -> None:
    make(tiny, library=library, graphs=("guider",), settings=Settings(refit=True, stripped=stripped))
    asked = {"library": library, "graphs": ("guider",)}
    assert actions(tiny, **asked) == [THERE] and actions(tuned, **asked) == [NEW_WEIGHTS]
    gpu.bundle = tuned
    (facts,) = make(tuned, **asked)
    assert facts["action"] == NEW_WEIGHTS and facts["differences"]
    assert gpu.trt.builds == ["guider"]
    assert actions(tuned, **asked) == [THERE]
    keys = [entry.key for entry in PlanCache().entries() if entry.key is not None]
    assert len(keys) == 2 + stripped and len({key.weights for key in keys}) == len(keys)


def test_a_plan_built_without_refit_is_not_refitted(gpu: FakeGpu, tiny: Bundle, tuned: Bundle) -> None:
    make(tiny, graphs=("guider",))
    assert actions(tuned, graphs=("guider",)) == [BUILD]


@pytest.mark.parametrize("change", ["driver", "graph"])
def test_a_plan_of_another_driver_or_graph_is_not_refitted(
    change: str, gpu: FakeGpu, tiny: Bundle, tuned: Bundle
) -> None:
    make(tiny, graphs=("guider",), settings=Settings(refit=True))
    assert actions(tuned, graphs=("guider",)) == [NEW_WEIGHTS]
    if change == "driver":
        gpu.cuda.driver = (999, 1)
    else:
        files = {**tuned.manifest["files"], "guider.onnx": {"sha256": "0" * 64, "bytes": 1}}
        tuned = replace(tuned, manifest={**tuned.manifest, "files": files})
    assert actions(tuned, graphs=("guider",)) == [BUILD]


@pytest.fixture
def fye(capsys: pytest.CaptureFixture[str]) -> Fye:
    return Fye(capsys)


@pytest.mark.slow
def test_fye_build_builds_lists_and_prunes_plans(gpu: FakeGpu, tiny: Bundle, fye: Fye) -> None:
    graphs = ("--graph", "guider", "--graph", "reference")
    asked = ("build", tiny.path, "--backend", "tensorrt", "--size", "64x72", *graphs)
    first = fye(*asked, "--dry-run")
    assert "guider: is built" in first and "has no plan of guider" in first and "1:8 frames of 64x72" in first
    assert "1:24 frames of 64x72" in fye("build", tiny.path, "--dry-run", "--size", "64x72", "--graph", "denoiser")
    assert "; 16 frames" in fye("build", tiny.path, "--dry-run", "--windows", "context", "--window-size", 16)
    assert PlanCache().entries() == []
    done = fye(*asked)
    assert "guider: built in" in done and "reference: built in" in done
    assert "guider: is there" in fye(*asked)
    assert "2 plans" in fye("build", "--list") and "sm_90" in fye("build", "--list")
    gpu.cuda.driver = (999, 1)
    assert "2 plans removed" in fye("build", "--prune") and PlanCache().entries() == []


def test_a_copied_plan_is_listed(ready: FakeGpu, tmp_path: Path, fye: Fye, monkeypatch: Any) -> None:
    folder = PlanCache().entries()[0].path
    monkeypatch.setenv("FYE_PLANS", str(tmp_path))
    shutil.copytree(folder, tmp_path / folder.name)
    assert "1 plans" in fye("build", "--list")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "give a BUNDLE"),
        (("BUNDLE", "--backend", "torch"), "--backend torch is not valid"),
        (("BUNDLE", "--size", "64"), "size"),
        (("BUNDLE", "--size", "64x64:64x72:64x75"), "--size 64x75 is not valid; sides are multiples of 8"),
        (("BUNDLE", "--frames", "5:3:1"), "--frames 5:3:1"),
        (("BUNDLE", "--frames", "1:2"), "--frames 1:2"),
        (("BUNDLE", "--frames", "x"), "--frames x"),
        (("BUNDLE", "--frames", "64"), "this bundle allows"),
        (("BUNDLE", "--graph", "nothing"), "graph=nothing"),
        (("BUNDLE", "--precision", "fp4", "--graph", "guider"), "precision"),
        (("BUNDLE", "--precision", "int8"), "has no ranges.json"),
        (("BUNDLE", "--precision", "int8", "--refit"), "allows no refit"),
        (("BUNDLE", "--attention", "flash"), "attention"),
        (("BUNDLE", "--level", "9"), "level=9"),
        (("BUNDLE", "--workspace", "0"), "workspace=0"),
        (("BUNDLE", "--windows", "none"), "windows"),
    ],
)
def test_wrong_arguments_of_fye_build_are_refused(
    arguments: tuple[str, ...], text: str, gpu: FakeGpu, tiny: Bundle, fye: Fye
) -> None:
    given = [str(tiny.path) if each == "BUNDLE" else each for each in arguments]
    assert text in fye.refuses("build", *given) and text in fye.refuses("build", *given, "--dry-run")
    assert gpu.trt.builds == []


@pytest.fixture
def card(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> FakeGpu:
    """A card that TensorRT-RTX serves, with a plan of the guider."""
    gpu = fake_gpu.install(monkeypatch, tiny, tmp_path / "plans", RTX)
    make(tiny, library=RTX, graphs=("guider",))
    assert caplog.messages == []
    return gpu


def features(bundle: Bundle, frames: int = 5) -> np.ndarray:
    with Animator(bundle, "tensorrt-rtx", compute="fp32") as animator:
        return animator.encode_motion(np.zeros((frames, 64, 72, 3), np.uint8)).features


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (12, 0)])
def test_a_plan_of_tensorrt_rtx_serves_every_card_that_it_names(
    capability: tuple[int, int], card: FakeGpu, tiny: Bundle
) -> None:
    card.cuda.capability = capability
    assert features(tiny).shape[0] == 5


def test_a_card_that_a_plan_does_not_name_is_refused(card: FakeGpu, tiny: Bundle) -> None:
    card.cuda.capability = (7, 5)
    with pytest.raises(
        BackendError, match=r"sm_80\+sm_86\+sm_89\+sm_120; this is GPU architecture sm_75; .*fye build"
    ) as told:
        features(tiny)
    assert "--backend tensorrt-rtx --arch sm_75" in str(told.value)
    assert f"{RTX.backend} --arch sm_75" in RTX_BACKEND.unusable(tiny)


def test_a_card_that_tensorrt_rtx_does_not_serve_is_told_which_it_serves(
    card: FakeGpu, tiny: Bundle, fye: Fye, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: gpus.Found((gpus.Gpu("a GPU", "sm_90", 1 << 36),), "13.0", ""))
    monkeypatch.setattr(machine, "PACKAGES", ())
    known = {name: backends.BACKENDS[name] for name in ("tensorrt-rtx", "onnxruntime")}
    monkeypatch.setattr(backends, "BACKENDS", known)
    lines = {line.part: line for line in doctor.examine()}
    assert lines["backend tensorrt-rtx"].state == doctor.OK  # of sm_89
    card.cuda.capability = (9, 0)
    served = "sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"
    said = f"TensorRT-RTX serves {served}, not this GPU (sm_90); use backend='tensorrt'"
    with pytest.raises(BackendError) as told:
        features(tiny)
    assert str(told.value) == said
    line = next(line for line in doctor.examine() if line.part == "backend tensorrt-rtx")
    assert (line.state, line.how) == (doctor.ABSENT, f"not usable: {said}")
    built = fye("build", tiny.path, "--backend", "tensorrt-rtx", "--size", "64x72", "--graph", "guider")
    assert "guider: built in" in built and "not run: this machine has no GPU that the plan serves" in built


def test_kernels_that_tensorrt_rtx_compiled_are_kept_beside_the_plan(card: FakeGpu, tiny: Bundle) -> None:
    (entry,) = PlanCache().entries()
    compiled = card.trt.compiled
    compiled.clear()  # what the build's comparison compiled was for a plan that was not published yet
    features(tiny)
    assert len(compiled) == 1
    features(tiny)
    features(tiny, frames=3)
    assert len(compiled) == 2  # three frames are new
    (file,) = entry.path.glob("runtime.*")
    assert file.name == "runtime.sm_89" and file.stat().st_mode & 0o777 == 0o600
    assert PlanCache().entries()[0].size == entry.size + file.stat().st_size  # counts towards the limit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncated", "runtime.sm_89 is not used, but made anew: runtime.sm_89 differs from its hash"),
        ("of another version", "what TensorRT-RTX compiled for guider before does not fit here; it compiles again"),
    ],
)
def test_kernels_that_cannot_be_read_are_compiled_again(
    damage: str, said: str, card: FakeGpu, tiny: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    features(tiny)
    (entry,) = PlanCache().entries()
    if damage == "truncated":
        file = entry.path / "runtime.sm_89"
        file.write_bytes(file.read_bytes()[:40])
    else:
        assert entry.key is not None
        PlanCache().write_runtime(entry.key, "sm_89", b'["1.6", []]')
    card.trt.compiled.clear()
    features(tiny)
    assert len(card.trt.compiled) == 1
    features(tiny)
    assert len(card.trt.compiled) == 1  # what it compiled is kept in place of it
    (message,) = caplog.messages
    assert message.endswith(said)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Nobody can write to a folder, not even root, who becomes another user."""
    modes = {path: path.stat().st_mode for path in (root, *root.rglob("*"))}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    root_user = os.geteuid() == 0
    try:
        if root_user:
            os.seteuid(NOBODY)
    except OSError as error:
        pytest.skip(f"root cannot be another user here: {error}")
    try:
        yield
    finally:
        if root_user:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_read_only_cache_gives_its_plans_and_keeps_no_kernels(
    card: FakeGpu, tiny: Bundle, outside: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = features(tiny)  # it also imports what another user may not read
    root = outside / "plans"
    shutil.copytree(PlanCache().root, root)
    (compiled,) = root.glob("*/runtime.*")
    compiled.unlink()
    monkeypatch.setenv("FYE_PLANS", str(root))
    before = sorted(root.rglob("*"))
    with Animator(tiny, "tensorrt-rtx", compute="fp32") as animator, read_only(root):
        for frames in (5, 3, 5):
            motion = animator.encode_motion(np.zeros((frames, 64, 72, 3), np.uint8))
    np.testing.assert_array_equal(motion.features, expected)
    (message,) = caplog.messages
    assert message.startswith(f"what TensorRT-RTX compiled is not kept: cannot write {compiled}: Permission denied; ")
    assert sorted(root.rglob("*")) == before


def test_a_run_of_tensorrt_rtx_that_cannot_be_captured_is_not(card: FakeGpu, tiny: Bundle) -> None:
    card.trt.capturable = False
    with Animator(tiny, "tensorrt-rtx", compute="fp32") as animator:
        for _ in range(3):
            animator.encode_motion(np.zeros((5, 64, 72, 3), np.uint8))
    assert len([run for run in card.trt.executions if run.shapes["landmark_images"][0] == 5]) >= 3
    assert not [call for call in card.cuda.calls if call.name == "graph.Graph.launch"]


def test_a_plan_of_another_tensorrt_rtx_is_refused(card: FakeGpu, tiny: Bundle) -> None:
    card.trt.module.__version__ = "1.8.0.1"
    with pytest.raises(BackendError, match=r"TensorRT rtx-1.7.1.116; this is TensorRT rtx-1.8.0.1; build it with"):
        features(tiny)


def test_plans_of_tensorrt_rtx_are_built_without_a_gpu(card: FakeGpu, tiny: Bundle, fye: Fye) -> None:
    card.cuda.devices = 0
    asked = ("build", tiny.path, "--backend", "tensorrt-rtx", "--size", "64x72", "--graph", "guider")
    told = fye(*asked, "--arch", "sm_89,sm_86")
    assert re.search(r"^guider: built in \d+ s; not run: this machine has no GPU that the plan serves", told)
    (key,) = (entry.key for entry in PlanCache().entries() if entry.key and entry.key.sm == "sm_86+sm_89")
    assert (key.tensorrt, key.driver) == ("rtx-1.7.1.116", "any")
    assert "replaces weights on a GPU alone" in fye.refuses(*asked, "--refit")
    before = sorted(PlanCache().root.rglob("*"))
    served = "TensorRT-RTX serves sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"
    for dry in ((), ("--dry-run",)):
        assert f"--arch sm_90 is not valid: {served}" in fye.refuses(*asked, "--arch", "sm_89,sm_90", *dry)
    assert sorted(PlanCache().root.rglob("*")) == before
    assert "0 plans removed" in fye("build", "--prune")  # other machines may have the cards


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.0, 0.1])
def test_a_plan_that_was_not_run_is_compared_on_the_first_card(
    error: float, card: FakeGpu, tiny: Bundle, fye: Fye
) -> None:
    asked = ("build", tiny.path, "--backend", "tensorrt-rtx", "--size", "64x72", "--graph", "guider")
    card.cuda.devices = 0
    fye(*asked)
    assert "is there" in (told := fye(*asked)) and "not run" in told
    card.cuda.devices, card.error = 1, error
    if error:
        assert "the plan of guider is not kept: at 8 of 64x72 landmark_features" in fye.refuses(*asked)
    else:
        assert "relative RMS of the outputs" in fye(*asked)
        runs = len(card.trt.executions)
        assert "relative RMS of the outputs" in fye(*asked) and len(card.trt.executions) == runs
    flags = [entry.key.flags for entry in PlanCache().entries() if entry.key and entry.key.precision == "fp16"]
    assert bool(flags) == (not error)


@pytest.fixture
def without_nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes NVIDIA's management library away."""

    def absent() -> None:
        raise RuntimeError("Failure finding libnvidia-ml.so.1")

    return lambda: monkeypatch.setattr(sys.modules["cuda.core"].system, "get_kernel_mode_driver_version", absent)


def test_a_machine_without_nvml_says_so(
    ready: FakeGpu, clip: Clip, tiny: Bundle, fye: Fye, without_nvml: Callable[[], None]
) -> None:
    without_nvml()
    before = sorted(PlanCache().root.rglob("*"))
    with pytest.raises(BackendError, match=r"the driver's version is unknown, .* install NVIDIA's management library"):
        clip("tensorrt")
    assert "management library" in TENSORRT_BACKEND.unusable()
    assert "management library" in fye.refuses("build", tiny.path)
    assert sorted(PlanCache().root.rglob("*")) == before


def test_plans_of_tensorrt_rtx_run_without_nvml(card: FakeGpu, tiny: Bundle, without_nvml: Callable[[], None]) -> None:
    without_nvml()
    assert features(tiny).shape[0] == 5


@pytest.mark.slow
def test_attention_that_the_library_cannot_decompose_is_written_out(
    gpu: FakeGpu, tiny: Bundle, fye: Fye, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, prepared = gpu.trt.build, []

    def refuse(graph: Any, *given: Any, **more: Any) -> Any:
        prepared.append(graph)
        if b"TRT_decomposable" in graph.onnx:
            raise BackendError("TensorRT cannot build vae_encoder: vector::_M_range_check")
        return build(graph, *given, **more)

    monkeypatch.setattr(plans, "build", refuse)
    told = fye("build", tiny.path, "--size", "64x72", "--graph", "vae_encoder", "--precision", "fp32")
    assert re.search(r"^vae_encoder: built in \d+ s; attention is written out \(layers: 1\); relative RMS", told)
    assert [bool(graph.decomposed) for graph in prepared] == [True, False]
    assert actions(tiny, graphs=("vae_encoder",)) == [THERE]


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        ("fused", "attention without a kernel is decomposed (layers: 1; head sizes: 8)"),
        ("written-out", "attention is written out (layers: 1)"),
    ],
)
def test_attention_without_a_kernel_of_its_own_is_named_before_and_after_the_build(
    attention: str,
    said: str,
    gpu: FakeGpu,
    tiny: Bundle,
    fye: Fye,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PlanCache().root.mkdir(0o700)
    fake_gpu.with_kernels(monkeypatch, gpu, PlanCache().root / "kernels.sm_90")
    caplog.set_level(logging.INFO, "fye_rt")
    asked = ("build", tiny.path, "--size", "64x72", "--precision", "fp32", "--attention", attention)
    asked = (*asked, "--graph", "vae_encoder", "--graph", "guider")
    encoder, guider = fye(*asked, "--dry-run").splitlines()[1:]
    assert encoder.startswith("vae_encoder: is built") and encoder.endswith(f"64x72; {said}")
    assert guider.startswith("guider: is built") and "attention" not in guider.partition("); ")[2]
    encoder, guider = fye(*asked).splitlines()[:2]
    assert encoder.startswith("vae_encoder: built in") and f" s; {said}; relative RMS" in encoder
    assert guider.startswith("guider: built in") and "attention" not in guider
    assert caplog.messages == [f"vae_encoder: {said}"]


@pytest.mark.parametrize(
    ("needed", "said", "error"),
    [
        (0, "", None),  # the library does not say: the most that any shapes need
        (0, "no shapes", "TensorRT cannot size its memory for guider: no shapes$"),
        (1, "", "TensorRT cannot use its memory for guider: 1 bytes at .* are not the 1048576 that it needs$"),
    ],
)
def test_working_memory_that_the_library_refuses_is_reported(
    needed: int, said: str, error: str | None, ready: FakeGpu, tiny: Bundle
) -> None:
    ready.trt.memory = needed, said
    images = np.zeros((5, 64, 72, 3), np.uint8)
    with Animator(tiny, "tensorrt", compute="fp32") as animator:
        if error is None:
            with Animator(tiny, "onnxruntime", threads=1) as other:
                same(animator.encode_motion(images).features, other.encode_motion(images).features)
        else:
            with pytest.raises(BackendError, match=error):
                animator.encode_motion(images)


@pytest.fixture
def place(
    request: pytest.FixtureRequest, library: Library, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Where plans are built and run: this machine's GPU, or an imitated one."""
    if request.param == "imitated":
        fake_gpu.install(monkeypatch, tiny, tmp_path / "plans", library)
        return "imitated"
    pytest.importorskip(library.module, reason=f"needs {library.title}")
    pytest.importorskip("cuda.core", reason="needs cuda-core")
    sm = f"sm_{Gpu().device.arch}"
    if library is RTX and sm not in RTX.usual:
        pytest.skip(f"needs a card of {', '.join(RTX.usual)}, not {sm}")
    monkeypatch.setenv("FYE_PLANS", str(tmp_path / "plans"))
    return "real"


@pytest.mark.parametrize(
    ("library", "place"),
    [
        (TENSORRT, "imitated"),
        (RTX, "imitated"),
        pytest.param(TENSORRT, "real", marks=pytest.mark.gpu(architecture="sm_75 or newer")),
        pytest.param(RTX, "real", marks=pytest.mark.gpu(architecture=", ".join(RTX.usual))),
    ],
    indirect=True,
)
def test_plans_are_built_run_and_read_again(place: str, library: Library, tiny: Bundle) -> None:
    bound = 1e-2 if place == "real" else 1e-4  # of the largest number, in float16 on a GPU
    asked = {"library": library, "graphs": ("guider", "vae_decoder"), "precision": "fp16"}
    assert [facts["action"] for facts in make(tiny, **asked)] == [BUILD, BUILD]
    assert actions(tiny, **asked) == [THERE, THERE]
    random = np.random.default_rng(6)
    images, latents = random.integers(0, 256, (5, 64, 72, 3), np.uint8), random.standard_normal((1, 4, 5, 8, 9))
    with Animator(tiny, "onnxruntime", threads=1) as animator:
        expected = animator.encode_motion(images).features
        frames = animator.decode_pixels(latents.astype(np.float32)).astype(int)
    for _ in range(2):
        with Animator(tiny, library.backend, compute="fp16") as animator:
            made = [animator.encode_motion(images).features for _ in range(3)]  # as it is, captured, replayed
            pixels = animator.decode_pixels(latents.astype(np.float32)).astype(int)
        for features in made:
            assert np.abs(features - expected).max() <= bound * np.abs(expected).max()
        assert np.abs(pixels - frames).max() <= (8 if place == "real" else 1)
    kept = [file.name for entry in PlanCache().entries() for file in entry.path.glob("runtime.*")]
    assert len(kept) == (2 if library is RTX else 0)
