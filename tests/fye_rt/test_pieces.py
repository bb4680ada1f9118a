from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fye_rt.errors import OptionError
from fye_rt.options import Options
from fye_rt.pieces import BUDGET, clip_pieces, evaluations, key_frame_pieces, live_pieces

Movement = NDArray[np.float64] | None
Clip = tuple[int, int, Movement]


@pytest.mark.parametrize("windows", ["context", "reference", "tiles"])
def test_a_blended_clip_is_one_piece_with_all_of_its_windows(windows: str) -> None:
    (piece,) = clip_pieces(40, Options(windows=windows, window_size=16, window_overlap=4))
    assert piece.frames.tolist() == list(piece.finished) == list(range(40))
    assert not piece.pinned.any() and not piece.needed
    assert len(piece.windows) > 1 and max(len(window.frames) for window in piece.windows) == 16
    assert evaluations([piece]) == sum(len(window.frames) for window in piece.windows)


def test_a_progressive_clip_has_one_whole_window_a_piece() -> None:
    pieces = clip_pieces(40, Options(windows="progressive", window_size=12))
    assert len(pieces) > 1
    for piece in pieces:
        (window,) = piece.windows
        assert window.frames.tolist() == list(range(len(piece.frames))) and (window.weights == 1).all()


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    frames = draw(st.integers(1, 2000))
    if draw(st.booleans()):
        return frames, draw(st.integers(8, 32)), None
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return frames, draw(st.integers(8, 32)), np.exp(3 * random.standard_normal(frames - 1))


@given(clip=clips())
@settings(max_examples=60)
def test_every_frame_is_made_once_and_finished_in_order(clip: Clip) -> None:
    frames, size, _ = clip
    pieces = key_frame_pieces(*clip)
    finished: set[int] = set()
    for piece in pieces:
        assert len(piece.frames) <= size
        assert (np.diff(piece.frames) > 0).all()
        assert set(piece.frames[piece.pinned].tolist()) <= finished
        own = set(piece.frames[~piece.pinned].tolist())
        assert not own & finished
        finished |= own
        assert set(piece.finished) <= set(piece.frames.tolist())
    assert finished == set(range(frames))
    assert [k for piece in pieces for k in piece.finished] == list(range(frames))


@given(clip=clips())
@settings(max_examples=60)
def test_intervals_are_pinned_at_their_two_ends_and_nowhere_else(clip: Clip) -> None:
    first, *others = key_frame_pieces(*clip)
    assert not first.pinned.any()
    assert first.frames[[0, -1]].tolist() == [0, clip[0] - 1]
    for piece in others:
        assert np.flatnonzero(piece.pinned).tolist() == [0, len(piece.frames) - 1]


@given(clip=clips())
@settings(max_examples=60)
def test_key_frames_lie_8_to_23_frames_apart_and_cost_at_most_the_budget(clip: Clip) -> None:
    frames, _, movement = clip
    pieces = key_frame_pieces(frames, 24, movement)
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
    pieces = key_frame_pieces(240, 24, movement)
    ends = [piece.finished.start for piece in pieces if piece.finished]
    still, moving = (np.diff([k for k in ends if k in half]).mean() for half in (range(110), range(130, 240)))
    assert still > 1.5 * moving


def test_a_clip_without_any_movement_is_divided_evenly() -> None:
    gaps = [len(piece.finished) for piece in key_frame_pieces(161, 24, np.zeros(160)) if piece.finished]
    assert set(gaps[:-1]) == {16}


def test_long_clips_have_key_frames_of_key_frames() -> None:
    pieces = key_frame_pieces(2000, 24)
    assert len(pieces[0].frames) <= 24
    gaps = np.diff(pieces[0].frames)
    assert gaps.min() > 23
    assert not pieces[1].finished
    assert len(pieces[1].frames) > 2


@pytest.mark.parametrize(
    ("frames", "size", "movement", "name"),
    [
        (0, 24, None, "frames=0"),
        (10, 2, None, "window_size=2"),
        (10, 33, None, "window_size=33"),
        (10, 24, np.ones(10), "movement"),
        (10, 24, -np.ones(9), "movement"),
    ],
)
def test_impossible_pieces_are_refused(frames: int, size: int, movement: Movement, name: str) -> None:
    with pytest.raises(OptionError, match=name):
        key_frame_pieces(frames, size, movement)


def test_an_interval_begins_where_the_one_before_ends() -> None:
    finest = [piece for piece in key_frame_pieces(100, 16) if piece.finished]
    assert len(finest) > 4
    for piece, following in pairwise(finest):
        assert piece.frames[-1] == following.frames[0]


@given(counts=st.lists(st.integers(1, 24), min_size=1, max_size=20), overlap=st.integers(0, 8))
@settings(max_examples=60)
def test_live_pieces_are_pinned_to_the_frames_before_them(counts: list[int], overlap: int) -> None:
    pieces = list(live_pieces(counts, overlap))
    assert [k for piece in pieces for k in piece.finished] == list(range(sum(counts)))
    for before, piece in pairwise([None, *pieces]):
        assert piece is not None
        pinned = piece.frames[piece.pinned].tolist()
        assert pinned == list(range(max(0, piece.finished.start - overlap), piece.finished.start))
        assert piece.frames[~piece.pinned].tolist() == list(piece.finished)
        if before is not None:
            assert set(pinned) <= before.needed
