"""The four stages of a clip: encode a portrait, encode a motion, denoise, decode."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array, check_floats, check_images
from fye_rt.backends.host import HostWorkspace
from fye_rt.bundle import Bundle
from fye_rt.denoise import OnStep, predict
from fye_rt.engine import DeviceArray, joined
from fye_rt.errors import InputError, OptionError
from fye_rt.forecasts import fitted
from fye_rt.forecasts.choose import choose_forecast
from fye_rt.graphs import Graphs
from fye_rt.landmarks import LandmarkImages, face_region, movement
from fye_rt.network import Features, MotionState, Network, PortraitState, network
from fye_rt.noise import frame_noise
from fye_rt.options import Options
from fye_rt.pieces import Frames, Piece, check_length, clip_pieces
from fye_rt.progressive import PieceInputs, PieceStore, denoise_pieces
from fye_rt.schedule import schedule
from fye_rt.timings import Progress
from fye_rt.windows import blended_windows

GUIDER_CHUNK, DECODER_CHUNK = 8, 8  # most frames per call
_KEPT_FEATURES = 2**28  # bytes, 5 MB per frame of 512x512; features of longer clips are computed when they are needed


class Stages:
    """Runs the stages of a bundle. Serves one thread at a time; use it as a context manager, or call `close`.

    Args:
        bundle: a verified bundle.
        backend: a name of `fye_rt.backends.BACKENDS`, or "auto" for the best that works here.
        compute: compute precision of all stages; "auto" takes the fastest that the backend is proven with. The denoiser
            follows the call's `Options.compute` unless that is "auto".
        threads: CPU threads; 0 means one per physical core that this process can keep busy (`fye_rt.machine.cores`).
        low_memory: release each graph that runs once per portrait or clip right after it has run, and load it again
            when it is next needed.

    Raises:
        BackendError: the backend is unknown, not installed, or cannot compute in `compute` here.
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
        self.bundle = bundle
        self.graphs = Graphs(bundle, backend, compute, threads, low_memory)
        self.backend = self.graphs.backend

    def encode_portrait(self, image: NDArray[np.uint8], clip_pixels: Array | None = None) -> PortraitState:
        """Encode a portrait once for any number of motions.

        Args:
            image: uint8 (H, W, 3) RGB, used as it is; H and W are multiples of 8, 64 to 2048.
            clip_pixels: float32 (3, S, S), already normalised, to replace CLIP's own preprocessing of `image`.

        Raises:
            InputError: wrong shape or dtype.
            NumericalError: a network returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        with self.graphs.serving("encode_portrait", image.shape[:2]):
            check_images(image[None], "image")
            size, side = image.shape[:2], int(self.bundle.graphs["image_encoder"].inputs[0].shape[-1])
            if clip_pixels is None:
                from fye_rt import media

                clip_pixels = media.clip_pixels(image, side)
            check_floats(clip_pixels, (3, side, side), "clip_pixels")
            tokens = self.graphs.run_once("image_encoder", size, clip_pixels=np.ascontiguousarray(clip_pixels[None]))
            # the reference implementation's order of operations, in float32
            pixels = image.transpose(2, 0, 1)[None] / np.float32(255) * np.float32(2) - np.float32(1)
            latents = self.graphs.run_once("vae_encoder", size, pixels=np.ascontiguousarray(pixels))
            tensors = self.graphs.run_on_device("reference", size, **latents, **tokens)
            self.graphs.release("reference")
            return PortraitState(MappingProxyType(tensors), size)

    def encode_motion(self, landmark_images: NDArray[np.uint8]) -> MotionState:
        """Encode landmark images once per clip.

        Args:
            landmark_images: uint8 (F, H, W, 3), 1 to 600 frames.

        Raises:
            InputError: wrong shape, dtype or length.
            NumericalError: the network returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        size = landmark_images.shape[1:3]
        with self.graphs.serving("encode_motion", size):
            check_images(landmark_images, "landmark_images")
            check_length(len(landmark_images), "landmark_images")
            features = self._features(landmark_images)
            self.graphs.release("guider")
            return MotionState(features, size, face_region(landmark_images), movement(landmark_images))

    def _features(self, images: NDArray[np.uint8]) -> Array | DeviceArray:
        parts = []
        for start in range(0, len(images), GUIDER_CHUNK):
            chunk = images[start : start + GUIDER_CHUNK].transpose(0, 3, 1, 2)
            pixels = np.ascontiguousarray(chunk, dtype=np.float32) / np.float32(255)
            outputs = self.graphs.run_on_device("guider", images.shape[1:3], landmark_images=pixels)
            parts.append(outputs["landmark_features"])
        features: Array | DeviceArray = joined(parts)
        return features

    def _motion(self, images: LandmarkImages) -> MotionState:
        """Encode any number of landmark images; see `encode_motion`. Features of long clips are not kept."""
        check_images(images[:1], "landmark_images")
        frames, height, width, _ = images.shape
        shape = (frames, int(self.bundle.graphs["guider"].outputs[0].shape[1]), height // 8, width // 8)
        if 4 * math.prod(shape) <= _KEPT_FEATURES:
            return self.encode_motion(images[:])
        chunks = (images[start : start + GUIDER_CHUNK] for start in range(0, frames, GUIDER_CHUNK))
        face = np.concatenate([face_region(chunk) for chunk in chunks])
        return MotionState(Features(shape, lambda indices: self._features(images[indices])), (height, width), face)

    def denoise(
        self,
        portrait: PortraitState,
        motion: MotionState,
        noise: Array | None = None,
        options: Options | None = None,
        on_step: OnStep | None = None,
        progress: Progress | None = None,
    ) -> Array:
        """Denoise the latents of a clip.

        Args:
            portrait: from `encode_portrait`.
            motion: from `encode_motion`, of the same size.
            noise: float32 (1, 4, F, H/8, W/8); by default that of `options.seed`.
            options: `Options()` by default.
            on_step: called with (index, timestep, latents) after every evaluated step; with progressive windows, for
                one piece of the clip after another, with the latents of that piece.
            progress: called with ("denoise", finished, all) network evaluations.

        Returns:
            float32 (1, 4, F, H/8, W/8).

        Raises:
            InputError: portrait, motion and noise do not fit together.
            OptionError: a window longer than the bundle allows.
            NumericalError: the network returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        options = self.bundle.resolve(options or Options())
        with self.graphs.serving("denoiser", motion.size, options):
            denoiser = self._denoiser(portrait, motion, options)
            if noise is None:
                noise = self._noise(motion, range(len(motion)), options)
            check_floats(noise, self._latent_shape(motion), "noise")

            def inputs(frames: Frames) -> PieceInputs:
                face = None if motion.face is None else motion.face[frames]
                return PieceInputs(denoiser.of(frames), noise[:, :, frames], face)

            pieces = clip_pieces(len(motion), options, motion.movement)
            parts = self._in_pieces(pieces, inputs, options, on_step, progress)
            return np.concatenate(list(parts), axis=2)

    def latents(
        self,
        portrait: PortraitState,
        images: Callable[[Frames], LandmarkImages],
        pieces: Iterable[Piece],
        options: Options,
        progress: Progress | None = None,
        store: PieceStore | None = None,
        encoding: Callable[[], Any] = nullcontext,
    ) -> Iterator[Array]:
        """Yield the latents of a clip as its frames are finished, with landmark images read piece by piece.

        Args:
            portrait: from `encode_portrait`.
            images: maps frame indices int64 (f,) to landmark images uint8 (f, H, W, 3).
            pieces: from `fye_rt.pieces`.
            options: how to denoise.
            progress: called with ("denoise", finished, all) network evaluations.
            store: finished pieces of the same clip; newly finished pieces are added.
            encoding: makes a context that is open while a motion is encoded.

        Yields:
            float32 (1, 4, f, h, w).

        Raises:
            FyeError: any error of `encode_motion` and `denoise`.
        """
        options = self.bundle.resolve(options)

        def inputs(frames: Frames) -> PieceInputs:
            with encoding():
                motion = self._motion(images(frames))
            noise = self._noise(motion, frames.tolist(), options)
            return PieceInputs(self._denoiser(portrait, motion, options), noise, motion.face)

        yield from self._in_pieces(pieces, inputs, options, progress=progress, store=store)

    def _in_pieces(
        self,
        pieces: Iterable[Piece],
        inputs: Callable[[Frames], PieceInputs],
        options: Options,
        on_step: OnStep | None = None,
        progress: Progress | None = None,
        store: PieceStore | None = None,
    ) -> Iterator[Array]:
        steps = schedule(options.steps, self.bundle.scheduler)
        forecaster = choose_forecast(steps, options, lambda: fitted.read(self.bundle))
        guidance = float(options.guidance or 0)
        for _, latents in denoise_pieces(pieces, inputs, steps, forecaster, guidance, on_step, progress, store):
            yield latents

    def predict(
        self, portrait: PortraitState, motion: MotionState, latents: Array, step: int, options: Options | None = None
    ) -> Array:
        """Compute the guided prediction of v that `denoise` uses at a step from 0 to `options.steps` - 1.

        `latents` and the result are float32 (1, 4, F, H/8, W/8). Other arguments and errors are those of `denoise`.
        """
        options = self.bundle.resolve(options or Options())
        with self.graphs.serving("denoiser", motion.size, options):
            denoiser, steps = self._denoiser(portrait, motion, options), schedule(options.steps, self.bundle.scheduler)
            check_floats(latents, self._latent_shape(motion), "latents")
            windows = blended_windows(len(motion), options.windows, options.window_size, options.window_overlap)
            workspace = HostWorkspace(denoiser, steps.timesteps.tolist(), windows, float(options.guidance or 0))
            return predict(workspace, steps, windows, latents, step)

    def _denoiser(self, portrait: PortraitState, motion: MotionState, options: Options) -> Network:
        if portrait.size != motion.size:
            sizes = "the portrait is {}x{}, the landmark images are {}x{}; give both one size"
            raise InputError(sizes.format(*portrait.size, *motion.size))
        if options.forecasting.face_mask and motion.face is None:
            raise InputError("face_mask needs MotionState.face, which encode_motion fills in")
        if options.window_size > self.bundle.max_frames:
            raise OptionError(f"window_size={options.window_size}: this bundle allows {self.bundle.max_frames}")
        guided = (options.guidance or 0) > 1
        engine = self.graphs.engine("denoiser" if guided else "denoiser_cond", options.compute)
        return network(engine, self.graphs.hold(portrait, portrait.tensors, engine), motion.features)

    def _latent_shape(self, motion: MotionState) -> tuple[int, int, int, int, int]:
        return 1, self.bundle.latent_channels(), len(motion), motion.size[0] // 8, motion.size[1] // 8

    def _noise(self, motion: MotionState, frames: Iterable[int], options: Options) -> Array:
        _, channels, _, height, width = self._latent_shape(motion)
        return frame_noise(options.seed, frames, height, width, channels, options.shared_noise or 0.0)

    def decode(self, latents: Array, progress: Progress | None = None) -> Array:
        """Decode latents into frames.

        Args:
            latents: float32 (1, 4, F, h, w).
            progress: called with ("decode", finished, all) frames.

        Returns:
            float32 (F, 8h, 8w, 3) in [0, 1].

        Raises:
            InputError: wrong shape or dtype.
            NumericalError: the decoder returned NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        run = partial(self.graphs.run, "vae_decoder", _pixels(latents))
        return self._decoded(latents, lambda chunk: run(latents=chunk)["frames"], progress)

    def decode_pixels(self, latents: Array, progress: Progress | None = None) -> NDArray[np.uint8]:
        """Decode latents into uint8 (F, 8h, 8w, 3), as `arrays.to_uint8` does; a GPU then copies less to the host."""
        return self._decoded(latents, lambda chunk: self.graphs.engine("vae_decoder").begin_decoding(chunk)(), progress)

    def begin_decoding(self, latents: Array) -> Callable[[], NDArray[np.uint8]]:
        """Start `decode_pixels`, at once if the engine decodes beside the denoiser; return a function that finishes."""
        if not self.decodes_beside:
            return partial(self.decode_pixels, latents)
        with self.graphs.serving("vae_decoder", _pixels(latents)):
            chunks = list(self._chunks(latents, self.graphs.engine("vae_decoder").begin_decoding, None))
        return lambda: np.concatenate([finish() for finish in chunks])

    @property
    def decodes_beside(self) -> bool:
        """Whether the engine decodes frames while the next ones are denoised."""
        return not self.graphs.low_memory and self.graphs.engine("vae_decoder").decodes_beside

    def _decoded(self, latents: Array, decode: Callable[[Array], Any], progress: Progress | None) -> Any:
        with self.graphs.serving("vae_decoder", _pixels(latents)):
            frames = np.concatenate(list(self._chunks(latents, decode, progress)))
            self.graphs.release("vae_decoder")
            return frames

    def _chunks(self, latents: Array, decode: Callable[[Array], Any], progress: Progress | None) -> Iterator[Any]:
        """Apply `decode` to the latents, as many frames at once as suit the engine."""
        frames, h, w = latents.shape[2:] if latents.ndim == 5 and latents.size else (1, 8, 8)
        check_floats(latents, (1, self.bundle.latent_channels(), frames, h, w), "latents")
        length = min(DECODER_CHUNK, max(1, self.graphs.engine("vae_decoder").pixels // (64 * h * w)))
        for start in range(0, frames, length):
            yield decode(np.ascontiguousarray(latents[:, :, start : start + length]))
            if progress is not None:
                progress("decode", min(start + length, frames), frames)

    def warm_up(self, size: tuple[int, int] | None = None, frames: int = 1) -> None:
        """Run every graph that a clip needs by default on one clip of `frames` frames of `size` (height, width)."""
        height, width = size or self.bundle.size
        blank = np.zeros((frames, height, width, 3), np.uint8)
        with self.graphs.serving("warm_up", (height, width)), self.graphs.engine("guider").warming_up():
            portrait, motion = self.encode_portrait(blank[0]), self.encode_motion(blank)
            self.decode(self.denoise(portrait, motion, options=Options(steps=1)))

    def close(self) -> None:
        """Free the memory of all graphs. Refuses all later calls, except another `close`."""
        self.graphs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _pixels(latents: Array) -> tuple[int, ...]:
    """(height, width) of the frames of some latents."""
    return tuple(8 * side for side in latents.shape[3:])
