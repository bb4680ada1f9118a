from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_training.pool import SEATS, Chunk, Order, Pool, draw_chunk

pytestmark = pytest.mark.usefixtures("opencv")

ORDER = Order(seed=3, identities=4, frames=5, size=32, clip_side=28)
CLIPS = replace(ORDER, strides=(1, 3))
WINDOW, STEPS = 3, 2


def encode(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents that say which frame they come from."""
    return np.repeat(frames[:, ::8, ::8].mean(axis=-1, dtype=np.float32)[:, None], 4, axis=1)


@pytest.fixture
def pool() -> Iterator[Pool]:
    with closing(Pool(ORDER, WINDOW, STEPS, encode)) as pool:
        yield pool


def same(first: Chunk, second: Chunk) -> bool:
    return first.frames.tobytes() == second.frames.tobytes() and first.landmarks.tobytes() == second.landmarks.tobytes()


def test_a_chunk_is_decided_by_its_order_and_number() -> None:
    assert same(draw_chunk(ORDER, 1), draw_chunk(ORDER, 1))
    assert not same(draw_chunk(ORDER, 1), draw_chunk(ORDER, 2))
    assert not same(draw_chunk(ORDER, 1), draw_chunk(replace(ORDER, seed=4), 1))
    assert not same(draw_chunk(ORDER, 1), draw_chunk(ORDER, 1, held_out=True))


def test_a_chunk_has_frames_landmarks_masks_and_clip_pixels() -> None:
    chunk = draw_chunk(ORDER, 0)
    assert chunk.frames.shape == chunk.landmarks.shape == (4, 5, 32, 32, 3)
    assert chunk.expression.shape == chunk.face.shape == (4, 5, 4, 4)
    assert chunk.clip_pixels.shape == (4, SEATS, 3, 28, 28)
    assert (chunk.face.max(axis=(2, 3)) > 128).all()  # every frame has a face
    assert chunk.landmarks.any(axis=(2, 3, 4)).all()


def test_frames_of_a_clip_are_nearer_to_each_other_than_independent_poses() -> None:
    clips, poses = (draw_chunk(order, 0).frames[:, 1:].astype(float) for order in (CLIPS, ORDER))
    assert np.abs(np.diff(clips, axis=1)).mean() < 0.7 * np.abs(np.diff(poses, axis=1)).mean()


def test_the_window_starts_with_two_chunks_grows_and_then_slides(pool: Pool) -> None:
    sizes, first = [], []
    for step in range(8):
        chunks = pool.window(step)
        sizes.append(len(chunks))
        first.append(next(number for number in range(5) if same(chunks[0], draw_chunk(ORDER, number))))
    assert sizes == [2, 2, 3, 3, 3, 3, 3, 3] and first == [0, 0, 0, 0, 1, 1, 2, 2]


def test_a_pool_started_later_has_the_window_of_a_running_one(pool: Pool) -> None:
    for step in range(6):
        running = pool.window(step)
    with closing(Pool(ORDER, WINDOW, STEPS, encode)) as later:
        assert all(same(a, b) for a, b in zip(running, later.window(5), strict=True))


def test_latents_belong_to_their_frames(pool: Pool) -> None:
    chunk = pool.window(0)[1]
    assert chunk.latents.shape == (4, 5, 4, 4, 4)
    np.testing.assert_array_equal(chunk.latents[2, 3], encode(chunk.frames[2, 3:4])[0])


def test_a_batch_has_different_identities_and_no_neutral_targets(pool: Pool) -> None:
    for step in range(20):
        choice = pool.choose(step, 6, 3)
        assert len({*zip(choice.chunk.tolist(), choice.identity.tolist(), strict=True)}) == 6
        assert choice.targets.shape == (6, 3)
        assert all(len({*row}) == 3 and min(row) >= 1 for row in choice.targets.tolist())
        assert choice.portrait.max() < SEATS and choice.chunk.max() < len(pool.window(step))
    assert pool.choose(7, 6, 3).targets.tolist() == pool.choose(7, 6, 3).targets.tolist()
    assert pool.choose(7, 6, 3).targets.tolist() != pool.choose(8, 6, 3).targets.tolist()


def test_a_batch_of_clips_has_consecutive_frames_and_the_neutral_portrait() -> None:
    with closing(Pool(CLIPS, WINDOW, STEPS)) as pool:
        choice = pool.choose(0, 2, 4)
    assert choice.targets.tolist() == [[1, 2, 3, 4]] * 2 and choice.portrait.tolist() == [0, 0]
