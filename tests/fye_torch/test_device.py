"""The torch backend on a GPU, and on an imitation of one that does each thing as late as a GPU may."""

import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.engine import Settings
from fye_rt.network import PortraitState
from tests.fye_rt.backends.imitated_cuda import Cuda
from tests.fye_rt.networks import graph_inputs

pytest.importorskip("torch")

import torch

from fye_torch import engine as backend
from fye_torch import graphs
from fye_torch.arrays import TorchArray

GRAPHS = ["image_encoder", "vae_encoder", "reference", "guider", "denoiser", "denoiser_cond", "vae_decoder"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Any) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Twelve pictures of 64x64; the first is also the portrait."""
    return np.random.default_rng(1).integers(0, 256, (12, 64, 64, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"windows": "context", "window_size": 3, "window_overlap": 1}])
def test_a_clip_equals_that_of_onnx_runtime(
    cuda: Cuda, bundle: Bundle, images: NDArray[np.uint8], settings: dict[str, Any]
) -> None:
    clips = []
    for name in ("torch", "onnxruntime"):
        with Animator(bundle, name, compute="fp32", threads=1) as animator:
            states = animator.encode_portrait(images[0]), animator.encode_motion(images[:4])
            for _ in range(2):  # the second clip is replayed
                latents = animator.denoise(*states, options=Options(steps=2, **settings))
            clips.append(animator.decode_pixels(latents))
    # of 255 levels; the tolerance of test_engine.py, and one level that rounding may decide
    assert np.abs(clips[0].astype(int) - clips[1]).max() <= 1


def test_features_and_portraits_stay_on_the_device(
    cuda: Cuda, bundle: Bundle, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Any] = []
    read = TorchArray.__array__
    monkeypatch.setattr(TorchArray, "__array__", lambda array, *given: (copies.append(array), read(array, *given))[1])
    latents, states = [], []
    options = Options(steps=2, windows="context", window_size=7, window_overlap=2)
    for low_memory in (False, True):  # with low_memory, on the host
        with Animator(bundle, "torch", compute="fp32", threads=1, low_memory=low_memory) as animator:
            states.append((animator.encode_portrait(images[0]), animator.encode_motion(images)))
            latents.append(animator.denoise(*states[-1], options=options))
    assert not copies
    np.testing.assert_array_equal(*latents)
    (portrait, motion), (portrait_on_host, motion_on_host) = states
    assert isinstance(motion.features, TorchArray) and isinstance(motion_on_host.features, np.ndarray)
    assert len(motion) == 12 and motion.features.shape == motion_on_host.features.shape
    np.testing.assert_array_equal(motion.features, motion_on_host.features)
    assert np.asarray(motion.features).flags.c_contiguous
    assert motion.features[np.arange(12)] is motion.features  # a clip of one window copies nothing
    some = np.array([7, 2, 2])
    np.testing.assert_array_equal(motion.features[some], motion_on_host.features[some])
    for name, array in portrait_on_host.tensors.items():
        assert isinstance(array, np.ndarray) and isinstance(portrait.tensors[name], TorchArray)
        assert np.asarray(portrait.tensors[name]).dtype == np.float32
        np.testing.assert_array_equal(portrait.tensors[name], array)


def test_another_backend_takes_what_is_on_the_device(cuda: Cuda, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
        states = animator.encode_portrait(images[0]), animator.encode_motion(images[:3])
    portrait, motion = states
    tensors = {name: np.asarray(array) for name, array in portrait.tensors.items()}
    on_host = PortraitState(tensors, portrait.size), replace(motion, features=np.asarray(motion.features))
    with Animator(bundle, "onnxruntime", threads=1) as animator:
        made, expected = (animator.denoise(*each, options=Options(steps=1)) for each in (states, on_host))
    assert isinstance(motion.features, TorchArray)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("graph", ["guider", "reference"])
def test_a_result_on_the_device_that_is_not_finite_is_refused(
    imitated: Cuda, bundle: Bundle, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
        engine: Any = animator.graphs.engine(graph)
        forward = engine.module.forward

        def broken(*inputs: Any) -> Any:
            outputs = forward(*inputs)
            (outputs if isinstance(outputs, torch.Tensor) else outputs[-1])[..., -1] = torch.inf
            return outputs

        monkeypatch.setattr(engine.module, "forward", broken)
        with pytest.raises(ArithmeticError, match=f"{graph} returned NaN or infinity"):
            animator.encode_motion(images) if graph == "guider" else animator.encode_portrait(images[0])


def test_frames_are_decoded_on_a_stream_of_low_priority(
    cuda: Cuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = backends.load("torch")(bundle, "vae_decoder", Settings(compute="fp32", threads=1))
    assert engine.decodes_beside
    latents = [graph_inputs(bundle, "vae_decoder", frames=frames)["latents"] for frames in (2, 3)]
    expected = [(engine.run({"latents": each})["frames"] * 255).clip(0, 255).astype(np.uint8) for each in latents]
    waits = [engine.begin_decoding(each) for each in latents]
    for wait, frames in zip(waits[::-1], expected[::-1], strict=True):  # the later first
        assert np.abs(wait().astype(int) - frames).max() <= (0 if cuda.imitated else 1)
    assert engine._stream.priority == graphs.LOW > graphs.HIGH


@pytest.mark.slow
def test_two_animators_in_two_threads_make_the_clips_of_one(
    cuda: Cuda, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    cuda.pause = 0.05  # a capture takes long enough to meet the other thread
    clips: dict[tuple[str, int], Any] = {}
    errors: list[BaseException] = []

    def animate(name: str, animator: Animator, number: int, watched: AbstractContextManager[Any]) -> None:
        try:
            with watched:
                for turn in range(2):
                    frames = images[number : number + 3 + 2 * turn + number]
                    states = animator.encode_portrait(frames[0]), animator.encode_motion(frames)
                    for _ in range(2):
                        latents = animator.denoise(*states, options=Options(steps=1))
                    clips[name, 2 * number + turn] = animator.begin_decoding(latents)()
        except BaseException as error:
            errors.append(error)

    for name in ("one by one", "together"):
        animators = [Animator(bundle, "torch", compute="fp32", threads=1) for _ in range(2)]
        for animator in animators:
            for graph in GRAPHS:
                animator.graphs.engine(graph)
        threads = [
            threading.Thread(target=animate, args=(name, animator, number, cuda.watched()))
            for number, animator in enumerate(animators)
        ]
        for thread in threads:
            thread.start()
            if name == "one by one":
                thread.join()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    assert len(clips) == 8
    for number in range(4):
        np.testing.assert_array_equal(clips["together", number], clips["one by one", number])
    if cuda.imitated:
        assert len(cuda.captures) == 8 and all(capture.replays for capture in cuda.captures)


def test_a_warm_up_looks_for_the_fastest_convolutions(
    imitated: Cuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    cudnn = torch.backends.cudnn
    with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
        for graph in GRAPHS:
            module: Any = animator.graphs.engine(graph).module  # type: ignore[attr-defined]
            forward = partial(
                lambda forward, *given: (seen.append(cudnn.benchmark), forward(*given))[1], module.forward
            )
            monkeypatch.setattr(module, "forward", forward)
        for before in (False, True):
            monkeypatch.setattr(cudnn, "benchmark", before)
            animator.warm_up((64, 64), frames=2)
            assert cudnn.benchmark is before
    assert len(seen) >= 2 * 6 and all(seen)


def test_a_cpu_keeps_results_on_the_host_and_looks_for_nothing(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    cpu = torch.device("cpu")
    if torch.cuda.is_available():
        pytest.skip("the torch backend takes the GPU that is here")
    assert not backend.on_gpu(cpu)
    with Animator(bundle, "torch", compute="fp32", threads=1) as animator:
        assert isinstance(animator.encode_motion(images[:2]).features, np.ndarray)
        assert isinstance(animator.encode_portrait(images[0]).tensors["reference_key.0"], np.ndarray)
        with animator.graphs.engine("guider").warming_up():
            assert not torch.backends.cudnn.benchmark
