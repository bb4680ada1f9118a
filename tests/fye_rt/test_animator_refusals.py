from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.engine import Settings
from fye_rt.errors import BackendError, InputError, OptionError
from tests.fye_rt.conftest import States

TWO_STEPS = Options(steps=2)
IMAGE = np.zeros((64, 64, 3), np.uint8)
LONG = np.broadcast_to(np.uint8(0), (601, 64, 64, 3))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE[..., 0], r"image is uint8, each of shape \(64, 64\)"),
        (np.zeros((64, 64, 4), np.uint8), r"\(64, 64, 4\); give uint8 \(H, W, 3\)"),
        (IMAGE[None], "each of shape"),
        (IMAGE.astype(np.float32), "image is float32"),
        (np.zeros((64, 65, 3), np.uint8), "image is 64x65; sides are multiples of 8, 64 to 2048"),
        (np.zeros((56, 64, 3), np.uint8), "image is 56x64"),
        (np.zeros((0, 0, 3), np.uint8), "image is 0x0"),
        (np.broadcast_to(np.uint8(0), (2056, 64, 3)), "image is 2056x64"),
    ],
)
def test_an_image_of_another_kind_or_size_is_refused(image: Any, message: str, animator: Animator) -> None:
    with pytest.raises(InputError, match=message):
        animator.encode_portrait(image)


@pytest.mark.parametrize(
    "pixels", [np.zeros((3, 224, 224), np.float32), np.zeros((56, 56, 3), np.float32), np.zeros((3, 56, 56)), IMAGE]
)
def test_clip_pixels_of_another_kind_or_size_are_refused(pixels: Any, animator: Animator) -> None:
    with pytest.raises(InputError, match=r"clip_pixels is .*; give float32 \(3, 56, 56\)"):
        animator.encode_portrait(IMAGE, pixels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGE, r"landmark_images is uint8, each of shape \(64, 3\)"),
        (IMAGE[None].astype(np.float32), "landmark_images is float32"),
        (IMAGE[None, :, :60], "landmark_images is 64x60"),
        (IMAGE[None][:0], "landmark_images has 0 frames; 1 to 600 can be denoised together"),
        (LONG, r"landmark_images has 601 frames; 1 to 600 can be denoised together: .*windows='progressive'"),
    ],
)
def test_landmark_images_of_another_kind_or_size_are_refused(images: Any, message: str, animator: Animator) -> None:
    with pytest.raises(InputError, match=message):
        animator.encode_motion(images)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.zeros((1, 4, 4, 8, 9), np.float32), r"noise is float32 \(1, 4, 4, 8, 9\); give float32 \(1, 4, 5, 8, 9\)"),
        (np.zeros((4, 5, 8, 9), np.float32), "noise is"),
        (np.zeros((1, 4, 5, 8, 9)), "noise is float64"),
        (np.full((1, 4, 5, 8, 9), np.nan, np.float32), "noise contains NaN"),
    ],
)
def test_noise_of_another_kind_or_size_is_refused(noise: Any, message: str, animator: Animator, states: States) -> None:
    with pytest.raises(InputError, match=message):
        animator.denoise(*states, noise, TWO_STEPS)


@pytest.mark.parametrize(
    "latents",
    [
        np.zeros((4, 8, 8), np.float32),
        np.zeros((1, 4, 0, 8, 8), np.float32),
        np.zeros((1, 3, 2, 8, 8), np.float32),
        np.zeros((1, 4, 2, 8, 8)),
    ],
)
def test_latents_of_another_kind_or_size_are_refused(latents: Any, animator: Animator) -> None:
    with pytest.raises(InputError, match=r"latents is .*; give float32 \(1, 4, "):
        animator.decode(latents)


def test_a_portrait_and_a_motion_of_two_sizes_are_refused(animator: Animator, states: States) -> None:
    motion = animator.encode_motion(IMAGE[None])
    with pytest.raises(InputError, match="the portrait is 64x72, the landmark images are 64x64"):
        animator.denoise(states[0], motion, options=TWO_STEPS)


def test_a_window_longer_than_the_bundle_allows_is_refused(bundle: Bundle, states: States) -> None:
    with (
        Animator(replace(bundle, max_frames=16), "onnxruntime") as animator,
        pytest.raises(OptionError, match="window_size=24: this bundle allows 16"),
    ):
        animator.denoise(*states)


@pytest.mark.parametrize("backend", ["tpu", "ONNXRUNTIME", ""])
def test_an_unknown_backend_is_refused_with_the_known_ones(backend: str, bundle: Bundle) -> None:
    with pytest.raises(
        BackendError, match="from auto, tensorrt, tensorrt-rtx, torch, onnxruntime-cuda, onnxruntime, openvino"
    ):
        Animator(bundle, backend)


def test_a_negative_number_of_threads_is_refused(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="threads=-1"):
        Animator(bundle, threads=-1)


def test_a_precision_that_a_backend_lacks_is_refused_at_once(bundle: Bundle, animator: Animator) -> None:
    with pytest.raises(BackendError, match=r"onnxruntime computes in fp32 here, not in bf16; .* backend='openvino'"):
        Animator(bundle, "onnxruntime", compute="bf16")
    with pytest.raises(BackendError, match=r"onnxruntime computes in fp32 here, not in fp16; drop compute='fp16'$"):
        animator.animate("there/is/no.png", "there/is/no.mp4", Options(compute="fp16"))  # before it looks for them
    with pytest.raises(BackendError, match="onnxruntime computes in fp32 here"):
        backends.load("onnxruntime")(bundle, "denoiser", Settings(compute="fp16"))


def test_openvino_refuses_a_precision_that_this_cpu_lacks(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(BackendError, match=r"openvino computes in fp32.* here, not in fp16; drop compute='fp16'$"):
        Animator(bundle, "openvino", compute="fp16")
    assert backends.resolve_compute("openvino", "auto") == backends.computes("openvino")[-1]
