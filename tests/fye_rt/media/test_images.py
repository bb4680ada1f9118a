import logging
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.media import LIMITS, Limits, contact_sheet, image_size, read_image, write_image
from tests.fye_rt.media import colour_profiles as profiles
from tests.fye_rt.media.media_files import png_header


def picture() -> np.ndarray:
    """40x60, four flat quarters: red, green / blue, white."""
    quarters = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)
    return quarters.repeat(20, 0).repeat(30, 1)


def refusal(path: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path, limits)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_written_png_reads_back_equal(tmp_path):
    write_image(tmp_path / "a.png", picture())
    back = read_image(tmp_path / "a.png")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, picture())


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_a_written_lossy_image_keeps_size_and_colour(tmp_path, suffix):
    write_image(tmp_path / f"a.{suffix}", picture())
    back = read_image(tmp_path / f"a.{suffix}")
    assert back.shape == (40, 60, 3)
    assert np.abs(back[10, 10].astype(int) - (255, 0, 0)).max() <= 6  # the lossy codecs' rounding of a flat area


def test_an_unknown_suffix_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(OptionError, match=r"\.png"):
        write_image(tmp_path / "a.xyz", picture())
    with pytest.raises(OutputError, match=r"cannot write .*a\.png"):
        write_image(tmp_path / "no" / "a.png", picture())


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_only_rgb_bytes_are_written(tmp_path, image):
    with pytest.raises(InputError, match="uint8"):
        write_image(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_missing_file_folder_empty_file_and_device_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "no.png")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "empty" in refusal(tmp_path / "empty.png")
    assert "regular" in refusal(Path("/dev/zero"))


def test_text_and_postscript_renamed_to_png_are_refused_unopened(tmp_path):
    for content in (b"not a picture\n" * 50, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n"):
        (tmp_path / "a.png").write_bytes(content)
        assert "not an image" in refusal(tmp_path / "a.png")


def test_a_chunk_that_announces_a_gigabyte_takes_no_memory(tmp_path):
    write_image(tmp_path / "a.png", picture())
    stored = (tmp_path / "a.png").read_bytes()
    at = stored.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(stored[:at] + struct.pack(">I", 1 << 30) + stored[at + 4 :])
    tracemalloc.start()
    try:
        back = read_image(tmp_path / "a.png")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(back, picture())
    assert peak < 1 << 28


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    write_image(tmp_path / f"a.{suffix}", noise)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    for part in (0.1, 0.5, 0.95):
        (tmp_path / f"a.{suffix}").write_bytes(whole[: int(len(whole) * part)])
        refusal(tmp_path / f"a.{suffix}")


def test_damaged_bytes_never_escape_as_another_error(tmp_path):
    noise = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        file = tmp_path / f"a.{form.lower()}"
        Image.fromarray(picture()).save(file, format=form)
        whole = bytearray(file.read_bytes())
        for _ in range(30):
            damaged = bytearray(whole)
            for position in noise.integers(0, len(whole), 8):
                damaged[position] = noise.integers(256)
            file.write_bytes(damaged)
            try:
                assert read_image(file).shape[2] == 3
            except InputError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("size", [(0, 0), (0, 50), (1, 1), (200, 15)])
def test_a_zero_or_one_pixel_side_is_refused(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_header(*size))
    message = refusal(tmp_path / "a.png")
    assert 0 in size or ("16" in message and f"{size[0]}x{size[1]}" in message)


def test_an_image_without_a_frame_is_refused(tmp_path):
    screen = struct.pack("<HHBBB", 64, 64, 0, 0, 0)
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + screen + b";")
    refusal(tmp_path / "a.gif")


@pytest.mark.parametrize("size", [(20_000, 20_000), (20_000, 5_000), (20_000, 100), (8_000, 8_000)])
def test_a_huge_image_is_refused_by_number_before_a_pixel_is_decoded(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_header(*size))  # decoding would fail in another way: there are no pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(tmp_path / "a.png")
    assert str(LIMITS.max_side) in message or f"{LIMITS.max_pixels:,}" in message


def test_a_caller_may_set_the_limits(tmp_path):
    write_image(tmp_path / "a.png", picture())
    assert "59" in refusal(tmp_path / "a.png", Limits(max_side=59))
    assert "2,399" in refusal(tmp_path / "a.png", Limits(max_pixels=2399))
    assert "100" in refusal(tmp_path / "a.png", Limits(max_file=100))


def test_grey_palette_and_bilevel_become_rgb(tmp_path):
    grey = np.arange(2400, dtype=np.uint32).reshape(40, 60).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_image(tmp_path / "l.png"), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(picture()).quantize(4).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), picture())
    Image.fromarray(grey).convert("1").save(tmp_path / "1.png")
    assert set(np.unique(read_image(tmp_path / "1.png"))) == {0, 255}


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path):
    values = (np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 1], values >> 8)


