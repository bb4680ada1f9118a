"""The Fréchet distance has the values of closed forms, and features are those of the clip that was given."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from scipy.linalg import sqrtm

from fye_bench.metrics.fvd import VideoFeatures, frechet
from fye_rt.errors import InputError
from tests.fye_bench.metrics import networks

Array = NDArray[np.float64]


def samples(mean: Array, root: Array, count: int = 40) -> Array:
    """Rows whose mean is `mean` and whose covariance is root' root, exactly."""
    rows = np.random.default_rng(count).standard_normal((count, len(mean)))
    rows -= rows.mean(axis=0)
    white = np.linalg.qr(rows)[0] * np.sqrt(count - 1)
    return white @ root + mean


def test_equal_sets_have_the_frechet_distance_zero() -> None:
    for count, length in ((50, 8), (5, 400), (2, 3)):
        one = np.random.default_rng(0).normal(3, 2, (count, length))
        assert frechet(one, one) == pytest.approx(0, abs=1e-9 * length)


def test_a_shift_adds_its_square_to_the_frechet_distance() -> None:
    one = np.random.default_rng(0).standard_normal((9, 20))
    assert frechet(one, one + 0.5) == pytest.approx(20 * 0.25)


def test_the_frechet_distance_of_any_gaussians_equals_the_matrix_root_formula() -> None:
    random = np.random.default_rng(1)
    roots = random.standard_normal((2, 6, 6))
    one, other = samples(np.zeros(6), roots[0], 100), samples(np.ones(6), roots[1], 30)
    covariances = [np.cov(rows, rowvar=False) for rows in (one, other)]
    shared = float(np.trace(sqrtm(covariances[0] @ covariances[1])).real)
    expected = 6 + float(sum(np.trace(covariance) for covariance in covariances)) - 2 * shared
    assert [frechet(one, other), frechet(other, one)] == pytest.approx([expected, expected])


def test_the_frechet_distance_is_exact_with_fewer_clips_than_features() -> None:
    # covariances 2 uu' and 2 vv' of rank one: the root of their product has the trace 2 |u.v|
    u, v = np.random.default_rng(2).standard_normal((2, 500))
    expected = 2 * (u @ u + v @ v - 2 * abs(u @ v))
    assert frechet(np.stack((u, -u)), np.stack((v, -v))) == pytest.approx(expected)


def test_the_frechet_distance_of_equal_distributions_falls_with_more_clips() -> None:
    random = np.random.default_rng(3)
    found = [frechet(*random.standard_normal((2, count, 16))) for count in (4, 20, 100, 1000)]
    assert found == sorted(found, reverse=True) and found[0] > 10 * found[3]


def test_features_without_a_frechet_distance_are_refused() -> None:
    rows = np.zeros((4, 3))
    with pytest.raises(InputError, match="needs two clips"):
        frechet(rows[:1], rows)
    with pytest.raises(InputError, match="use one network"):
        frechet(rows, np.zeros((4, 2)))
    with pytest.raises(InputError, match="NaN"):
        frechet(rows, np.where(np.eye(4, 3), np.nan, rows))


def clip(frames: int) -> NDArray[np.uint8]:
    colours = np.random.default_rng(0).integers(0, 256, (frames, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (frames, 40, 72, 3))


def test_features_are_of_all_frames_or_of_the_first_ones(tmp_path: Path) -> None:
    made = clip(6)
    colours = made[:, 0, 0] / 127.5 - 1
    for length in ("frames", None):
        open_ended = VideoFeatures(networks.mean_colour(tmp_path / "open.onnx", (1, 3, length, 224, 224)))
        assert open_ended.frames is None and open_ended.takes(1)
        assert np.allclose(open_ended(made), colours.mean(axis=0), atol=1e-3)
    four = VideoFeatures(networks.mean_colour(tmp_path / "four.onnx", ("N", 3, 4, "height", 224)))
    assert four.frames == 4 and four.takes(4) and not four.takes(3)
    assert np.allclose(four(made), colours[:4].mean(axis=0), atol=1e-3)
    with pytest.raises(InputError, match="3 frames is too short"):
        four(made[:3])


def test_frames_are_resized_bilinearly(tmp_path: Path) -> None:
    features = VideoFeatures(networks.pixels(tmp_path / "pixels.onnx", (1, 3, 1, 224, 224)))
    ramp = np.broadcast_to(np.arange(0, 112, 2, dtype=np.uint8)[None, None, :, None], (1, 8, 56, 3))
    row = features(ramp).reshape(3, 224, 224)[1, 100]
    middles = (np.arange(224) + 0.5) / 4 - 0.5  # of the new pixels, among the old ones
    assert np.allclose((row + 1) * 127.5, 2 * np.clip(middles, 0, 55), atol=1e-3)


def test_a_file_that_is_no_video_network_is_refused(tmp_path: Path) -> None:
    for shape in ((1, 3, 224, 224), (1, 224, 224, 16, 3), (1, 3, 16, 112, 112), (4, 3, 16, 224, 224)):
        with pytest.raises(InputError, match=r"expected one input float32 \(1, 3, any, 224, 224\)"):
            VideoFeatures(networks.mean_colour(tmp_path / "other.onnx", shape))
    (tmp_path / "features.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="not a network"):
        VideoFeatures(tmp_path / "features.onnx")
    with pytest.raises(InputError, match="No such file"):
        VideoFeatures(tmp_path / "none.onnx")


def test_weights_in_another_file_are_refused_because_no_hash_covers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = numpy_helper.from_array(np.ones((1, 3, 1, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    path = networks.save(tmp_path / "features.onnx", nodes, (1, 3, 1, 224, 224), weights)
    VideoFeatures(path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)  # where they would be found
    with pytest.raises(InputError, match="must be inside"):
        VideoFeatures(path)


def test_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["x", "x"], ["nothing"]), helper.make_node("Div", ["x", "nothing"], ["y"])]
    features = VideoFeatures(networks.save(tmp_path / "infinite.onnx", nodes, (1, 3, 1, 224, 224)))
    with pytest.raises(InputError, match="NaN or infinity"):
        features(clip(1))
