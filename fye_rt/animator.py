"""The four stages: encode a portrait, encode a motion, denoise, decode."""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fye_rt import backends, machine, progressive, windows
from fye_rt.arrays import Array, to_uint8
from fye_rt.bundle import Bundle
from fye_rt.clips.read_ahead import Feed, let_go
from fye_rt.clips.resume import Kept, digest
from fye_rt.denoise import OnStep, Progress, denoise, predict
from fye_rt.errors import BusyError, InputError, NumericalError, OptionError, OutOfMemoryError, memory_for
from fye_rt.forecasts import fitted
from fye_rt.forecasts.choose import method
from fye_rt.landmarks import LandmarkImages, face_region, movement
from fye_rt.network import Features, Network, network
from fye_rt.noise import frame_noise
from fye_rt.options import Options
from fye_rt.schedule import Schedule, schedule
from fye_rt.timings import Timings

if TYPE_CHECKING:
    from fye_rt.clips.clip import Clip, MotionSource, Rendering, Tell

MAX_FRAMES = 600  # that are denoised together
MIN_SIDE, MAX_SIDE = 64, 2048
GUIDER_CHUNK, DECODER_CHUNK = 8, 8  # frames per call, at most
_KEPT_FEATURES = 2**28  # bytes; a frame of 512x512 has 5 MB. Of longer clips they are computed when they are needed


@dataclass(frozen=True, slots=True)
class PortraitState:
    """What the denoiser knows of a portrait.

    Attributes:
        tensors: K and V of 16 layers for the reference and for CLIP, by graph input name.
        size: (height, width) of the portrait in pixels.
    """

    tensors: Mapping[str, Array]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MotionState:
    """What the denoiser knows of a motion.

    Attributes:
        features: float32 (F, C, H/8, W/8), or what gives the frames of an index array int64 (f,).
        size: (height, width) of the landmark images in pixels.
        face: bool (F, H/8, W/8), where the face is; needed for `Forecast.face_mask`.
        movement: float64 (F - 1,), how much the landmarks move from frame to frame; progressive windows set their key
            frames by it, or evenly without it.
    """

    features: Array | Features
    size: tuple[int, int]
    face: NDArray[np.bool_] | None = None
    movement: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.features)


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """What the loop needs of one clip, and the shape of its latents."""

    shape: tuple[int, int, int, int, int]
    schedule: Schedule
    evaluate: Network


