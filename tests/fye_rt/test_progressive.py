import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.denoise import denoise
from fye_rt.errors import OptionError
from fye_rt.extrapolation import newton
from fye_rt.forecast import Method, even
from fye_rt.forecast import plan as table
from fye_rt.forecasts.adaptive import Adaptive
from fye_rt.noise import frame_noise
from fye_rt.progressive import BUDGET, HOLD, Part, Piece, denoise_pieces, evaluations, plan, stream
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import Window

SCHEDULE = schedule(12, SchedulerConfig())


@st.composite
def clips(draw: st.DrawFn) -> tuple[int, int, NDArray[np.float64] | None]:
    frames = draw(st.integers(1, 2000))
    if draw(st.booleans()):
        return frames, draw(st.integers(8, 32)), None
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return frames, draw(st.integers(8, 32)), np.exp(3 * random.standard_normal(frames - 1))


@given(clip=clips())
@settings(max_examples=60, deadline=None)
def test_every_frame_is_made_once_and_finished_in_order(clip: tuple[int, int, NDArray[np.float64] | None]) -> None:
    frames, size, _ = clip
    pieces = plan(*clip)
    made: set[int] = set()
    for piece in pieces:
        assert len(piece.frames) <= size
        assert (np.diff(piece.frames) > 0).all()
        assert set(piece.frames[piece.pinned].tolist()) <= made
        own = set(piece.frames[~piece.pinned].tolist())
        assert not own & made
        made |= own
        assert set(piece.finished) <= set(piece.frames.tolist())
    assert made == set(range(frames))
    assert [k for piece in pieces for k in piece.finished] == list(range(frames))


@given(clip=clips())
@settings(max_examples=60, deadline=None)
def test_intervals_are_pinned_at_their_two_ends_and_nowhere_else(
    clip: tuple[int, int, NDArray[np.float64] | None],
) -> None:
    first, *others = plan(*clip)
    assert not first.pinned.any()
    assert first.frames[[0, -1]].tolist() == [0, clip[0] - 1]
    for piece in others:
        assert np.flatnonzero(piece.pinned).tolist() == [0, len(piece.frames) - 1]


@given(clip=clips())
@settings(max_examples=60, deadline=None)
def test_key_frames_lie_8_to_23_frames_apart_and_cost_at_most_the_budget(
    clip: tuple[int, int, NDArray[np.float64] | None],
) -> None:
    frames, _, movement = clip
    pieces = plan(frames, 24, movement)
    if frames <= 24:
        assert len(pieces) == 1
        return
    finest = [piece for piece in pieces if piece.finished]
    gaps = [int(piece.frames[-1] - piece.frames[0]) for piece in finest]
    assert min(gaps) >= 8
    assert max(gaps) <= 23
    # two intervals are the least that 25 or 26 frames can be made in: 29 and 30 evaluations
    assert evaluations(pieces) <= max(BUDGET * frames, frames + 4)


def test_key_frames_are_denser_where_landmarks_move() -> None:
    movement = np.where(np.arange(239) < 120, 1.0, 8.0)
    pieces = plan(240, 24, movement)
    ends = [piece.finished.start for piece in pieces if piece.finished]
    still, moving = (np.diff([k for k in ends if k in half]).mean() for half in (range(110), range(130, 240)))
    assert still > 1.5 * moving


def test_a_clip_without_any_movement_is_divided_evenly() -> None:
    gaps = [len(piece.finished) for piece in plan(161, 24, np.zeros(160)) if piece.finished]
    assert set(gaps[:-1]) == {16}


def test_long_clips_have_key_frames_of_key_frames() -> None:
    pieces = plan(2000, 24)
    assert len(pieces[0].frames) <= 24
    gaps = np.diff(pieces[0].frames)
    assert gaps.min() > 23
    assert not pieces[1].finished
    assert len(pieces[1].frames) > 2


@pytest.mark.parametrize(
    ("frames", "size", "movement"),
    [(0, 24, None), (10, 2, None), (10, 33, None), (10, 24, np.ones(10)), (10, 24, -np.ones(9))],
)
def test_values_outside_their_range_are_refused(frames: int, size: int, movement: NDArray[np.float64] | None) -> None:
    with pytest.raises(OptionError):
        plan(frames, size, movement)


