import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.forecast import Forecaster, even, jump_table, newton
from fye_rt.forecasts.adaptive import Adaptive
from fye_rt.noise import frame_noise
from fye_rt.pieces import HOLD, Piece, key_frame_pieces, live_pieces
from fye_rt.progressive import PieceInputs, denoise_pieces
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import whole_window
from tests.fye_rt.networks import denoised, function_network

SCHEDULE = schedule(12, SchedulerConfig())


def together(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
    """Every frame sees the mean of its window."""
    return None, np.tanh(latents + np.float32(np.cos(timestep)) * latents.mean(axis=2, keepdims=True))


def alone(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
    return None, np.tanh(latents * np.float32(1 + np.sin(timestep)))


def made_by(
    evaluate: Callable[[Array, int, NDArray[np.int64]], tuple[None, Array]],
    pieces: tuple[Piece, ...],
    forecaster: Forecaster,
    seen: list[tuple[NDArray[np.int64], int, Array]] | None = None,
) -> list[tuple[range, Array]]:
    def inputs(frames: NDArray[np.int64]) -> PieceInputs:
        def noted(latents: Array, timestep: int, within: NDArray[np.int64]) -> tuple[None, Array]:
            if seen is not None:
                seen.append((frames[within], timestep, latents.copy()))
            return evaluate(latents, timestep, within)

        return PieceInputs(function_network(noted), frame_noise(7, frames.tolist(), 4, 4), None)

    return list(denoise_pieces(pieces, inputs, SCHEDULE, forecaster, 1.0))


@pytest.mark.parametrize("evaluated", [range(12), even(12, 5)])
def test_pieces_of_independent_frames_change_nothing(evaluated: list[int]) -> None:
    forecaster = jump_table(SCHEDULE, evaluated, newton(1), "epsilon")
    expected = denoised(alone, SCHEDULE, forecaster, [whole_window(60)], frame_noise(7, range(60), 4, 4))
    finished = made_by(alone, key_frame_pieces(60, 12), forecaster)
    assert [k for frames, _ in finished for k in frames] == list(range(60))
    np.testing.assert_array_equal(np.concatenate([latents for _, latents in finished], axis=2), expected)


def test_key_frames_are_pinned_until_the_last_steps() -> None:
    seen: list[tuple[NDArray[np.int64], int, Array]] = []
    pieces = key_frame_pieces(200, 8)  # three levels
    forecaster = jump_table(SCHEDULE, even(12, 6), newton(1), "epsilon")
    finished = made_by(together, pieces, forecaster, seen)
    first: dict[tuple[int, int], Array] = {}
    held, released = 0, 0
    for number, (frames, timestep, latents) in enumerate(seen):
        piece, step = pieces[number // 6], forecaster.jumps[number % 6].step
        before = forecaster.jumps[number % 6 - 1].step if step else -1  # its end is seen in this step
        for i, k in enumerate(frames.tolist()):
            if (k, timestep) not in first:
                assert not piece.pinned[i]
                first[k, timestep] = latents[:, :, i]
                continue
            same = np.array_equal(first[k, timestep], latents[:, :, i])
            assert piece.pinned[i] and same == (not piece.finished or before < HOLD * len(SCHEDULE))
            held, released = held + same, released + (not same)
    assert held > 50 and released > 20
    assert [k for frames, _ in finished for k in frames] == list(range(200))


def test_a_key_frame_is_the_mean_of_its_two_intervals() -> None:
    forecaster = jump_table(SCHEDULE, even(12, 5), newton(1), "epsilon")
    pieces = key_frame_pieces(40, 12)
    made = np.concatenate([latents for _, latents in made_by(together, pieces, forecaster)], axis=2)
    calls: list[tuple[NDArray[np.int64], Array]] = []

    def noted(step: int, timestep: int, latents: Array) -> None:
        if step == len(SCHEDULE) - 1:
            calls.append((pieces[len(calls)].frames, latents.copy()))

    def inputs(frames: NDArray[np.int64]) -> PieceInputs:
        return PieceInputs(function_network(together), frame_noise(7, frames.tolist(), 4, 4), None)

    list(denoise_pieces(pieces, inputs, SCHEDULE, forecaster, 1.0, on_step=noted))
    ends: dict[int, list[Array]] = {}
    for frames, latents in calls[1:]:
        for k, i in ((frames[0], 0), (frames[-1], -1)):
            ends.setdefault(int(k), []).append(latents[:, :, i])
    assert [len(versions) for versions in ends.values()] == [1, *[2] * (len(pieces) - 2), 1]
    for k, versions in ends.items():
        np.testing.assert_allclose(made[:, :, k], np.mean(versions, axis=0), rtol=1e-6)
        assert len(versions) == 1 or not np.array_equal(versions[0], versions[1])


def test_an_adaptive_forecaster_decides_in_the_first_piece() -> None:
    seen: list[tuple[NDArray[np.int64], int, Array]] = []
    pieces = key_frame_pieces(60, 12)
    made_by(together, pieces, Adaptive(SCHEDULE, 0.2, 12), seen)
    by_piece = np.array([timestep for _, timestep, _ in seen]).reshape(len(pieces), -1)
    assert 2 <= by_piece.shape[1] < 12
    assert (by_piece == by_piece[0]).all()


def test_memory_of_progressive_denoising_does_not_grow_with_the_clip() -> None:
    def inputs(frames: NDArray[np.int64]) -> PieceInputs:
        return PieceInputs(function_network(alone), frame_noise(7, frames.tolist(), 16, 16), None)

    peaks = []
    for frames in (300, 2000):
        tracemalloc.start()
        for _ in denoise_pieces(key_frame_pieces(frames, 24), inputs, SCHEDULE, jump_table(SCHEDULE), 1.0):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_level = 24 * len(SCHEDULE) * 4 * 16 * 16 * 4  # bytes of the latents that 24 key frames leave behind
    assert peaks[1] - peaks[0] < 1.5 * one_level


def test_live_pieces_keep_their_pinned_frames() -> None:
    seen: list[tuple[NDArray[np.int64], int, Array]] = []
    pieces = tuple(live_pieces([8, 5, 1, 2, 6], 3))
    made_by(together, pieces, jump_table(SCHEDULE, even(12, 5), newton(1), "epsilon"), seen)
    first: dict[tuple[int, int], Array] = {}
    repeated: set[int] = set()
    for frames, timestep, latents in seen:
        for i, k in enumerate(frames.tolist()):
            if (k, timestep) in first:
                np.testing.assert_array_equal(first[k, timestep], latents[:, :, i])
                repeated.add(k)
            first[k, timestep] = latents[:, :, i]
    assert repeated == {k for piece in pieces for k in piece.frames[piece.pinned].tolist()} and len(repeated) > 5
