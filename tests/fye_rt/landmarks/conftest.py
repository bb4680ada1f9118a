"""The reference's recorded landmarks, as motions and as bare arrays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.landmarks import Motion

Recorded = Mapping[str, NDArray]


@pytest.fixture(scope="session")
def recorded(data: Path) -> Recorded:
    with np.load(data / "landmarks" / "landmarks.npz") as archive:
        return {name: archive[name] for name in archive}


@pytest.fixture(scope="session")
def portrait(recorded: Recorded) -> Motion:
    return Motion(
        points=recorded["ref_lmks"][None],
        mesh=recorded["ref_lmks3d"][None],
        pose=recorded["ref_trans_mat"][None],
        blendshapes=recorded["ref_bs"][None],
        times=np.zeros(1),
        fps=1.0,
        source_size=(int(recorded["ref_height"]), int(recorded["ref_width"])),
        valid=np.ones(1, np.bool_),
    )


@pytest.fixture(scope="session")
def motion(recorded: Recorded) -> Motion:
    frames = len(recorded["tmpl_lmks"])
    return Motion(
        points=recorded["tmpl_lmks"],
        mesh=recorded["tmpl_lmks3d"],
        pose=recorded["tmpl_trans_mat"],
        blendshapes=recorded["tmpl_bs"],
        times=np.arange(frames) / 7.0,
        fps=7.0,
        source_size=(256, 256),
        valid=np.ones(frames, np.bool_),
    )


@pytest.fixture(scope="session")
def landmarker(shared: Path) -> Path:
    path = shared / "models" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip("needs MediaPipe's face_landmarker.task in ../shared/models")
    return path
