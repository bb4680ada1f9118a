import math

import numpy as np
import pytest

from fye_rt.noise import frame_noise, inverse_normal

RECORDED_FIRST = [-2.2718842029571533, -0.701327919960022, -1.2189801931381226, 0.16217155754566193]
RECORDED_LATE = [0.5754495859146118, -0.7484174966812134, 1.1843377351760864, 0.3554231822490692]


def test_the_noise_of_a_seed_never_changes() -> None:
    first = frame_noise(0, range(1), 8, 8)
    late = frame_noise(2**64 - 1, [1999], 8, 8)
    np.testing.assert_array_equal(first[0, 0, 0, 0, :4], np.float32(RECORDED_FIRST))
    np.testing.assert_array_equal(late[0, 3, 0, 7, 4:], np.float32(RECORDED_LATE))


def test_a_frame_has_the_same_noise_whatever_the_clip() -> None:
    clip = frame_noise(12580, range(40), 6, 10)
    assert clip.shape == (1, 4, 40, 6, 10)
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(frame_noise(12580, range(8), 6, 10), clip[:, :, :8])
    np.testing.assert_array_equal(frame_noise(12580, np.array([31, 7]), 6, 10), clip[:, :, [31, 7]])


def test_frames_and_seeds_are_independent_standard_normals() -> None:
    # 16 clips of 2**14 numbers: a mean or a correlation deviates by 2**-7, times 5 as the bound
    noise = np.stack([frame_noise(seed, range(4), 64, 64, 1).reshape(4, -1) for seed in range(4)]).reshape(16, -1)
    bound = 5 * 2.0**-6
    np.testing.assert_allclose(np.corrcoef(noise), np.eye(16), atol=bound)
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=bound)
    np.testing.assert_allclose(noise.std(axis=1), 1, atol=bound)


def test_quantiles_match_the_normal_distribution() -> None:
    middle = np.linspace(1e-3, 1 - 1e-3, 999)
    tails = 2.0 ** -np.arange(1, 54, dtype=np.float64)
    p = np.concatenate([middle, tails, 1 - tails, [0.075, 0.925, np.exp(-25), np.nextafter(0.075, 0)]])
    probabilities = np.array([math.erfc(-z / math.sqrt(2)) / 2 for z in inverse_normal(p)])
    # an error of 1e-16 of z is one of z**2 times as much of its probability, and z**2 is 68 at most
    np.testing.assert_allclose(probabilities, p, rtol=5e-14)


def test_the_outermost_quantiles_are_finite_and_symmetric() -> None:
    edges = np.array([0.5, 2.0**52 - 0.5]) * 2.0**-52
    low, high = inverse_normal(edges)
    assert low == -high
    assert -8.3 < low < -8.1


def test_a_seed_out_of_range_is_refused() -> None:
    for seed in (-1, 2**64):
        with pytest.raises(OverflowError):
            frame_noise(seed, range(1), 8, 8)


def test_frames_share_the_requested_part_of_their_noise() -> None:
    own, half, all_ = (frame_noise(3, range(8), 64, 64, shared=share) for share in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(own, frame_noise(3, range(8), 64, 64))
    np.testing.assert_array_equal(all_, np.repeat(all_[:, :, :1], 8, axis=2))
    # 2**14 numbers: a correlation deviates by 2**-7
    np.testing.assert_allclose(np.corrcoef(half[0].swapaxes(0, 1).reshape(8, -1)), 0.5 + 0.5 * np.eye(8), atol=0.04)
    np.testing.assert_allclose(half, (own + all_) / np.sqrt(2), atol=2e-6)
    np.testing.assert_array_equal(frame_noise(3, [6, 2], 64, 64, shared=0.5), half[:, :, [6, 2]])