class Animator:
    """Runs a bundle. Serves one thread at a time; use it as a context manager, or call `close`.

    Args:
        bundle: a verified bundle.
        backend: "auto", the best that works here, or a name of `fye_rt.backends.BACKENDS`.
        compute: precision of all stages; "auto" takes the fastest that the backend is proven with. The denoiser
            follows the call's `Options.compute` where that is not "auto".
        threads: of the CPU; 0 means one per physical core that this process can keep busy (`fye_rt.machine.cores`).
        low_memory: release each graph that runs once per portrait or clip right after it, and load it again when
            it is next needed.

    Raises:
        BackendError: the backend is unknown or not installed, or does not compute in `compute` here.
        OptionError: `threads` is below 0.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "auto",
        *,
        compute: str = "auto",
        threads: int = 0,
        low_memory: bool = False,
    ) -> None:
        if threads < 0:
            raise OptionError(f"threads={threads} is not valid; allowed: 0 (one per physical core) or more")
        self.bundle = bundle
        self.backend = backends.choose(backend, bundle)
        self._open = backends.load(self.backend)
        backends.resolve_compute(self.backend, compute)  # not after minutes of finding landmarks
        self._settings = backends.Settings(compute=compute, threads=threads)
        self._low_memory = low_memory
        self._engines: dict[tuple[str, str], backends.Engine] = {}
        self._held: tuple[PortraitState, backends.Engine, dict[str, Any]] | None = None
        self._lock = threading.RLock()  # `animate` holds it while it calls the stages
        self._closed = False

    def encode_portrait(self, image: NDArray[np.uint8], clip_pixels: Array | None = None) -> PortraitState:
        """Encode a portrait once for any number of motions.

        Args:
            image: uint8 (H, W, 3) RGB, taken as it is; H and W multiples of 8, 64 to 2048.
            clip_pixels: float32 (3, S, S), already normalised, in place of CLIP's own preprocessing of `image`.

        Raises:
            InputError: shape or dtype.
            NumericalError: a network returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        with self._serving("encode_portrait", image.shape[:2]):
            _check_images(image[None], "image")
            size, side = image.shape[:2], self.bundle.graphs["image_encoder"].inputs[0].shape[-1]
            if clip_pixels is None:
                from fye_rt import media

                clip_pixels = media.clip_pixels(image, int(side))
            if clip_pixels.shape != (3, side, side) or clip_pixels.dtype != np.float32:
                raise InputError(
                    f"clip_pixels is {clip_pixels.dtype} {clip_pixels.shape}; give float32 (3, {side}, {side})"
                )
            tokens = self._run_once("image_encoder", size, clip_pixels=np.ascontiguousarray(clip_pixels[None]))
            # the public code's order of operations, in float32
            pixels = image.transpose(2, 0, 1)[None] / np.float32(255) * np.float32(2) - np.float32(1)
            latents = self._run_once("vae_encoder", size, pixels=np.ascontiguousarray(pixels))
            return PortraitState(MappingProxyType(self._run_once("reference", size, **latents, **tokens)), size)

    def encode_motion(self, landmark_images: NDArray[np.uint8]) -> MotionState:
        """Encode landmark images once per clip.

        Args:
            landmark_images: uint8 (F, H, W, 3), 1 to 600 frames.

        Raises:
            InputError: shape, dtype or length.
            NumericalError: the network returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        with self._serving("encode_motion", landmark_images.shape[1:3]):
            _check_images(landmark_images, "landmark_images")
            _check_length(len(landmark_images), "landmark_images")
            features = self._features(landmark_images)
            self._release("guider")
            size = landmark_images.shape[1:3]
            return MotionState(features, size, face_region(landmark_images), movement(landmark_images))

    def _features(self, images: NDArray[np.uint8]) -> Array:
        parts = []
        for start in range(0, len(images), GUIDER_CHUNK):
            chunk = images[start : start + GUIDER_CHUNK].transpose(0, 3, 1, 2)
            pixels = np.ascontiguousarray(chunk, dtype=np.float32) / np.float32(255)
            parts.append(self._run("guider", images.shape[1:3], landmark_images=pixels)["landmark_features"])
        return np.concatenate(parts)

    def _motion(self, images: LandmarkImages) -> MotionState:
        """As `encode_motion`; the features of long clips are not kept."""
        _check_images(images[:1], "landmark_images")
        frames, height, width, _ = images.shape
        channels = int(self.bundle.graphs["guider"].outputs[0].shape[1])
        shape = (frames, channels, height // 8, width // 8)
        if 4 * math.prod(shape) <= _KEPT_FEATURES:
            return self.encode_motion(images[:])
        chunks = (images[start : start + GUIDER_CHUNK] for start in range(0, frames, GUIDER_CHUNK))
        face = np.concatenate([face_region(chunk) for chunk in chunks])
        return MotionState(Features(shape, lambda chosen: self._features(images[chosen])), (height, width), face)

    def denoise(
        self,
        portrait: PortraitState,
        motion: MotionState,
        noise: Array | None = None,
        options: Options | None = None,
        on_step: OnStep | None = None,
        progress: Progress | None = None,
    ) -> Array:
        """Make the latents of a clip.

        Args:
            portrait: from `encode_portrait`.
            motion: from `encode_motion`, of the same size.
            noise: float32 (1, 4, F, H/8, W/8); by default that of `options.seed`.
            options: `Options()` by default.
            on_step: called with (index, timestep, latents) after every step; with progressive windows for one piece of
                the clip after another, with that piece's latents.
            progress: called with (finished, all) network evaluations.

        Returns:
            float32 (1, 4, F, H/8, W/8).

        Raises:
            InputError: portrait, motion and noise do not fit together.
            OptionError: a window longer than the bundle allows.
            NumericalError: the network returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        options = options or Options()
        with self._serving("denoiser", motion.size, options):
            clip = self._clip(portrait, motion, options)
            if noise is None:
                noise = _noise(clip, range(len(motion)), options)
            _check_floats(noise, clip.shape, "noise")
            chosen = method(clip.schedule, options, lambda: fitted.read(self.bundle))
            if options.windows == "progressive":
                pieces = progressive.plan(len(motion), options.window_size, motion.movement)
                parts = progressive.denoise_pieces(
                    pieces,
                    partial(_part, clip, motion, noise),
                    clip.schedule,
                    chosen,
                    options.guidance,
                    on_step,
                    _over_pieces(progress, len(pieces)),
                )
                return np.concatenate([latents for _, latents in parts], axis=2)
            return denoise(
                clip.evaluate,
                clip.schedule,
                chosen,
                _windows(len(motion), options),
                noise,
                options.guidance,
                on_step,
                progress,
                motion.face,
            )

    def predict(
        self, portrait: PortraitState, motion: MotionState, latents: Array, step: int, options: Options | None = None
    ) -> Array:
        """The guided prediction of v that `denoise` works with, at one step.

        Args:
            portrait: from `encode_portrait`.
            motion: from `encode_motion`, of the same size.
            latents: float32 (1, 4, F, H/8, W/8).
            step: 0 to `options.steps` - 1.
            options: `Options()` by default.

        Returns:
            float32 (1, 4, F, H/8, W/8).

        Raises:
            FyeError: as `denoise`.
        """
        options = options or Options()
        with self._serving("denoiser", motion.size, options):
            clip = self._clip(portrait, motion, options)
            _check_floats(latents, clip.shape, "latents")
            windows = _windows(len(motion), options)
            return predict(clip.evaluate, clip.schedule, windows, options.guidance, latents, step)

    def _clip(self, portrait: PortraitState, motion: MotionState, options: Options) -> "_Clip":
        if portrait.size != motion.size:
            raise InputError(f"the portrait is {_by(portrait.size)}, the landmark images are {_by(motion.size)}")
        if options.forecasting.face_mask and motion.face is None:
            raise InputError("face_mask needs MotionState.face, which encode_motion fills in")
        if options.window_size > self.bundle.max_frames:
            raise OptionError(f"window_size={options.window_size}: this bundle allows {self.bundle.max_frames}")
        engine = self._engine("denoiser" if options.guidance > 1 else "denoiser_cond", options.compute)
        tensors = self._held_portrait(portrait, engine)
        height, width = motion.features.shape[2:]
        return _Clip(
            (1, self.bundle.latent_channels(), len(motion), height, width),
            schedule(options.steps, self.bundle.scheduler),
            network(engine, tensors, motion.features),
        )

    def _held_portrait(self, portrait: PortraitState, engine: backends.Engine) -> Mapping[str, Any]:
        """Its tensors where `engine` reads them; those of the last portrait stay there."""
        if self._held is None or self._held[0] is not portrait or self._held[1] is not engine:
            self._held = portrait, engine, {name: engine.hold(array) for name, array in portrait.tensors.items()}
        return self._held[2]

    def decode(self, latents: Array, progress: Progress | None = None) -> Array:
        """Turn latents into frames.

        Args:
            latents: float32 (1, 4, F, h, w).
            progress: called with (finished, all) frames.

        Returns:
            float32 (F, 8h, 8w, 3) in [0, 1].

        Raises:
            InputError: shape or dtype.
            NumericalError: the decoder returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        with self._serving("vae_decoder", _pixels(latents)):
            return np.concatenate(list(self._decoded(latents, progress, pixels=False)))

    def decode_pixels(self, latents: Array, progress: Progress | None = None) -> NDArray[np.uint8]:
        """As `decode`, in levels of 255, as `arrays.to_uint8` makes them; a GPU has less to give to the host then.

        Returns:
            uint8 (F, 8h, 8w, 3).
        """
        with self._serving("vae_decoder", _pixels(latents)):
            return np.concatenate(list(self._decoded(latents, progress, pixels=True)))

    def _decoded(self, latents: Array, progress: Progress | None, pixels: bool) -> Iterator[Any]:
        """Frames in chunks."""
        frames, h, w = latents.shape[2:] if latents.ndim == 5 and latents.size else (1, 8, 8)
        _check_floats(latents, (1, self.bundle.latent_channels(), frames, h, w), "latents")
        chunk = self._decoder_chunk(latents)
        engine = self._engine("vae_decoder")
        begin, own = (getattr(engine, name, None) if pixels else None for name in ("decoding", "pixels_of"))
        for start in range(0, frames, chunk):
            part = np.ascontiguousarray(latents[:, :, start : start + chunk])
            if begin is not None:
                yield begin(part)()
            elif own is not None:
                yield own(part)
            else:
                made = self._run("vae_decoder", _pixels(latents), latents=part)["frames"]
                yield to_uint8(made) if pixels else made
            if progress is not None:
                progress(min(start + chunk, frames), frames)
        self._release("vae_decoder")

    def frames(
        self,
        portrait: PortraitState,
        landmark_images: LandmarkImages,
        options: Options | None = None,
        tell: "Tell | None" = None,
        timings: Timings | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Make the frames of a clip, and give them as they are finished.

        With progressive windows a clip may have any length: what is kept of it doesn't grow. All other windows need
        the whole clip at every step, and take 600 frames. Between two pieces the Animator serves others.

        An engine on a GPU may decode a piece while the next one is denoised, which then comes before the first one's
        frames; with `low_memory` it does not.

        Args:
            portrait: from `encode_portrait`.
            landmark_images: uint8 (F, H, W, 3) of the portrait's size, or what gives them when they are asked for.
            options: `Options()` by default.
            tell: called with (stage, finished, all): network evaluations of "denoise", frames of "decode".
            timings: counts the seconds of each stage.
            resume: a folder that keeps what is denoised of this clip, piece by piece. If the same call was cut short,
                it goes on from there, with the same result. Only with progressive windows.

        Yields:
            uint8 (f, H, W, 3), one piece of the clip after the other.

        Raises:
            InputError: `resume` keeps another clip, or other files.
            OptionError: `resume` with other windows.
            FyeError: as `encode_motion`, `denoise` and `decode`.
        """
        options, timings, tell = options or Options(), timings or Timings(), tell or (lambda stage, done, total: None)
        total = len(landmark_images)
        if options.windows != "progressive":
            _check_length(total, "the clip")
            if resume is not None:
                raise OptionError(f"resume keeps finished pieces; windows={options.windows!r} makes a clip in one")
        kept = None if resume is None else Kept(resume, self._inputs(portrait, landmark_images, options))
        pieces = self._finished(portrait, landmark_images, options, tell, timings, kept)
        done, more = 0, True
        begun: deque[Callable[[], NDArray[np.uint8]]] = deque()
        while more or begun:
            with self._serving("denoiser" if more else "vae_decoder", landmark_images.shape[1:3], options):
                if more:
                    with timings.stage("denoise"):
                        latents = next(pieces, None)
                    more = latents is not None
                    if latents is not None:
                        tell("decode", done, total)
                        with timings.stage("decode"):
                            begun.append(self._decoding(latents))
                # where a piece is decoded beside what follows, the next one is denoised before it is waited for
                if not begun or (more and len(begun) == 1 and self._begin() is not None):
                    continue
                with timings.stage("decode"):
                    made = begun.popleft()()
            done += len(made)
            tell("decode", done, total)
            yield made

    def _decoding(self, latents: Array) -> Callable[[], NDArray[np.uint8]]:
        """What gives the frames of a piece; the engine has begun to decode them if it can."""
        begin = self._begin()
        if begin is None:
            return partial(self.decode_pixels, latents)
        chunk = self._decoder_chunk(latents)
        parts = [begin(np.ascontiguousarray(latents[:, :, k : k + chunk])) for k in range(0, latents.shape[2], chunk)]
        return lambda: np.concatenate([part() for part in parts])

    def _begin(self) -> Callable[[Array], Callable[[], NDArray[np.uint8]]] | None:
        """The decoder's, where it decodes while others denoise."""
        return None if self._low_memory else getattr(self._engine("vae_decoder"), "decoding", None)

    def _finished(
        self,
        portrait: PortraitState,
        images: LandmarkImages,
        options: Options,
        tell: "Tell",
        timings: Timings,
        kept: Kept | None,
    ) -> Iterator[Array]:
        """The latents of a clip, piece by piece."""
        progress = partial(tell, "denoise")
        if options.windows != "progressive":
            with timings.stage("encode_motion"):
                motion = self._motion(images)
            latents = self.denoise(portrait, motion, options=options, progress=progress)
            chunk = self._decoder_chunk(latents)
            yield from (latents[:, :, start : start + chunk] for start in range(0, len(images), chunk))
            return

        with timings.stage("encode_motion"):
            moved = movement(images)
        pieces = progressive.plan(len(images), options.window_size, moved)
        told = _over_pieces(progress, len(pieces))
        yield from self._in_pieces(portrait, lambda frames: images[frames], pieces, options, timings, told, kept)

    def _inputs(self, portrait: PortraitState, images: LandmarkImages, options: Options) -> dict[str, Any]:
        """All that a clip's frames depend on."""
        facts = machine.environment()
        versions = map(machine.installed_version, backends.distributions(self.backend))
        chunks = (images[start : start + GUIDER_CHUNK] for start in range(0, len(images), GUIDER_CHUNK))
        return {
            "fye_rt": facts["fye_rt"],
            "cpu": facts["cpu"]["model"],
            self.backend: " ".join(version for version in versions if version),
            "threads": self._settings.threads,
            "bundle": self.bundle.digest,
            "portrait": digest(portrait.tensors[name] for name in sorted(portrait.tensors)),
            "landmarks": digest(chunks),
            **options.as_dict(),
            "compute": [self._settings.compute, options.compute],
        }

    def stream(
        self,
        portrait: PortraitState,
        landmark_images: Iterable[NDArray[np.uint8] | None],
        options: Options | None = None,
        *,
        patience: float | None = None,
    ) -> Generator[NDArray[np.uint8]]:
        """Make frames while landmarks still come in.

        Every window of `options.window_size` frames begins with the last `options.window_overlap` ones of the window
        before, as they were at every step; the first frames come after the first window. The source is read ahead in
        a thread, by one window at most: if it is faster than the network, it has to wait. Close the generator to stop;
        between two windows the Animator serves others.

        Args:
            portrait: from `encode_portrait`.
            landmark_images: uint8 (H, W, 3) of the portrait's size, frame by frame. None, where no face was seen,
                repeats the landmarks before; before the first face it gives no frame.
            options: `Options()` by default; their windows don't count.
            patience: seconds without a new frame after which those that have come are made, in a shorter window; by
                default a window waits until it is full or the source ends.

        Yields:
            uint8 (f, H, W, 3), as many frames as came in, window by window.

        Raises:
            InputError: an image of another kind or size than the portrait; what came before it is made first.
            OptionError: a window longer than the bundle allows.
            FyeError: as `denoise`. What the source raises is raised when all that came before it is made.
        """
        options = options or Options()
        feed = Feed(_faces(landmark_images, portrait.size), options.window_size)
        held: dict[int, NDArray[np.uint8]] = {}  # landmark images of the window and of what it is pinned to
        counts: deque[int] = deque()
        pieces = progressive.stream(iter(counts.popleft, None), options.window_overlap)

        def images(frames: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.stack([held[int(k)] for k in frames])

        latents = self._in_pieces(portrait, images, pieces, options, Timings(), None)
        end = 0
        try:
            while new := feed.take(options.window_size - min(end, options.window_overlap), patience):
                held = {k: image for k, image in held.items() if k >= end - options.window_overlap}
                held.update(enumerate(new, end))
                end += len(new)
                counts.append(len(new))
                with self._serving("denoiser", portrait.size, options):
                    frames = self.decode_pixels(next(latents))
                yield frames
        finally:
            feed.close()

    def _in_pieces(
        self,
        portrait: PortraitState,
        images: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
        pieces: Iterable[progressive.Piece],
        options: Options,
        timings: Timings,
        told: Callable[[int, int, int], None] | None,
        kept: Kept | None = None,
    ) -> Iterator[Array]:
        """The latents of a clip's frames, as they are finished."""

        def part(frames: NDArray[np.int64]) -> progressive.Part:
            with timings.stage("encode_motion"):
                motion = self.encode_motion(images(frames))
            clip = self._clip(portrait, motion, options)
            noise = _noise(clip, frames.tolist(), options)
            return progressive.Part(clip.evaluate, noise, motion.face)

        steps = schedule(options.steps, self.bundle.scheduler)
        chosen = method(steps, options, lambda: fitted.read(self.bundle))
        finished = progressive.denoise_pieces(pieces, part, steps, chosen, options.guidance, progress=told, kept=kept)
        yield from (latents for _, latents in finished)

    def animate(
        self,
        image: "str | os.PathLike[str] | NDArray[np.uint8]",
        motion_source: "MotionSource",
        options: Options | None = None,
        **settings: Any,
    ) -> "Clip":
        """Portrait and motion in, clip out; see `fye_rt.clips.clip.animate` for what both may be."""
        from fye_rt.clips.clip import animate

        options = options or Options()
        backends.resolve_compute(self.backend, options.compute)
        with self._serving("the clip", settings.get("size"), options):
            return animate(self, image, motion_source, options, **settings)

    def render(
        self,
        image: "str | os.PathLike[str] | NDArray[np.uint8]",
        motion_source: "MotionSource",
        options: Options | None = None,
        **settings: Any,
    ) -> "Rendering":
        """As `animate`, but the frames come one by one, and none is kept; see `fye_rt.clips.clip.render`."""
        from fye_rt.clips.clip import render

        options = options or Options()
        backends.resolve_compute(self.backend, options.compute)
        with self._serving("the clip", settings.get("size"), options):
            return render(self, image, motion_source, options, **settings)

    def warm_up(self, size: tuple[int, int] | None = None, frames: int = 1) -> None:
        """Run every graph that a guided clip needs once, on a clip of `frames` frames of `size` (height, width)."""
        height, width = size or self.bundle.size
        blank = np.zeros((frames, height, width, 3), np.uint8)
        with self._serving("warm_up", (height, width)):
            portrait, motion = self.encode_portrait(blank[0]), self.encode_motion(blank)
            self.decode(self.denoise(portrait, motion, options=Options(steps=1)))

    def close(self) -> None:
        """Give the memory of all graphs back; further calls are refused, but for another `close`."""
        if not self._closed:
            with self._serving("close"):
                self._let_go()
                self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decoder_chunk(self, latents: Array) -> int:
        """How many frames are decoded by a call."""
        pixels = 64 * latents.shape[3] * latents.shape[4]
        return min(DECODER_CHUNK, max(1, self._engine("vae_decoder").pixels // pixels))

    @contextmanager
    def _serving(
        self, work: str, size: tuple[int, ...] | None = None, options: Options | None = None
    ) -> Iterator[None]:
        """Keep other threads out; memory that runs out is told with the work, and with its size and windows."""
        if not self._lock.acquire(blocking=False):
            raise BusyError("this Animator is serving another call; give each thread an Animator of its own")
        try:
            if self._closed:
                raise BusyError("this Animator is closed; make a new one")
            with self._memory_for(work, size, options):
                yield
        except OutOfMemoryError:
            self._let_go()  # graphs are opened again for the next call, which may need less
            raise
        finally:
            self._lock.release()

    def _memory_for(self, work: str, size: tuple[int, ...] | None, options: Options | None = None) -> Any:
        remedies = ["a smaller --size"]
        work += f" at size {_by(size)}" if size and len(size) == 2 else ""
        if options is not None:
            work += f" with window_size={options.window_size}"
            remedies.append("a smaller --window-size")
        remedies += [] if self._low_memory else ["--low-memory"]
        return memory_for(work, " or ".join(filter(None, (", ".join(remedies[:-1]), remedies[-1]))))

    def _let_go(self) -> None:
        self._engines.clear()
        self._settings.shared.clear()
        self._held = None

    def _engine(self, graph: str, compute: str = "auto") -> backends.Engine:
        compute = self._settings.compute if compute == "auto" else compute
        if (graph, compute) not in self._engines:
            settings = replace(self._settings, compute=compute)
            self._engines[graph, compute] = self._open(self.bundle, graph, settings)
        return self._engines[graph, compute]

    def _run(self, graph: str, size: tuple[int, ...], **inputs: NDArray[Any]) -> backends.Arrays:
        with self._memory_for(graph, size):
            outputs = self._engine(graph).run(inputs)
        if not all(np.isfinite(output).all() for output in outputs.values()):
            raise NumericalError(f"{graph} returned NaN or infinity; run again with --compute fp32")
        return outputs

    def _run_once(self, graph: str, size: tuple[int, ...], **inputs: NDArray[Any]) -> backends.Arrays:
        outputs = self._run(graph, size, **inputs)
        self._release(graph)
        return outputs

    def _release(self, graph: str) -> None:
        if self._low_memory:
            del self._engines[graph, self._settings.compute]


def _faces(images: Iterable[NDArray[np.uint8] | None], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Landmark images as they come in, checked; where no face was seen, the ones before."""
    last: NDArray[np.uint8] | None = None
    with let_go(images):
        for image in images:
            if image is not None:
                if image.shape != (*size, 3) or image.dtype != np.uint8:
                    raise InputError(
                        f"a landmark image is {image.dtype} {image.shape}; the portrait needs uint8 {(*size, 3)}"
                    )
                last = image
            if last is not None:
                yield last


def _noise(clip: _Clip, frames: Iterable[int], options: Options) -> Array:
    _, channels, _, height, width = clip.shape
    return frame_noise(options.seed, frames, height, width, channels, options.shared_noise)


def _part(clip: _Clip, motion: MotionState, noise: Array, frames: NDArray[np.int64]) -> progressive.Part:
    """What the loop needs of some frames of a clip."""
    face = None if motion.face is None else motion.face[frames]
    return progressive.Part(clip.evaluate.of(frames), noise[:, :, frames], face)


def _over_pieces(progress: Progress | None, pieces: int) -> Callable[[int, int, int], None] | None:
    if progress is None:
        return None
    return lambda number, done, total: progress(number * total + done, pieces * total)


def _windows(frames: int, options: Options) -> Sequence[windows.Window]:
    return windows.plan(frames, options.windows, options.window_size, options.window_overlap)


def check_sides(size: tuple[int, ...], name: str) -> None:
    """Raise InputError unless the sides of `size` (height, width) are multiples of 8, 64 to 2048."""
    if any(side % 8 or not MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise InputError(f"{name} is {_by(size)}; sides are multiples of 8, {MIN_SIDE} to {MAX_SIDE}")


def _check_images(images: NDArray[np.uint8], name: str) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError(f"{name} is {images.dtype}, each of shape {images.shape[1:]}; give uint8 (H, W, 3)")
    check_sides(images.shape[1:3], name)


def _check_length(frames: int, name: str) -> None:
    if not 1 <= frames <= MAX_FRAMES:
        raise InputError(
            f"{name} has {frames} frames; denoised together are 1 to {MAX_FRAMES}: give fewer with --frames, or make "
            "any number with --windows progressive"
        )


def _check_floats(array: Array, shape: tuple[int, ...], name: str) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise InputError(f"{name} is {array.dtype} {array.shape}; give float32 {shape}")


def _pixels(latents: Array) -> tuple[int, ...]:
    """(height, width) of their frames."""
    return tuple(8 * side for side in latents.shape[3:])


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
