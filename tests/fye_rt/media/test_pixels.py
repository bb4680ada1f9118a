import numpy as np
import pytest
from PIL import Image

from fye_rt.errors import InputError
from fye_rt.media import clip_pixels, fit_image, reference_round_trip


def noise(height: int, width: int) -> np.ndarray:
    """Blurred noise, so that resampling has something to get wrong and little to alias."""
    coarse = np.random.default_rng(height * 1000 + width).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3))
    return np.kron(coarse, np.ones((4, 4, 1)))[:height, :width].astype(np.uint8)


def test_fitting_an_image_to_its_own_size_changes_nothing():
    np.testing.assert_array_equal(fit_image(noise(64, 96), 64, 96), noise(64, 96))


@pytest.mark.parametrize(
    ("size", "target", "content"),
    [
        ((100, 50), (64, 64), (slice(0, 64), slice(16, 48))),  # tall: black left and right
        ((50, 100), (64, 64), (slice(16, 48), slice(0, 64))),  # wide: black above and below
        ((30, 40), (64, 128), (slice(0, 64), slice(22, 107))),  # enlarged: int(40 * 64 / 30) = 85; 85 // 2 - 64 = -22
        ((37, 91), (48, 64), (slice(11, 37), slice(0, 64))),  # int(37 * 64 / 91) = 26; 26 // 2 - 24 = -11
    ],
)
def test_fit_image_centres_the_whole_image_on_black(size, target, content):
    fitted = fit_image(np.full((*size, 3), 200, np.uint8), *target)
    assert fitted.shape == (*target, 3) and fitted.dtype == np.uint8
    expected = np.zeros((*target, 3), np.uint8)
    expected[content] = 200
    np.testing.assert_array_equal(fitted, expected)


def test_fit_image_keeps_the_references_lost_pixel():
    width = next(w for w in range(100, 2000) if int(w * (64 / w)) == 63)  # rounding loses one here
    fitted = fit_image(np.full((width, width, 3), 9, np.uint8), 64, 64)
    assert (fitted == 9).all(2).sum() == 63 * 63


def test_fit_image_resamples_with_pillows_bicubic_filter():
    image = noise(90, 120)
    expected = np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(fit_image(image, 48, 64), expected)


def test_fit_image_survives_an_extreme_aspect_ratio():
    assert fit_image(np.full((8000, 16, 3), 7, np.uint8), 64, 64).any()


@pytest.mark.parametrize("size", [224, 56])
@pytest.mark.parametrize("shape", [(128, 128), (100, 333), (333, 100), (57, 56), (224, 225), (512, 384), (31, 47)])
def test_clip_pixels_agree_with_transformers(size, shape):
    transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    oracle = processor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    expected = oracle(noise(*shape), return_tensors="np")["pixel_values"][0]
    pixels = clip_pixels(noise(*shape), size)
    assert pixels.dtype == np.float32 and pixels.shape == (3, size, size)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)  # float32 rounding of values up to 2.7


def test_the_reference_round_trip_darkens_levels_1_to_63_by_one():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        reference_round_trip(levels), np.where((levels > 0) & (levels < 64), levels - 1, levels)
    )


def test_the_reference_round_trip_agrees_with_pytorch():
    torch = pytest.importorskip("torch", reason="the oracle, torch, is not installed")
    levels = torch.arange(256, dtype=torch.uint8)
    signed = levels.to(torch.float32).div(255) * 2 - 1
    back = (((signed + 1) / 2).clamp(0, 1) * 255).to(torch.uint8)
    np.testing.assert_array_equal(reference_round_trip(levels.numpy()), back.numpy())


@pytest.mark.parametrize("make", [lambda a: fit_image(a, 8, 8), lambda a: clip_pixels(a, 8)])
def test_only_rgb_bytes_are_fitted(make):
    for image in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(InputError, match="uint8"):
            make(image)
