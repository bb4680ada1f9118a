"""A clip is measured with whatever is known of it, and better clips have better numbers."""

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fye_bench.metrics.measures import NAMES, Seen, ToolFiles, Tools, measure
from fye_bench.metrics.models import Identity, Lpips
from fye_rt import media
from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, detect_frames, detect_image
from fye_rt.landmarks.motion import neutral_frame
from fye_training import face
from fye_training.identity import identity
from fye_training.performance import perform
from fye_training.portrait import render
from tests.fye_bench.metrics import networks

SIZE = (96, 128)
FRAMES = 4
NO_FACE = {"portrait_error", "landmark_error", "blendshape_distance", "faces_found"}
NETWORKS = {"lpips", "identity_cosine"}
FACE = {"face_l1", "face_psnr", "face_ssim", "identity_error"}
TRUTH = {"l1", "psnr", "ssim", "flicker", "temporal_error", "true_warp_error"}


@pytest.fixture(scope="module")
def seen() -> Seen:
    """A drawn character whose truth is known, moved by its own motion."""
    character = identity(3, "people")
    motion = face.motion(character.shape, perform(11, 8 * FRAMES, "talking")[::8], SIZE)
    frames = render(character, motion, SIZE)
    return Seen(frames[0], motion[:1], motion, frames, motion)


@pytest.fixture(autouse=True)
def nothing_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FYE_LANDMARKER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def known(numbers: dict[str, float]) -> set[str]:
    assert tuple(numbers) == NAMES
    return {name for name, value in numbers.items() if math.isfinite(value)}


def test_the_truth_itself_has_perfect_measures(seen: Seen) -> None:
    numbers = measure(seen, seen.truth, Tools())
    assert known(numbers) == set(NAMES) - NO_FACE - NETWORKS
    for name in ("l1", "face_l1", "identity_error", "temporal_error"):
        assert numbers[name] == 0, name
    assert numbers["psnr"] == numbers["face_psnr"] == 100
    assert [numbers["ssim"], numbers["face_ssim"]] == pytest.approx([1, 1]) and numbers["flicker"] == 1


def test_measures_of_unknown_truth_are_left_out(seen: Seen) -> None:
    assert known(measure(replace(seen, truth=None, truth_motion=None), seen.truth, Tools())) == {"warp_error"}
    assert known(measure(replace(seen, truth_motion=None), seen.truth, Tools())) == TRUTH | {"warp_error"}
    one = Seen(seen.portrait, seen.portrait_landmarks, seen.driving[:1], seen.truth[:1], seen.truth_motion[:1])
    still = {"flicker", "temporal_error", "true_warp_error"}
    assert known(measure(one, seen.truth[:1], Tools())) == (TRUTH | FACE) - still


def test_face_metrics_take_the_frames_in_which_the_truth_has_a_face(seen: Seen) -> None:
    valid = np.array([True, False, True, True])
    made = seen.truth.copy()
    made[1] = 255 - made[1]
    numbers = measure(replace(seen, truth_motion=replace(seen.truth_motion, valid=valid)), made, Tools())
    assert numbers["face_l1"] == numbers["identity_error"] == 0 < numbers["l1"]
    nowhere = replace(seen, truth_motion=replace(seen.truth_motion, valid=np.zeros(FRAMES, np.bool_)))
    assert known(measure(nowhere, made, Tools())) == TRUTH | {"warp_error"}


def test_worse_clips_have_worse_numbers(seen: Seen) -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal(seen.truth.shape)
    clips = [np.clip(seen.truth + level * noise, 0, 255).astype(np.uint8) for level in (0, 8, 24)]
    clips.append(random.integers(0, 256, seen.truth.shape, np.uint8))
    found = [measure(seen, clip, Tools()) for clip in clips]
    for name in ("l1", "face_l1", "identity_error", "flicker", "temporal_error", "true_warp_error", "warp_error"):
        column = [numbers[name] for numbers in found]
        assert column == sorted(column) and column[0] < column[3], name
    for name in ("psnr", "ssim", "face_psnr", "face_ssim"):
        column = [numbers[name] for numbers in found]
        assert column == sorted(column, reverse=True) and column[0] > column[3], name


def test_a_frozen_clip_is_steady_and_wrong(seen: Seen) -> None:
    frozen = measure(seen, np.repeat(seen.truth[:1], FRAMES, axis=0), Tools())
    true = measure(seen, seen.truth, Tools())
    assert frozen["flicker"] == frozen["warp_error"] == 0 < true["warp_error"]
    for name in ("l1", "face_l1", "temporal_error", "true_warp_error", "identity_error"):
        assert frozen[name] > true[name], name


