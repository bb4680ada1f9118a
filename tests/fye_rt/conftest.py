"""Fixtures for the runtime's tests: the reference's recorded landmarks, real input, and the command line."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.animator import Animator
from fye_rt.arrays import Array
from fye_rt.bundle import Bundle
from fye_rt.landmarks import Motion
from fye_rt.network import MotionState, PortraitState
from fye_rt.pieces import Piece
from fye_rt.timings import Progress
from tests.fye_rt.command_line import Fye

Recorded = Mapping[str, NDArray]
States = tuple[PortraitState, MotionState]
ARRAYS = {"points": "lmks", "mesh": "lmks3d", "pose": "trans_mat", "blendshapes": "bs"}  # as they were recorded


@pytest.fixture(scope="session")
def recorded(data: Path) -> Recorded:
    with np.load(data / "landmarks" / "landmarks.npz") as archive:
        return {name: archive[name] for name in archive}


@pytest.fixture(scope="session")
def portrait(recorded: Recorded) -> Motion:
    arrays = {name: recorded[f"ref_{key}"][None] for name, key in ARRAYS.items()}
    size = int(recorded["ref_height"]), int(recorded["ref_width"])
    return Motion(**arrays, times=np.zeros(1), fps=1.0, source_size=size, valid=np.ones(1, np.bool_))


@pytest.fixture(scope="session")
def motion(recorded: Recorded) -> Motion:
    arrays = {name: recorded[f"tmpl_{key}"] for name, key in ARRAYS.items()}
    times = np.arange(len(arrays["points"])) / 7.0
    return Motion(**arrays, times=times, fps=7.0, source_size=(256, 256), valid=np.ones(len(times), np.bool_))


@pytest.fixture(scope="session")
def still(motion: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A motion file of one frame, which may stand for a portrait's landmarks."""
    path = tmp_path_factory.mktemp("still") / "still.npz"
    motion[:1].save(path)
    return path


@pytest.fixture
def undenoised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey latents at once: for tests of what stands before and after the one slow stage."""

    def latents(
        self: Animator,
        portrait: Any,
        images: Callable[[Any], Any],
        pieces: Iterable[Piece],
        options: Any,
        progress: Progress | None = None,
        store: Any = None,
        encoding: Callable[[], Any] = nullcontext,
    ) -> Iterator[Array]:
        for piece in pieces:
            with encoding():
                motion = self.encode_motion(images(piece.frames)[:])
            if progress is not None:
                progress("denoise", 1, 1)
            yield np.zeros((1, 4, len(piece.finished), *motion.features.shape[2:]), np.float32)

    monkeypatch.setattr(Animator, "latents", latents)


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="session")
def animator(bundle: Bundle) -> Iterator[Animator]:
    with Animator(bundle, "onnxruntime", threads=1) as animator:
        yield animator


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Five pictures of 64x72."""
    return np.random.default_rng(0).integers(0, 256, (5, 64, 72, 3), np.uint8)


@pytest.fixture(scope="session")
def states(animator: Animator, images: NDArray[np.uint8]) -> States:
    """The first picture as a portrait and all five as a motion."""
    return animator.encode_portrait(images[0]), animator.encode_motion(images)


@pytest.fixture
def fye(capsys: pytest.CaptureFixture[str]) -> Fye:
    return Fye(capsys)