def test_float_and_wide_integer_pixels_are_refused(tmp_path):
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "f.tiff")
    assert "floating" in refusal(tmp_path / "f.tiff")
    Image.fromarray(np.full((40, 40), 1 << 20, np.int32)).save(tmp_path / "i.tiff")
    assert "16 bits" in refusal(tmp_path / "i.tiff")


def test_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg")[5, 5].astype(int) - (255, 0, 0)).max() <= 6  # JPEG's rounding


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.dstack([picture(), np.full((40, 60), 255, np.uint8)])
    rgba[:, :10, 3] = 0
    rgba[:, 10:20, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    back = read_image(tmp_path / "a.png")
    assert (back[:, :10] == 255).all()
    np.testing.assert_array_equal(back[5, 15], (255, 127, 127))
    np.testing.assert_array_equal(back[:, 20:], picture()[:, 20:])


def test_transparent_palette_and_grey_alpha_are_laid_over_white(tmp_path):
    palette = Image.fromarray(picture()).quantize(4)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((5, 5)))
    back = read_image(tmp_path / "p.png")
    assert (back[:20, :30] == 255).all()
    np.testing.assert_array_equal(back[20:], picture()[20:])
    Image.new("LA", (40, 40), (0, 0)).save(tmp_path / "la.png")
    assert (read_image(tmp_path / "la.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(picture()))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture())


@pytest.mark.parametrize("form", ["gif", "png", "webp", "tiff"])
def test_the_first_picture_of_an_animation_is_read_with_a_warning(tmp_path, form, caplog):
    pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    pictures[0].save(tmp_path / f"a.{form}", save_all=True, append_images=pictures[1:], lossless=True)  # of WebP
    with caplog.at_level(logging.WARNING, "fye_rt"):
        image = read_image(tmp_path / f"a.{form}")
    assert (image == (255, 0, 0)).all()
    assert "first" in caplog.text


def colours() -> np.ndarray:
    """All shades of 32x32x32 levels a channel, 192x192; not the brightest, which other spaces' whites would clip."""
    levels = np.linspace(0, 255, 33).round().astype(np.uint8)
    shades = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    return np.resize(shades, (192, 192, 3))


SPACES = {
    "Display P3": (profiles.TO_P3, None, profiles.rgb(profiles.P3)),
    "Adobe RGB": (profiles.TO_ADOBE, profiles.ADOBE_GAMMA, profiles.rgb(profiles.ADOBE, profiles.ADOBE_GAMMA)),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("form", ["png", "tiff", "webp"])
def test_colours_of_another_space_become_those_of_srgb(space: str, form: str, tmp_path: Path, caplog) -> None:
    matrix, gamma, profile = SPACES[space]
    coded = profiles.in_space(colours(), matrix, gamma)
    Image.fromarray(coded).save(tmp_path / f"a.{form}", icc_profile=profile, lossless=True)  # of WebP
    off = np.abs(read_image(tmp_path / f"a.{form}").astype(int) - colours())
    # a level of the other space is several of a dark or saturated colour in sRGB
    assert off.mean() < 1 and np.quantile(off, 0.99) <= 6
    assert np.abs(coded.astype(int) - colours()).mean() > 8  # what it would be off without the profile
    assert not caplog.records


def test_a_photograph_that_says_adobe_rgb_in_its_exif_alone_becomes_srgb(tmp_path: Path) -> None:
    coded = profiles.in_space(colours(), profiles.TO_ADOBE, profiles.ADOBE_GAMMA)
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 65535, 0xA005: {1: "R03"}})
    Image.fromarray(coded).save(tmp_path / "a.webp", exif=exif, lossless=True)
    assert np.abs(read_image(tmp_path / "a.webp").astype(int) - colours()).mean() < 1
    Image.fromarray(coded).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - colours()).mean() < 2.5  # and JPEG's rounding
    exif.get_ifd(0x8769).update({0xA001: 1, 0xA005: {1: "R98"}})  # sRGB
    Image.fromarray(coded).save(tmp_path / "a.webp", exif=exif, lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), coded)


@pytest.mark.parametrize(
    ("mode", "form"),
    [*((mode, form) for mode in ("RGB", "RGBA", "L", "LA", "P") for form in ("png", "tiff")),
     ("RGB", "webp"), ("RGBA", "webp")],
)  # fmt: skip
def test_an_srgb_profile_changes_no_bit(mode: str, form: str, tmp_path: Path) -> None:
    image = Image.fromarray(colours()).convert(mode)
    image.save(tmp_path / f"plain.{form}", lossless=True)  # of WebP
    image.save(tmp_path / f"tagged.{form}", icc_profile=profiles.srgb(), lossless=True)
    with Image.open(tmp_path / f"tagged.{form}") as tagged:
        assert tagged.info["icc_profile"]
    np.testing.assert_array_equal(read_image(tmp_path / f"tagged.{form}"), read_image(tmp_path / f"plain.{form}"))