def test_the_portraits_own_face_has_the_cosine_one(seen: Seen, tmp_path: Path) -> None:
    tools = Tools(identity=Identity(networks.pixels(tmp_path / "pixels.onnx", ("N", 3, 112, 112))))
    names = ("points", "mesh", "pose", "blendshapes")
    first = {name: np.repeat(getattr(seen.driving, name)[:1], FRAMES, axis=0) for name in names}
    still = replace(seen, driving=replace(seen.driving, **first))
    same = np.repeat(seen.portrait[None], FRAMES, axis=0)
    assert measure(still, same, tools)["identity_cosine"] == pytest.approx(1)
    assert measure(still, 255 - same, tools)["identity_cosine"] == pytest.approx(-1)
    # without a landmarker faces are aligned where they were asked for
    followed, missed = measure(seen, seen.truth, tools), measure(still, seen.truth, tools)
    assert followed["identity_cosine"] > missed["identity_cosine"]


def test_frames_that_do_not_belong_together_are_refused(seen: Seen) -> None:
    truth = seen.truth
    for known, made, said in (
        (seen, truth[:2], "the driving landmarks have 4 frames"),
        (replace(seen, truth_motion=seen.driving[:2]), truth, "the truth's landmarks have 2 frames"),
        (replace(seen, portrait=seen.portrait[:64]), truth, "the portrait is uint8"),
        (replace(seen, truth=truth[:2]), truth, "the truth is uint8"),
        (seen, truth / 255.0, "generated frames are float64"),
        (Seen(truth[0, :8, :8], seen.portrait_landmarks, seen.driving), truth[:, :8, :8], "too small"),
    ):
        with pytest.raises(InputError, match=said):
            measure(known, made, Tools())


def test_the_files_of_a_run_are_recorded_by_their_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "features.onnx"
    path.write_bytes(b"features")
    found = ToolFiles(fvd=path).digests()
    nothing = dict.fromkeys(("landmarker", "identity_model", "lpips"), None)
    assert found == nothing | {"fvd": hashlib.sha256(b"features").hexdigest()}
    monkeypatch.setenv("FYE_LANDMARKER", str(path))
    assert ToolFiles().digests()["landmarker"] == found["fvd"]
    cached = tmp_path / "cache" / "fye-rt" / "face_landmarker.task"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cached")
    monkeypatch.delenv("FYE_LANDMARKER")
    assert ToolFiles().digests()["landmarker"] == hashlib.sha256(b"cached").hexdigest()


@pytest.mark.parametrize(
    ("name", "said"),
    [("landmarker", "none .* leave"), ("identity_model", "leave"), ("lpips", "leave"), ("fvd", "leave")],
)
def test_a_named_tool_file_that_does_not_exist_is_refused(name: str, said: str, tmp_path: Path) -> None:
    files = ToolFiles(**{name: tmp_path / "none"})
    for use in (ToolFiles.digests, Tools.open):
        with pytest.raises(InputError, match=f"{said} {name} out"):
            use(files)


@pytest.mark.parametrize("name", ["landmarker", "identity_model", "fvd"])
def test_a_damaged_tool_file_is_refused_when_tools_are_opened(name: str, tmp_path: Path, opencv: None) -> None:
    pytest.importorskip("mediapipe")
    path = tmp_path / "damaged"
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="damaged"):
        Tools.open(ToolFiles(**{name: path}))


def test_tools_without_files_are_empty() -> None:
    tools = Tools.open(ToolFiles())
    assert tools.landmarker is tools.identity is tools.lpips is tools.features is None


