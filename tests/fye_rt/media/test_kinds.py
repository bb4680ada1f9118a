"""What a file is, whatever it is called."""

import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from fye_rt import media
from fye_rt.errors import InputError
from fye_rt.landmarks import Motion
from fye_rt.media.kinds import kind_of, pictures_in, readable_pictures

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4321\n"
SIDE = 32
RED, BLUE = Image.new("RGB", (SIDE, SIDE), "red"), Image.new("RGB", (SIDE, SIDE), "blue")


def encoded(form: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    RED.save(buffer, form, **settings)
    return buffer.getvalue()


def iso_media(brand: bytes, *compatible: bytes) -> bytes:
    """The start of an ISO media file, as MP4, HEIC and AVIF are."""
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 4 + len(body)) + body + bytes(400)


def clip(path: Path) -> bytes:
    media.write_video(path, np.zeros((3, SIDE, SIDE, 3), np.uint8), 25.0)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("name", ["a", "a.mp4", "a.npz", "a.npy", "a.jfif", "a.tif", "a.JPG", "a.picture of me"])
def test_a_picture_is_known_under_any_name(form: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(encoded(form))
    assert kind_of(tmp_path / name) == "picture"
    assert media.read_image(tmp_path / name).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("name", ["a", "a.png", "a.npz", "a.npy", "a.mov"])
def test_a_video_is_known_under_any_name(name: str, tmp_path: Path) -> None:
    raw = clip(tmp_path / "clip.mp4")
    (tmp_path / name).write_bytes(raw)
    assert kind_of(tmp_path / name) == "video"
    assert media.probe_video(tmp_path / name).frames == 3


@pytest.mark.parametrize("name", ["a", "a.png", "a.mp4", "a.npy", "a.zip"])
def test_a_motion_is_known_under_any_name(name: str, motion: Motion, tmp_path: Path) -> None:
    motion.save(tmp_path / "motion.npz")
    path = (tmp_path / "motion.npz").rename(tmp_path / name)
    assert kind_of(path) == "motion"
    assert len(Motion.load(path)) == len(motion)


@pytest.mark.parametrize("name", ["a", "a.png", "a.mp4", "a.npz"])
def test_a_template_is_known_under_any_name(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        np.save(file, np.zeros(3))
    assert kind_of(tmp_path / name) == "template"


@pytest.mark.parametrize("name", ["a", "a.png", "a.mp4", "a.npz", "a.json", "a.csv"])
@pytest.mark.parametrize(
    "text",
    [
        '{"nose_tip": [1, 2]}',
        '\n {\n "size": [3, 4]}',
        "name,x,y\n",
        "nose_tip,1,2\n",
        "left eye outer;1,5;-2\n",
        "a\t1\t2",
    ],
)
def test_points_are_known_under_any_name(text: str, name: str, tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):
        (tmp_path / name).write_text(mark + text, encoding="utf-8")
        assert kind_of(tmp_path / name) == "points"


def test_an_animated_gif_is_a_video_with_all_its_frames(tmp_path: Path) -> None:
    RED.save(tmp_path / "a.gif", save_all=True, append_images=[BLUE, RED, BLUE], duration=200)
    assert kind_of(tmp_path / "a.gif") == "video"
    info = media.probe_video(tmp_path / "a.gif")
    assert (info.width, info.height, info.frames, info.fps) == (SIDE, SIDE, 4, 5)
    assert len(list(media.read_video(tmp_path / "a.gif"))) == 4


@pytest.mark.parametrize("form", ["WEBP", "PNG", "AVIF", "GIF"])
def test_an_animated_picture_is_a_video(form: str, tmp_path: Path) -> None:
    RED.save(tmp_path / "a", form, save_all=True, append_images=[BLUE], duration=100)
    assert kind_of(tmp_path / "a") == "video"
    assert media.probe_video(tmp_path / "a").frames == 2
    RED.save(tmp_path / "b", form)
    assert kind_of(tmp_path / "b") == "picture"


def test_pages_of_a_picture_are_no_frames(tmp_path: Path) -> None:
    RED.save(tmp_path / "a", "TIFF", save_all=True, append_images=[BLUE])
    assert kind_of(tmp_path / "a") == "picture"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.npz", "motion"), ("a.npy", "template"), ("a.json", "points"), ("a.csv", "points"),
     ("a.png", "picture"), ("a.JFIF", "picture"), ("a.mp4", "video"),
     ("a", "video")],
)  # fmt: skip
def test_unknown_content_is_judged_by_its_name(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("nothing that is known\n" * 9)
    assert kind_of(tmp_path / name) == kind


UNREADABLE = {
    "HEIC": iso_media(b"heic", b"mif1", b"heic"),
    "HEIC (iPhone burst)": iso_media(b"mif1", b"mif1", b"heic"),
    "JPEG XL": b"\xff\x0a" + bytes(200),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "Photoshop": b"8BPS\0\1" + bytes(200),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='100' height='100'/>" * 3,
    "OpenEXR": b"v/1\x01\x02" + bytes(200),
}


@pytest.mark.parametrize("form", UNREADABLE)
@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a"])
def test_a_picture_of_another_format_is_named_with_what_to_do(form: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(UNREADABLE[form])
    assert kind_of(tmp_path / name) == "picture"  # so that it is named as a motion source, too
    with pytest.raises(InputError) as caught:
        media.read_image(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name} is a {form.partition(' (')[0]} image")
    assert "save it as PNG or JPEG" in message and "\n" not in message


def test_the_message_about_heic_names_the_plugin_that_is_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(UNREADABLE["HEIC"])
    assert "HEIF" not in readable_pictures()
    with pytest.raises(InputError) as caught:
        media.read_image(tmp_path / "a.heic")
    assert str(caught.value) == (
        f"{tmp_path / 'a.heic'} is a HEIC image, which cannot be read here; save it as PNG or JPEG, or run: "
        "pip install 'fye-rt[heif]'"
    )


def test_the_plugin_for_heic_is_not_imported_for_other_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    code = "import sys; from fye_rt import media; media.kind_of(sys.argv[1]); media.read_image(sys.argv[1]); "
    code += "assert 'pillow_heif' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)


def test_only_formats_of_this_installation_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = features.check
    monkeypatch.setattr(features, "check", lambda name: False if name == "avif" else check(name))
    assert "AVIF" not in readable_pictures() and "PNG" in readable_pictures()
    (tmp_path / "text.png").write_text("not a picture\n" * 50)
    with pytest.raises(InputError, match="JPEG, PNG, WEBP, GIF") as caught:
        media.read_image(tmp_path / "text.png")
    assert "AVIF" not in str(caught.value)
    for content in (iso_media(b"avif", b"avif", b"mif1"), iso_media(b"mif1", b"avif")):
        (tmp_path / "a.avif").write_bytes(content)
        with pytest.raises(InputError, match="is an AVIF image, which this Pillow cannot read; save it as PNG"):
            media.read_image(tmp_path / "a.avif")


def test_a_video_or_motion_in_place_of_a_portrait_is_named(motion: Motion, tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4")
    (tmp_path / "clip.mp4").rename(tmp_path / "portrait.png")
    motion.save(tmp_path / "motion.npz")
    for name, said in (("portrait.png", "is a video .*save one of its frames"), ("motion.npz", "holds numbers")):
        with pytest.raises(InputError, match=said):
            media.read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.npz", "a.npy", "a"])
def test_a_git_lfs_pointer_is_named_whatever_it_stands_for(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    for read in (kind_of, media.read_image, media.probe_video):
        with pytest.raises(InputError, match=r"is a Git LFS pointer .* git lfs pull"):
            read(tmp_path / name)


def test_a_file_that_only_mentions_git_lfs_is_no_pointer(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("See the " + POINTER)
    assert kind_of(tmp_path / "a.png") == "picture"


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "10", "11", "100"],
        ["frame-9", "frame-10", "frame-101"],
        ["a01", "a2", "a003", "a10"],
        ["shot1_frame2", "shot1_frame10", "shot2_frame1"],
        ["Frame1", "frame2", "FRAME3"],
        ["0001", "0002", "0010"],
        ["2024-01-02 at 9.05", "2024-01-02 at 9.10", "2024-01-02 at 10.00"],
        ["x", "x1", "y"],
    ],
)
def test_pictures_of_a_folder_are_sorted_by_their_numbers(names: list[str], tmp_path: Path) -> None:
    for name in reversed(names):
        (tmp_path / f"{name}.png").write_bytes(encoded("PNG"))
    assert [path.stem for path in pictures_in(tmp_path)] == names


def test_a_folder_gives_its_readable_pictures_alone(tmp_path: Path) -> None:
    for k, form in enumerate(("PNG", "TIFF", "GIF", "JPEG", "WEBP", "BMP")):
        (tmp_path / f"{k}.{form.lower()}").write_bytes(encoded(form))
    (tmp_path / "6").write_bytes(encoded("PNG"))
    for name in ("._0001.png", ".DS_Store", ".0.png.swp"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07" + bytes(100))
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (tmp_path / "notes.txt").write_text("taken on Sunday")
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.png", encoded("PNG"))
    assert [path.name[0] for path in pictures_in(tmp_path)] == list("0123456")


def test_a_damaged_picture_of_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded("PNG"))
    (tmp_path / "2.png").write_bytes(b"damaged")
    (tmp_path / "3").write_bytes(UNREADABLE["HEIC"])
    assert [path.name for path in pictures_in(tmp_path)] == ["1.png", "2.png", "3"]
