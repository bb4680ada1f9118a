"""Pictures with the face of scikit-image's astronaut (NASA's portrait of Eileen Collins, public domain) pasted in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.landmarks import detect, detect_image
from fye_rt.landmarks.square import _LOOK

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
NOSE, HEIGHT = (224.0, 120.0), 105.6  # of the face in the astronaut's picture, pixels


@dataclass(frozen=True)
class Pasted:
    """The astronaut, to be pasted.

    Attributes:
        image: uint8 (512, 512, 3).
        points: float64 (478, 2), pixels; found in the head enlarged fourfold.
    """

    image: Image
    points: Points

    @classmethod
    def of(cls, image: Image, landmarker: Path) -> "Pasted":
        head = cv2.resize(image[20:260, 100:340], (960, 960), interpolation=cv2.INTER_CUBIC)
        return cls(image, detect_image(head, landmarker).points[0, :, :2] * 240 + (100, 20))

    def into(self, canvas: Image, face: float, at: tuple[float, float], angle: float = 0.0) -> tuple[Image, Points]:
        """Paste the face `face` pixels high with its nose `at` x and y, tilted by degrees clockwise.

        Returns:
            The picture, and the landmarks' place in it: float64 (478, 2), pixels.
        """
        scale, size = face / HEIGHT, canvas.shape[1::-1]
        turn = cv2.getRotationMatrix2D(NOSE, -angle, scale)
        turn[:, 2] += np.array(at) - NOSE
        source = cv2.GaussianBlur(self.image, (0, 0), 0.45 / scale) if scale < 1 else self.image
        shape = np.zeros(self.image.shape[:2], np.uint8)
        shape[:400, 60:400] = 1
        inside = cv2.warpAffine(shape, turn, size, flags=cv2.INTER_NEAREST) > 0
        picture = np.where(inside[..., None], cv2.warpAffine(source, turn, size), canvas)
        return picture, (self.points - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5


def looks_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What MediaPipe looks at from now on, look by look: "whole", "region" (a face again) or "square" (of a search)."""
    looks: list[str] = []
    opened, whole = detect._open, detect._check_image
    size: list[tuple[int, ...]] = []

    def checked(image: Image, *more: Any) -> None:
        size[:] = [image.shape, (image.shape[1], image.shape[0], 3)]  # also turned by a quarter
        whole(image, *more)

    @contextmanager
    def counted(landmarker: Path) -> Iterator[Any]:
        with opened(landmarker) as (look, geometry):

            def counting(image: Image) -> Any:
                region = image.shape == (_LOOK, _LOOK, 3)
                looks.append("whole" if image.shape in size else "region" if region else "square")
                return look(image)

            yield counting, geometry

    monkeypatch.setattr(detect, "_open", counted)
    monkeypatch.setattr(detect, "_check_image", checked)
    return looks


def canvas(height: int, width: int) -> Image:
    """A picture without a face: coarse noise."""
    coarse = np.random.default_rng(5).integers(60, 190, (height // 40 + 1, width // 40 + 1, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
