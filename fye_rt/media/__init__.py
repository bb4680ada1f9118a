"""Read and write images and videos, within limits. Inside fye-rt every image is uint8 RGB, (H, W, 3)."""

from fye_rt.media.checks import LIMITS, Limits
from fye_rt.media.images import contact_sheet, image_size, read_image, write_image
from fye_rt.media.info import VideoInfo
from fye_rt.media.kinds import kind_of, pictures_in
from fye_rt.media.mp4 import CRF, FrameWriter, PictureSequence, VideoWriter, write_video
from fye_rt.media.pixels import clip_pixels, fit_image, reference_round_trip
from fye_rt.media.sound import check_sound
from fye_rt.media.times import check_times
from fye_rt.media.video import probe_video, read_video

__all__ = [
    "CRF",
    "LIMITS",
    "FrameWriter",
    "Limits",
    "PictureSequence",
    "VideoInfo",
    "VideoWriter",
    "check_sound",
    "check_times",
    "clip_pixels",
    "contact_sheet",
    "fit_image",
    "image_size",
    "kind_of",
    "pictures_in",
    "probe_video",
    "read_image",
    "read_video",
    "reference_round_trip",
    "write_image",
    "write_video",
]
