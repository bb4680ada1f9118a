"""A clip's place in its picture, with MediaPipe and a photograph: scikit-image's astronaut (NASA, public domain)."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import Bundle, ClipRequest, Crop, Motion, Options
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.place import Place, pasting, place, small_face
from fye_rt.errors import FaceNotFoundError, InputError, OptionError
from fye_rt.landmarks import Drawn, detect_image
from fye_rt.media import fit_image, write_image
from fye_rt.media.crop import Region
from tests.fye_rt.command_line import TINY, Fye
from tests.fye_rt.faults import edit

SIZE, SHARE = (128, 128), 0.35
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photograph() -> Pixels:
    """A person in half figure, 512x512; the face is 105 pixels high, its middle at (223, 119)."""
    picture: Pixels = pytest.importorskip("skimage.data").astronaut()
    return picture


@pytest.fixture(scope="module")
def close(photograph: Pixels) -> Pixels:
    return np.ascontiguousarray(photograph[:256, 96:352])


@pytest.fixture(scope="module")
def placed(landmarker: Path) -> Any:
    def run(picture: Pixels, crop: Crop | None = None, size: tuple[int, int] = SIZE, **more: Any) -> Place:
        options = Options(windows=more.pop("windows", "context"))
        given = {"landmarker": landmarker} | more
        request = ClipRequest(portrait=picture, motion="", crop=crop or Crop(), options=options, **given)
        return place(request, picture, size, SHARE, ClipCache())

    return run


def box(landmarks: Motion) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = landmarks.points[0, :, :2]
    return points.min(axis=0), points.max(axis=0)


def test_a_portrait_is_left_as_it_is(placed: Any, close: Pixels, landmarker: Path) -> None:
    found = placed(close)
    np.testing.assert_array_equal(found.portrait, fit_image(close, *SIZE))
    assert found.region.covers(close.shape[:2]) and found.notices == ()
    np.testing.assert_array_equal(found.landmarks().points, detect_image(found.portrait, landmarker).points)


def test_a_small_face_is_cropped_to(placed: Any, photograph: Pixels, landmarker: Path) -> None:
    found = placed(photograph)
    region, (low, high) = found.region, box(found.landmarks())
    assert max(high - low) == pytest.approx(1 / 2.3, abs=0.02)
    assert (low + high)[1] / 2 == pytest.approx(0.5 + 0.125, abs=0.02)
    assert (low + high)[0] / 2 == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(found.portrait, region.cut(photograph, SIZE))
    assert "cropped to its face" in found.notices[0] and "512x512" in found.notices[0]
    again = detect_image(found.portrait, landmarker)
    np.testing.assert_allclose(found.landmarks().points[0, :, :2], again.points[0, :, :2], atol=0.012)
    np.testing.assert_allclose(found.landmarks().mesh, again.mesh, atol=0.8)
    np.testing.assert_allclose(found.landmarks().pose[0, :3, 3], again.pose[0, :3, 3], atol=2.0)


@pytest.mark.parametrize(("share", "stream"), [(None, False), (None, True), (0.5, False), (0.5, True)])
def test_a_bundle_says_which_faces_are_small(
    fye: Fye, close: Pixels, landmarker: Path, tmp_path: Path, share: float | None, stream: bool
) -> None:
    bundle, picture, motion = tmp_path / "bundle", tmp_path / "a.png", tmp_path / "a.npz"
    shutil.copytree(TINY, bundle)
    if share is not None:
        edit(bundle, lambda manifest: manifest.update(face_share=share))
    write_image(picture, close)  # its face is 0.41 of it
    detect_image(close, landmarker).save(motion)
    given = ("--landmarker", landmarker, "--bundle", bundle, "--steps", "1", *["--stream"] * stream)
    fye("animate", picture, motion, "-o", tmp_path / "a.mp4", *given)
    assert ("cropped to its face" in fye.err) == (share is not None)


@pytest.mark.parametrize(("share", "taken"), [(0.2, 0.2), (0, 0), (1.5, 1), (-1, 0)])
def test_a_share_is_taken_from_0_to_1(tmp_path: Path, share: float, taken: float) -> None:
    shutil.copytree(TINY, tmp_path / "bundle")
    edit(tmp_path / "bundle", lambda manifest: manifest.update(face_share=share))
    assert Bundle.load(tmp_path / "bundle").face_share == taken


@pytest.mark.parametrize(("crop", "windows"), [(Crop(area="none"), "context"), (Crop(), "reference")])
def test_the_whole_picture_is_taken_where_it_is_asked_for(
    placed: Any, photograph: Pixels, crop: Crop, windows: str
) -> None:
    found = placed(photograph, crop, windows=windows)
    np.testing.assert_array_equal(found.portrait, fit_image(photograph, *SIZE))
    assert found.region.covers(photograph.shape[:2])


def test_a_chosen_face_is_found_where_the_clip_is_too_small_for_it(placed: Any, photograph: Pixels) -> None:
    large = fit_image(photograph[30:230, 120:320], 512, 512)
    picture = np.concatenate([photograph, large], axis=1)
    found = placed(picture, Crop(face="left"))
    assert found.region.left + found.region.width / 2 == pytest.approx(223, abs=8)
    said = re.search(r"which is (\d+) pixels large in a picture of 1024x512", found.notices[0])
    assert said is not None and int(said[1]) == pytest.approx(105, abs=5)
    whole = placed(picture, Crop(face="left", area="none"))
    low, high = box(whole.landmarks())
    assert (low + high)[0] / 2 * 1024 == pytest.approx(223, abs=8)
    close = placed(picture, Crop(face="right", area="face"))
    assert close.region.left + close.region.width / 2 > 512


def test_a_crop_to_the_face_needs_no_small_one(placed: Any, close: Pixels) -> None:
    found = placed(close, Crop(area="face"))
    low, high = box(found.landmarks())
    assert max(high - low) == pytest.approx(1 / 2.3, abs=0.02) and "cropped to its face" in found.notices[0]


def test_a_crop_has_the_clips_shape_and_scale(placed: Any, photograph: Pixels) -> None:
    region = placed(photograph, Crop(scale=3.0), size=(64, 128)).region
    assert region.width == 2 * region.height
    assert region.height == pytest.approx(3 * 105, rel=0.03)


def test_a_face_that_is_turned_becomes_upright(placed: Any, photograph: Pixels) -> None:
    turned = np.ascontiguousarray(np.rot90(photograph))
    found = placed(turned, Crop(rotate=True))
    assert found.region.angle == pytest.approx(-90, abs=6)
    points = found.landmarks().points[0]
    assert points[10, 1] < points[152, 1] - 0.3 and abs(points[10, 0] - points[152, 0]) < 0.06  # forehead above chin
    assert "turned by" in found.notices[0]
    assert placed(turned).region.angle == 0


def test_a_tiny_face_in_a_large_picture_is_found(placed: Any, photograph: Pixels) -> None:
    picture = np.full((1500, 2000, 3), 90, np.uint8)
    picture[1200:1328, 300:428] = photograph[::4, ::4]
    found = placed(picture)
    middle = found.region.left + found.region.width / 2, found.region.top + found.region.height / 2
    assert middle == pytest.approx((300 + 223 / 4, 1200 + 119 / 4), abs=10)


def test_the_face_that_is_named_is_cropped_to(placed: Any, photograph: Pixels, close: Pixels) -> None:
    picture = np.concatenate([photograph[:256, :400], close], axis=1)
    for face, side in (("largest", 1), ("left", 0), ("right", 1), (1, 0), (2, 1)):
        region = placed(picture, Crop(face=face)).region
        assert (region.left + region.width / 2 > 400) == bool(side), face
    with pytest.raises(InputError, match="2 faces are found, and there is no face 3"):
        placed(picture, Crop(face=3))


def test_a_named_part_is_taken_in_the_clips_shape(placed: Any, photograph: Pixels) -> None:
    found = placed(photograph, Crop(area="100,0,256,200"))
    assert (found.region.left, found.region.width, found.region.height) == (100, 256, 256)
    low, high = box(found.landmarks())
    assert (low > 0).all() and (high < 1).all()


@pytest.mark.parametrize(
    ("area", "message"),
    [("400,0,200,100", "reaches outside of the picture, which is 512x512"), ("1,1,0,5", "has no size")],
)
def test_an_impossible_part_is_refused(placed: Any, photograph: Pixels, area: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        placed(photograph, Crop(area=area))


def test_a_part_without_the_face_is_refused(placed: Any, photograph: Pixels) -> None:
    found = placed(photograph, Crop(area="0,300,200,200"))
    with pytest.raises(FaceNotFoundError, match="the picture's face is outside of this part"):
        found.landmarks()


def test_a_picture_without_a_face_is_refused_with_what_was_searched(placed: Any) -> None:
    with pytest.raises(FaceNotFoundError, match=r"no face in it, neither in squares .*, or give its portrait_"):
        placed(np.full((300, 300, 3), 99, np.uint8))


def test_landmarks_of_the_picture_are_moved_into_the_crop(placed: Any, photograph: Pixels, landmarker: Path) -> None:
    wide = np.ascontiguousarray(photograph[:384])  # of another shape than the clip
    given = detect_image(wide, landmarker)
    found, seen = placed(wide, portrait_landmarks=given), placed(wide)
    assert found.region == seen.region
    np.testing.assert_allclose(found.landmarks().points, seen.landmarks().points, atol=1e-9)
    whole = placed(wide, Crop(area="none"), portrait_landmarks=given)
    np.testing.assert_allclose(whole.landmarks().points[0, :, 0], given.points[0, :, 0], atol=1e-6)
    np.testing.assert_allclose(whole.landmarks().points[0, :, 1], 0.125 + 0.75 * given.points[0, :, 1], atol=1e-6)


def test_landmarks_of_a_fitted_portrait_are_taken_as_they_are(placed: Any, close: Pixels, landmarker: Path) -> None:
    given = detect_image(fit_image(close, *SIZE), landmarker)
    assert placed(close, portrait_landmarks=given).landmarks() is given


def test_given_landmarks_of_a_small_face_need_no_model_file(
    placed: Any, photograph: Pixels, landmarker: Path, tmp_path: Path
) -> None:
    given = detect_image(photograph, landmarker)
    found = placed(photograph, portrait_landmarks=given, landmarker=tmp_path / "none.task")
    assert found.landmarks() is given and found.region.covers(photograph.shape[:2])


def test_a_mask_around_the_face_needs_landmarks(placed: Any, photograph: Pixels) -> None:
    found = placed(photograph)
    points = found.landmarks().points[..., :2] * SIZE[0]
    paste, notices = pasting(found, Crop(paste=True, mask="face"), Drawn(points, SIZE))
    left, top, width, height = paste.rectangle
    assert notices == () and left > found.region.left and left + width < found.region.left + found.region.width
    assert top > 0 and height < found.region.height
    with pytest.raises(OptionError, match="landmark images have none"):
        pasting(found, Crop(paste=True, mask="face"), np.zeros((1, *SIZE, 3), np.uint8))
    with pytest.raises(InputError, match="finds no face within the clip"):
        pasting(found, Crop(paste=True, mask="face"), Drawn(points + 5000, SIZE))


@pytest.mark.parametrize(
    ("crop", "windows", "remedy"),
    [
        (Crop(area="none"), "context", "use Crop.area='face', or crop the picture to head and shoulders"),
        (Crop(area="none"), "reference", "crop the picture to head and shoulders"),
        (Crop(area="0,0,512,512"), "context", "crop the picture to head and shoulders"),
        (Crop(area="face", scale=9.0), "context", "use a smaller Crop.scale"),
        (Crop(scale=9.0), "context", "use a smaller Crop.scale"),
    ],
)
def test_the_notice_about_a_small_face_says_what_helps(
    crop: Crop, windows: str, remedy: str, placed: Any, photograph: Pixels
) -> None:
    landmarks = placed(photograph, crop, windows=windows).landmarks()
    request = ClipRequest(portrait=photograph, motion="", crop=crop, options=Options(windows=windows))
    (notice,) = small_face(landmarks, SIZE, request)
    assert notice.endswith(f"too small to show expressions; {remedy}")


def test_a_picture_that_no_video_can_hold_is_scaled_down_with_a_notice(photograph: Pixels) -> None:
    picture = np.repeat(np.repeat(photograph[:100, :300], 20, axis=0), 20, axis=1)
    region = Region(1000, 200, 640, 640)
    found = Place(picture, region, region.cut(picture, SIZE), lambda: pytest.fail("no landmarks are needed"))
    paste, notices = pasting(found, Crop(paste=True, feather=0.0), np.zeros((1, *SIZE, 3), np.uint8))
    assert (
        paste.picture.shape == (1365, 4096, 3) and "scaled down to 4096x1365 from the picture's 6000x2000" in notices[0]
    )
    left, top, width, _ = paste.rectangle
    assert (left, top, width) == pytest.approx((1000 * 4096 / 6000, 200 * 4096 / 6000, 640 * 4096 / 6000), abs=1.5)
