"""Training frames: drawn in worker processes, kept in memory, and sampled at random.

Frames depend only on (seed, chunk number), batches on (seed, step): a resumed run sees the frames of an uninterrupted
one.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks import Motion, draw
from fye_rt.media import clip_pixels
from fye_training import face, identity, masks
from fye_training.performance import KINDS, perform, poses, resting
from fye_training.portrait import render

REAL = 1 / 8  # share of the characters that move like a real man
SEATS = 2  # an identity's first frames that may be its portrait: the neutral one and one more


@dataclass(frozen=True, slots=True)
class Order:
    """Contents of a chunk.

    Attributes:
        seed: seed of the run and stage.
        identities: number of characters.
        frames: frames of each character: a neutral one, then independent poses or a clip.
        size: side of the frames, in pixels.
        clip_side: side of CLIP's input, in pixels.
        strides: empty for independent poses; for clips, possible distances between frames, in 25ths of a second.
    """

    seed: int
    identities: int
    frames: int
    size: int
    clip_side: int
    strides: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Drawn frames of I identities, K each. Masks are in latent resolution.

    Attributes:
        frames: uint8 (I, K, H, W, 3).
        landmarks: uint8 (I, K, H, W, 3), landmark images drawn by the runtime.
        expression: uint8 (I, K, H/8, W/8), share of a latent pixel in eyes, brows and mouth, in 255ths.
        face: the same for the whole face.
        clip_pixels: float32 (I, SEATS, 3, S, S), CLIP's input for the frames that may be the portrait.
        latents: float32 (I, K, 4, H/8, W/8), or empty without a VAE.
    """

    frames: NDArray[np.uint8]
    landmarks: NDArray[np.uint8]
    expression: NDArray[np.uint8]
    face: NDArray[np.uint8]
    clip_pixels: NDArray[np.float32]
    latents: NDArray[np.float32]


def draw_chunk(order: Order, number: int, held_out: bool = False) -> Chunk:
    """Draw a chunk of training characters, or of held-out ones; the same arguments give the same bytes."""
    identities = []
    for i in range(order.identities):
        generator = np.random.default_rng((order.seed, number, i))
        seed = int(generator.integers(identity.HELD_OUT_SEED))
        character = identity.identity(identity.held_out(number * order.identities + i) if held_out else seed)
        identities.append(_draw_identity(order, character, generator))
    frames, landmarks, expression, whole, clip = (np.stack(column) for column in zip(*identities, strict=True))
    return Chunk(frames, landmarks, expression, whole, clip, np.empty(0, np.float32))


def _draw_identity(
    order: Order, character: identity.Identity, generator: np.random.Generator
) -> tuple[NDArray[np.generic], ...]:
    size = (order.size, order.size)
    place = face.placement(character.shape, size, int(generator.integers(2**31)))
    motion = _motion(order, character, place, generator)
    frames = render(character, motion, size)
    points = motion.points[..., :2] * (order.size, order.size)
    expression, whole = (
        np.round(masks.to_latent(mask(points, size)) * 255).astype(np.uint8)
        for mask in (masks.expression_mask, masks.face_mask)
    )
    clip = np.stack([clip_pixels(frame, order.clip_side) for frame in frames[:SEATS]])
    return frames, draw(points, size), expression, whole, clip