def test_lpips_is_the_mean_over_frames(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        """In the place of the real one: `scale` times the mean difference."""

        def __init__(self, **_: object) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return self.scale * (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)

    package = ModuleType("lpips")
    monkeypatch.setattr(package, "LPIPS", Network, raising=False)
    monkeypatch.setitem(sys.modules, "lpips", package)
    path = tmp_path / "lpips.pth"
    torch.save({"scale": torch.tensor(3.0)}, path)
    tools = Tools.open(ToolFiles(lpips=path))
    made = seen.truth.copy()
    made[0] ^= 1
    numbers = measure(seen, made, tools)
    assert numbers["lpips"] == pytest.approx(3 * numbers["l1"] / 127.5, rel=1e-3) and numbers["l1"] == 0.25
    assert math.isnan(measure(replace(seen, truth=None), made, tools)["lpips"])
    torch.save({"other": torch.tensor(3.0)}, path)
    with pytest.raises(InputError, match="not the state dict"):
        Lpips(path)


@pytest.fixture(scope="module")
def talking(talking_head: Path, landmarker: Path) -> Seen:
    """A real face of which everything is known: it drives itself, from rest on."""
    pytest.importorskip("mediapipe")
    images = [media.fit_image(image, 144, 192) for _, image in media.read_video(talking_head)][::4]
    rest = neutral_frame(_detected(images, landmarker))
    images = (images[rest:] + images[:rest])[::2]
    truth, driving = np.stack(images), _detected(images, landmarker)
    assert neutral_frame(driving) == 0
    return Seen(truth[0], driving[:1], driving, truth, driving)


def _detected(images: Sequence[NDArray[np.uint8]], landmarker: Path) -> Motion:
    return detect_frames([(0.2 * number, image) for number, image in enumerate(images)], 5.0, landmarker)


@pytest.fixture(scope="module")
def tools(landmarker: Path) -> Tools:
    return Tools.open(ToolFiles(landmarker))


@pytest.fixture(scope="module")
def true(talking: Seen, tools: Tools) -> dict[str, float]:
    return measure(talking, talking.truth, tools)


def test_a_real_face_that_drives_itself_has_perfect_measures(true: dict[str, float]) -> None:
    assert known(true) == set(NAMES) - NETWORKS
    assert true["faces_found"] == 1 and true["psnr"] == 100 and true["identity_error"] == 0
    assert true["landmark_error"] < 0.1  # per cent: retargeting drops the scale in MediaPipe's pose
    assert true["blendshape_distance"] < 1e-6


def test_the_same_clip_has_the_same_numbers(talking: Seen, tools: Tools, true: dict[str, float]) -> None:
    again = measure(talking, talking.truth, tools)
    assert {name: repr(value) for name, value in again.items()} == {name: repr(value) for name, value in true.items()}


def test_a_moved_face_has_its_displacement_as_landmark_error(talking: Seen, tools: Tools) -> None:
    corners = talking.driving.points[0, [33, 263]] * (192, 144, 192)
    numbers = measure(talking, np.roll(talking.truth, 6, axis=2), tools)
    assert numbers["landmark_error"] == pytest.approx(600 / np.linalg.norm(corners[1] - corners[0]), rel=0.15)
    assert numbers["portrait_error"] < 0.5 * numbers["identity_error"]  # the face is the portrait's, elsewhere


def test_a_frozen_real_face_keeps_the_portrait_and_misses_the_motion(
    talking: Seen, tools: Tools, true: dict[str, float]
) -> None:
    frozen = measure(talking, np.repeat(talking.portrait[None], 5, axis=0), tools)
    assert frozen["portrait_error"] == frozen["warp_error"] == 0 and frozen["faces_found"] == 1
    assert frozen["landmark_error"] > 20 * true["landmark_error"]
    wanted = np.abs(talking.driving.blendshapes - talking.driving.blendshapes[0]).mean()
    assert frozen["blendshape_distance"] == pytest.approx(wanted)


def test_frames_without_a_face_add_no_error(talking: Seen, tools: Tools, true: dict[str, float]) -> None:
    made = talking.truth.copy()
    made[1:4] = 128  # 0.6 s: more than a driving video may miss
    numbers = measure(talking, made, tools)
    assert numbers["faces_found"] == pytest.approx(2 / 5)
    assert numbers["landmark_error"] < 0.1 and numbers["blendshape_distance"] < 1e-6
    noise = measure(talking, np.random.default_rng(0).integers(0, 256, made.shape, np.uint8), tools)
    assert noise["faces_found"] == 0 and known(noise) == set(NAMES) - NETWORKS - (NO_FACE - {"faces_found"})


def test_the_identity_is_compared_where_the_face_is_detected(talking: Seen, tools: Tools, tmp_path: Path) -> None:
    found = replace(tools, identity=Identity(networks.pixels(tmp_path / "pixels.onnx", (1, 3, 112, 112))))
    elsewhere = np.roll(talking.truth, 16, axis=2)
    here = measure(talking, elsewhere, found)["identity_cosine"]
    assert here > measure(talking, elsewhere, replace(found, landmarker=None))["identity_cosine"] + 0.05


def test_another_persons_face_is_told_from_the_portraits(landmarker: Path, talking: Seen, tools: Tools) -> None:
    hopper = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
    picture = media.fit_image(media.read_image(hopper), 144, 192)
    other = replace(talking, portrait=picture, portrait_landmarks=detect_image(picture, landmarker))
    own, theirs = (measure(replace(one, truth=None), talking.truth, tools) for one in (talking, other))
    assert theirs["portrait_error"] > 2 * own["portrait_error"]
    assert theirs["landmark_error"] > 10 * own["landmark_error"]