def together(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
    """Every frame sees the mean of its window."""
    return None, np.tanh(latents + np.float32(np.cos(timestep)) * latents.mean(axis=2, keepdims=True))


def alone(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
    return None, np.tanh(latents * np.float32(1 + np.sin(timestep)))


def made_by(
    evaluate: Callable[[Array, int, NDArray[np.int64]], tuple[None, Array]],
    pieces: tuple[Piece, ...],
    method: Method,
    seen: list[tuple[NDArray[np.int64], int, Array]] | None = None,
) -> list[tuple[range, Array]]:
    def part(frames: NDArray[np.int64]) -> Part:
        def noted(latents: Array, timestep: int, within: NDArray[np.int64]) -> tuple[None, Array]:
            if seen is not None:
                seen.append((frames[within], timestep, latents.copy()))
            return evaluate(latents, timestep, within)

        return Part(noted, frame_noise(7, frames.tolist(), 4, 4), None)

    return list(denoise_pieces(pieces, part, SCHEDULE, method, 1.0))


@pytest.mark.parametrize("evaluated", [range(12), even(12, 5)])
def test_where_frames_do_not_see_each_other_pieces_change_nothing(evaluated: list[int]) -> None:
    method = table(SCHEDULE, evaluated, newton(1), "epsilon")
    whole = [Window(np.arange(60), np.ones(60))]
    expected = denoise(alone, SCHEDULE, method, whole, frame_noise(7, range(60), 4, 4), 1.0)
    finished = made_by(alone, plan(60, 12), method)
    assert [k for frames, _ in finished for k in frames] == list(range(60))
    np.testing.assert_array_equal(np.concatenate([latents for _, latents in finished], axis=2), expected)


def test_key_frames_are_seen_as_they_were_made_and_let_go_in_the_last_steps() -> None:
    seen: list[tuple[NDArray[np.int64], int, Array]] = []
    pieces = plan(200, 8)  # three levels
    method = table(SCHEDULE, even(12, 6), newton(1), "epsilon")
    finished = made_by(together, pieces, method, seen)
    first: dict[tuple[int, int], Array] = {}
    for number, (frames, timestep, latents) in enumerate(seen):
        piece, step = pieces[number // 6], method.jumps[number % 6].step
        before = method.jumps[number % 6 - 1].step if step else -1  # what was done after this one is seen in this step
        for i, k in enumerate(frames.tolist()):
            there = first.setdefault((k, timestep), latents[:, :, i])
            same = np.array_equal(there, latents[:, :, i])
            assert same == (not piece.pinned[i] or not piece.finished or before < HOLD * len(SCHEDULE))
    assert [k for frames, _ in finished for k in frames] == list(range(200))


def test_a_key_frame_is_the_mean_of_what_its_two_intervals_make_of_it() -> None:
    method = table(SCHEDULE, even(12, 5), newton(1), "epsilon")
    pieces = plan(40, 12)
    made = np.concatenate([latents for _, latents in made_by(together, pieces, method)], axis=2)
    calls: list[tuple[NDArray[np.int64], Array]] = []

    def noted(step: int, timestep: int, latents: Array) -> None:
        if step == len(SCHEDULE) - 1:
            calls.append((pieces[len(calls)].frames, latents.copy()))

    def part(frames: NDArray[np.int64]) -> Part:
        return Part(together, frame_noise(7, frames.tolist(), 4, 4), None)

    list(denoise_pieces(pieces, part, SCHEDULE, method, 1.0, on_step=noted))
    ends: dict[int, list[Array]] = {}
    for frames, latents in calls[1:]:
        for k, i in ((frames[0], 0), (frames[-1], -1)):
            ends.setdefault(int(k), []).append(latents[:, :, i])
    assert [len(versions) for versions in ends.values()] == [1, *[2] * (len(pieces) - 2), 1]
    for k, versions in ends.items():
        np.testing.assert_allclose(made[:, :, k], np.mean(versions, axis=0), rtol=1e-6)
        assert len(versions) == 1 or not np.array_equal(versions[0], versions[1])


def test_a_method_that_decides_as_it_goes_decides_in_the_first_piece() -> None:
    seen: list[tuple[NDArray[np.int64], int, Array]] = []
    pieces = plan(60, 12)
    made_by(together, pieces, Adaptive(SCHEDULE, 0.2, 12), seen)
    by_piece = np.array([timestep for _, timestep, _ in seen]).reshape(len(pieces), -1)
    assert 2 <= by_piece.shape[1] < 12
    assert (by_piece == by_piece[0]).all()


def test_repeated_and_interleaved_clips_are_identical() -> None:
    method = Adaptive(SCHEDULE, 0.2, 12)
    one, other = (made_by(together, plan(40, 12), method) for _ in range(2))
    for (_, a), (_, b) in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_kept_does_not_grow_with_the_clip() -> None:
    peaks = []
    for frames in (300, 2000):
        pieces = plan(frames, 24)
        method = table(SCHEDULE)
        tracemalloc.start()
        for _ in denoise_pieces(
            pieces,
            lambda frames: Part(alone, frame_noise(7, frames.tolist(), 16, 16), None),
            SCHEDULE,
            method,
            1.0,
        ):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_level = 24 * len(SCHEDULE) * 4 * 16 * 16 * 4  # bytes of the latents that 24 key frames leave behind
    assert peaks[1] - peaks[0] < 1.5 * one_level


@given(
    counts=st.lists(st.integers(1, 24), min_size=1, max_size=20),
    overlap=st.integers(0, 8),
)
@settings(max_examples=60, deadline=None)
def test_a_stream_s_pieces_are_pinned_to_the_frames_before(counts: list[int], overlap: int) -> None:
    pieces = list(stream(counts, overlap))
    assert [k for piece in pieces for k in piece.finished] == list(range(sum(counts)))
    for before, piece in pairwise([None, *pieces]):
        assert piece is not None
        pinned = piece.frames[piece.pinned].tolist()
        assert pinned == list(range(max(0, piece.finished.start - overlap), piece.finished.start))
        assert piece.frames[~piece.pinned].tolist() == list(piece.finished)
        if before is not None:
            assert set(pinned) <= before.needed


def test_pinned_frames_of_a_stream_are_seen_as_they_were_when_they_were_made() -> None:
    seen: list[tuple[NDArray[np.int64], int, Array]] = []
    pieces = tuple(stream([8, 5, 1, 2, 6], 3))
    made_by(together, pieces, table(SCHEDULE, even(12, 5), newton(1), "epsilon"), seen)
    first: dict[tuple[int, int], Array] = {}
    for frames, timestep, latents in seen:
        for i, k in enumerate(frames.tolist()):
            np.testing.assert_array_equal(first.setdefault((k, timestep), latents[:, :, i]), latents[:, :, i])


def test_intervals_follow_one_another() -> None:
    finest = [piece for piece in plan(100, 16) if piece.finished]
    for one, next_one in pairwise(finest):
        assert one.frames[-1] == next_one.frames[0]
