"""What clips of any length take, and that they come out the same whatever is kept of them."""

import numpy as np
import pytest

from fye_rt import Animator, Options, stages
from fye_rt.clips.frames import frames_of
from tests.fye_rt.command_line import TINY, python

# landmark images as a motion gives them, made when they are asked for
PEAK = """
import sys
import numpy as np
from fye_rt import Animator, Bundle, Options
from fye_rt.clips.frames import frames_of
from fye_rt.machine import peak_memory

class Images:
    shape = (int(sys.argv[2]), 64, 64, 3)
    def __len__(self):
        return self.shape[0]
    def __getitem__(self, frames):
        chosen = np.arange(len(self))[frames]
        return np.repeat(chosen % 251, 64 * 64 * 3).astype(np.uint8).reshape(-1, 64, 64, 3)

with Animator(Bundle.load(sys.argv[1]), "onnxruntime", threads=1) as animator:
    portrait = animator.encode_portrait(np.zeros((64, 64, 3), np.uint8))
    options = Options(steps=2, windows="progressive", forecast="reuse")
    made = sum(len(piece) for piece in frames_of(animator, portrait, Images(), options))
assert made == len(Images())
print(peak_memory())
"""


def peak(frames: int) -> int:
    return int(python("-c", PEAK, TINY, frames, check=True).stdout)


@pytest.mark.slow
def test_2000_frames_take_the_memory_of_300() -> None:
    pixels = (2000 - 300) * 64 * 64 * 3  # of the frames alone, were they kept
    assert peak(2000) - peak(300) < pixels / 2


@pytest.mark.parametrize("windows", ["context", "reference", "tiles"])
def test_a_clip_needs_no_kept_features(windows: str, animator: Animator, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    images = random.integers(0, 256, (11, 64, 64, 3), np.uint8)
    portrait = animator.encode_portrait(images[0])
    options = Options(steps=2, windows=windows, window_size=5, window_overlap=2)
    kept = np.concatenate(list(frames_of(animator, portrait, images, options)))
    assert len(kept) == 11
    monkeypatch.setattr(stages, "_KEPT_FEATURES", 0)
    monkeypatch.setattr(Animator, "encode_motion", None)  # it would keep them
    np.testing.assert_array_equal(np.concatenate(list(frames_of(animator, portrait, images, options))), kept)
