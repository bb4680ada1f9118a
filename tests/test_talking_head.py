import numpy as np
import pytest

from fye_rt import media
from tests import talking_head


def test_the_shipped_clip_shows_what_its_script_draws() -> None:
    pytest.importorskip("skimage.data")
    frames = [frame for _, frame in media.read_video(talking_head.PATH)]
    assert len(frames) == talking_head.FRAMES
    for frame, drawn in zip(frames, talking_head.frames(), strict=True):
        assert np.abs(frame.astype(int) - drawn).mean() < 6  # 4 levels are the encoder's; a frame's motion costs 8


def test_the_shipped_clip_has_sound_and_an_even_frame_rate() -> None:
    info = media.probe_video(talking_head.PATH)
    assert (info.fps, info.has_audio, info.variable_rate) == (talking_head.FPS, True, False)
