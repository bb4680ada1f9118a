"""A fixture of several tests of videos."""

from collections.abc import Iterator

import pytest

from fye_rt.media import video


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by each frame that is decoded."""
    numbers: list[int] = []
    frames = video._frames

    def counted(*arguments: object) -> Iterator[object]:
        for index, frame in enumerate(frames(*arguments)):
            numbers.append(index)
            yield frame

    monkeypatch.setattr(video, "_frames", counted)
    return numbers