def _motion(
    order: Order, character: identity.Identity, place: face.Placement, generator: np.random.Generator
) -> Motion:
    """A neutral frame, then random poses or part of a performance; one character in eight moves like a real man."""
    size, count = (order.size, order.size), order.frames - 1
    seed, kind = int(generator.integers(2**31)), str(generator.choice(KINDS))
    stride = int(generator.choice(order.strides)) if order.strides else 0
    if generator.random() < REAL:
        neutral, real = face.motion(character.shape, resting(1), size, place), face.talking_head()
        stride = min(stride, (len(real) - 1) // max(1, count - 1))
        start = int(generator.integers(len(real) - stride * (count - 1)))
        indices = start + stride * np.arange(count) if stride else generator.permutation(len(real))[:count]
        return _joined(neutral, face.transfer(character.shape, real, size, place), indices)
    if stride:
        performance = perform(seed, stride * count, kind, start_neutral=False)[::stride]
    else:
        performance = poses(seed, count)
    return face.motion(character.shape, resting(1) + performance, size, place)


def _joined(first: Motion, later: Motion, indices: NDArray[np.int64]) -> Motion:
    """The single frame of `first`, followed by the chosen frames of `later`."""
    arrays = {
        name: np.concatenate((getattr(first, name), getattr(later, name)[indices]))
        for name in ("points", "mesh", "pose", "blendshapes", "valid")
    }
    return replace(first, **arrays, times=np.arange(1 + len(indices)) / first.fps)


@dataclass(frozen=True, slots=True)
class Choice:
    """Indices of a batch in the pool's window: P portraits with T targets each.

    Attributes:
        chunk: int64 (P,), position in the window.
        identity: int64 (P,).
        portrait: int64 (P,), frame number below SEATS.
        targets: int64 (P, T), frame numbers.
    """

    chunk: NDArray[np.int64]
    identity: NDArray[np.int64]
    portrait: NDArray[np.int64]
    targets: NDArray[np.int64]


class Pool:
    """A sliding window over the endless sequence of chunks.

    Args:
        order: contents of a chunk.
        window: number of chunks in the window.
        steps_per_chunk: steps after which the next chunk replaces the oldest one.
        encode: encodes the frames of a new chunk, uint8 (N, H, W, 3), to latents float32 (N, 4, H/8, W/8).
        workers: number of processes that draw ahead.
    """

    def __init__(
        self,
        order: Order,
        window: int,
        steps_per_chunk: int,
        encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None,
        workers: int = 1,
    ) -> None:
        self._order, self._window, self._steps, self._encode = order, window, steps_per_chunk, encode
        # spawned, because PyTorch's threads don't survive a fork
        context = multiprocessing.get_context("spawn")
        self._processes = ProcessPoolExecutor(workers, mp_context=context)
        self._ahead: deque[tuple[int, Future[Chunk]]] = deque()
        self._workers = workers
        self._chunks: dict[int, Chunk] = {}

    def close(self) -> None:
        """End the drawing processes."""
        self._processes.shutdown(cancel_futures=True)

    def window(self, step: int) -> list[Chunk]:
        """Chunks of a step, drawn by now or waited for. Steps must come in increasing order."""
        numbers = self._numbers(step)
        for number in [number for number in self._chunks if number < numbers.start]:
            del self._chunks[number]
        for number in numbers:
            if number not in self._chunks:
                self._chunks[number] = self._encoded(self._drawn(number))
        return [self._chunks[number] for number in numbers]

    def _numbers(self, step: int) -> range:
        """Chunk numbers of a step: two at first, then one more at a time, so that training starts early."""
        end = step // self._steps + 2
        return range(max(0, end - self._window), end)

    def choose(self, step: int, portraits: int, targets: int) -> Choice:
        """Choose the batch of a step: different identities, with their portraits and targets."""
        generator = np.random.default_rng((self._order.seed, 1 << 32, step))
        count = self._order.identities
        indices = generator.choice(len(self._numbers(step)) * count, portraits, replace=False)
        last = self._order.frames
        if self._order.strides:
            frames = np.tile(np.arange(last - targets, last), (portraits, 1))
            seats = np.zeros(portraits, np.int64)
        else:
            frames = np.stack([generator.permutation(np.arange(1, last))[:targets] for _ in range(portraits)])
            seats = generator.integers(SEATS, size=portraits)
        return Choice(indices // count, indices % count, seats, frames)

    def _drawn(self, number: int) -> Chunk:
        while self._ahead and self._ahead[0][0] < number:
            self._ahead.popleft()
        following = self._ahead[-1][0] + 1 if self._ahead else number
        for ahead in range(following, number + self._workers + 1):
            self._ahead.append((ahead, self._processes.submit(draw_chunk, self._order, ahead)))
        return self._ahead.popleft()[1].result()

    def _encoded(self, chunk: Chunk) -> Chunk:
        if self._encode is None:
            return chunk
        latents = self._encode(chunk.frames.reshape(-1, *chunk.frames.shape[2:]))
        return replace(chunk, latents=latents.reshape(*chunk.frames.shape[:2], *latents.shape[1:]))
