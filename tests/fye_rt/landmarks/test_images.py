"""Landmark images in a folder: told from other pictures, all of one size."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fye_rt import media
from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, Pictures, draw, overlay
from fye_rt.landmarks.images import has_landmark_colours

Picture = NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("opencv")


def drawn(motion: Motion, side: int, share: float = 1.0, frame: int = 0) -> Picture:
    """A landmark image; the face has `share` of its usual size."""
    points = (motion.points[frame : frame + 1, :, :2] - 0.5) * share + 0.5
    return draw(points * side, (side, side))[0]


def compressed(image: Picture, form: str, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("side", [96, 128, 192, 256, 512, 1024])
@pytest.mark.parametrize("share", [0.7, 1.0, 1.8])
def test_drawn_landmarks_have_landmark_colours(side: int, share: float, motion: Motion) -> None:
    assert has_landmark_colours(drawn(motion, side, share))


def test_drawings_of_the_reference_have_landmark_colours(recorded: dict[str, Picture]) -> None:
    images = [*recorded["aligned_images"], *recorded["aligned_images_320x192"]]
    assert len(images) == 18
    for image in images:
        assert has_landmark_colours(image)
        assert has_landmark_colours(compressed(image, "JPEG", 75))


@pytest.mark.parametrize("side", [128, 256, 512])
@pytest.mark.parametrize(("form", "quality"), [("JPEG", 40), ("JPEG", 75), ("JPEG", 95), ("WEBP", 30), ("WEBP", 80)])
def test_compressed_landmark_images_have_their_colours(side: int, form: str, quality: int, motion: Motion) -> None:
    assert has_landmark_colours(compressed(drawn(motion, side), form, quality))


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.5, 3.0])
@pytest.mark.parametrize("how", [Image.Resampling.NEAREST, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_resized_landmark_images_have_their_colours(factor: float, how: Image.Resampling, motion: Motion) -> None:
    for side in (192, 512):
        small = np.array(Image.fromarray(drawn(motion, side)).resize((round(side * factor),) * 2, how))
        assert has_landmark_colours(small)
        if factor * side >= 128:
            assert has_landmark_colours(compressed(small, "JPEG", 75))


def photographs() -> dict[str, Picture]:
    data = pytest.importorskip("skimage.data")
    return {
        name: np.array(Image.fromarray(getattr(data, name)()).convert("RGB"))
        for name in ("astronaut", "camera", "chelsea", "coffee", "coins", "moon", "text", "clock")
    }


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda image: image,
    "dark": lambda image: (image * 0.2).astype(np.uint8),
    "very dark": lambda image: (image * 0.08).astype(np.uint8),
    "of high contrast": lambda image: (255 * (image / 255.0) ** 6).astype(np.uint8),
    "small on black": lambda image: np.pad(image, ((0, 3 * image.shape[0]), (0, 3 * image.shape[1]), (0, 0))),
    "as a negative": lambda image: 255 - image,
}


@pytest.mark.parametrize("change", CHANGES)
def test_photographs_have_other_colours(change: str) -> None:
    for name, image in photographs().items():
        assert not has_landmark_colours(CHANGES[change](image)), name


def test_sketches_have_other_colours(motion: Motion) -> None:
    cv2 = pytest.importorskip("cv2")
    for name, image in photographs().items():
        edges = cv2.Canny(image, 80, 160)[..., None] > 0
        assert not has_landmark_colours(np.where(edges, np.uint8(255), np.zeros_like(image))), name
        assert not has_landmark_colours(np.where(edges, image, 0).astype(np.uint8)), name
    grey = np.repeat(drawn(motion, 256).max(axis=-1, keepdims=True), 3, axis=2)
    assert not has_landmark_colours(grey)
    assert not has_landmark_colours(np.zeros((64, 64, 3), np.uint8))
    assert not has_landmark_colours(255 - drawn(motion, 256))


def test_landmarks_over_a_photograph_are_no_landmark_image(motion: Motion) -> None:
    image = photographs()["astronaut"]
    assert not has_landmark_colours(overlay(image, motion.points[0, :, :2] * 512))


def files(folder: Path, *images: Picture) -> list[Path]:
    names = [folder / f"{k}.png" for k in range(len(images))]
    for path, image in zip(names, images, strict=True):
        media.write_image(path, image)
    return names


def test_a_folder_of_landmark_images_is_read_as_it_is(motion: Motion, tmp_path: Path) -> None:
    images = [drawn(motion, 96, frame=k) for k in range(10)]
    pictures = Pictures(files(tmp_path, *images))
    assert pictures.shape == (10, 96, 96, 3)
    np.testing.assert_array_equal(pictures[np.array([7, 0])], np.stack((images[7], images[0])))


def test_empty_frames_among_landmark_images_are_read(motion: Motion, tmp_path: Path) -> None:
    empty = np.zeros((96, 96, 3), np.uint8)
    assert len(Pictures(files(tmp_path, empty, drawn(motion, 96), empty))) == 3


@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_photograph_among_landmark_images_is_named(place: int, motion: Motion, tmp_path: Path) -> None:
    images = [drawn(motion, 96)] * 9
    images[place] = photographs()["astronaut"][:96, 200:296]
    text = rf"{place}\.png is not a landmark image .* make photographs into a video and give that"
    with pytest.raises(InputError, match=text):
        Pictures(files(tmp_path, *images))


@pytest.mark.parametrize("change", ["as it is", "very dark", "of high contrast"])
def test_a_folder_of_photographs_is_refused(change: str, tmp_path: Path) -> None:
    image = photographs()["moon"][:128, :128]
    with pytest.raises(InputError, match=r"0\.png is not a landmark image"):
        Pictures(files(tmp_path, *[CHANGES[change](image)] * 3))


def test_a_folder_of_two_sizes_is_refused_before_a_picture_is_decoded(motion: Motion, tmp_path: Path) -> None:
    paths = files(tmp_path, drawn(motion, 96), drawn(motion, 96), drawn(motion, 96)[:80])
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    with pytest.raises(InputError, match=r"2\.png is 80x96, 0\.png is 96x96 \(height x width\)"):
        Pictures(paths)