def test_a_profile_of_another_curve_alone_is_not_taken_for_srgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32, 3), 20, np.uint8)).save(tmp_path / "a.png", icc_profile=profiles.rgb(gamma=2.2))
    assert (read_image(tmp_path / "a.png") == 12).all()  # 12.92 * 255 * (20 / 255) ** 2.2


def test_transparency_is_kept_where_colours_are_converted(tmp_path: Path) -> None:
    matrix, gamma, profile = SPACES["Display P3"]
    opaque = colours()
    alpha = np.full(opaque.shape[:2], 255, np.uint8)
    alpha[:, :50] = 0
    alpha[:, 50:100] = 128
    coded = np.dstack([profiles.in_space(opaque, matrix, gamma), alpha])
    Image.fromarray(coded).save(tmp_path / "a.png", icc_profile=profile)
    back = read_image(tmp_path / "a.png").astype(int)
    over_white = (opaque * (alpha[..., None] / 255.0) + 255 - alpha[..., None]).astype(int)
    assert (back[:, :50] == 255).all()
    assert np.abs(back - over_white).mean() < 1


def test_grey_pictures_of_a_profile_are_converted(tmp_path: Path) -> None:
    grey = np.resize(np.arange(256, dtype=np.uint8), (32, 256))
    linear = (grey / 255.0) ** 1.8
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    for image, name in (
        (Image.fromarray(grey), "l.png"),
        (Image.fromarray(np.dstack([grey, np.full_like(grey, 255)])), "la.png"),
        (Image.fromarray(grey.astype(np.uint16) * 257), "i16.png"),
        (Image.fromarray(grey), "l.tiff"),
    ):
        image.save(tmp_path / name, icc_profile=profiles.grey(1.8))
        back = read_image(tmp_path / name)
        assert np.abs(back - expected[..., None]).max() < 2, name  # LittleCMS computes grey in fewer bits


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    cyan = np.zeros((32, 32, 4), np.uint8)
    cyan[:, 16:, 0] = 255
    for name in ("a.tiff", "a.jpg"):
        Image.fromarray(cyan, "CMYK").save(tmp_path / name, icc_profile=profiles.inks())
        back = read_image(tmp_path / name).astype(int)
        assert np.abs(back[:, :8] - 255).max() <= 3
        assert np.ptp(back[16, 24]) <= 3  # this press has no coloured ink
        assert 170 < back[16, 24, 0] < 200  # L* of 75


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        (b"no profile at all" * 20, "RGB"),
        (profiles.rgb(profiles.P3)[:200], "RGB"),
        (profiles.inks(), "RGB"),
        (profiles.rgb(profiles.P3), "CMYK"),
        (profiles.grey(1.8), "RGB"),
        (profiles.srgb().replace(b"RGB XYZ ", b"7CLRXYZ "), "RGB"),
    ],
)
def test_an_unusable_profile_is_left_out_with_a_warning(
    profile: bytes, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = Image.fromarray(colours()).convert(mode)
    image.save(tmp_path / "plain.tiff")
    image.save(tmp_path / "tagged.tiff", icc_profile=profile)
    with caplog.at_level(logging.WARNING, "fye_rt"):
        back = read_image(tmp_path / "tagged.tiff")
    (record,) = caplog.records
    assert "tagged.tiff has a colour profile that cannot be used" in record.getMessage()
    assert "\n" not in record.getMessage()
    np.testing.assert_array_equal(back, read_image(tmp_path / "plain.tiff"))


def test_the_size_of_an_image_is_known_without_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(60, 40))
    assert image_size(tmp_path / "a.png") == (40, 60)
    (tmp_path / "a.png").write_bytes(png_header(60_000, 40_000))
    with pytest.raises(InputError, match="limit"):
        image_size(tmp_path / "a.png")


def test_a_contact_sheet_shows_every_image_whole_and_apart():
    tall, wide = np.full((60, 20, 3), 200, np.uint8), np.full((20, 90, 3), 100, np.uint8)
    sheet = contact_sheet([[tall, wide], [wide]])
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert (sheet == 200).all(2).sum() == 60 * 20
    assert (sheet == 100).all(2).sum() == 2 * 20 * 90
    labelled = contact_sheet([[tall, wide], [wide]], ["portrait", "frames"])
    assert labelled.shape[0] > sheet.shape[0]
    assert (labelled == 230).all(2).any()
    half = contact_sheet([[tall, wide], [wide]], ["portrait", ""])
    assert sheet.shape[0] < half.shape[0] < labelled.shape[0]  # no room for a label that says nothing


def test_a_contact_sheet_of_nothing_or_with_a_label_too_many_is_refused():
    with pytest.raises(InputError, match="at least one image"):
        contact_sheet([[], []])
    with pytest.raises(InputError, match="labels"):
        contact_sheet([[picture()]], ["a", "b"])
