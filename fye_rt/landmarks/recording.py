"""The faces of a video's frames, as they are found, on their way to a motion."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.files.rows import Rows, parts
from fye_rt.landmarks.geometry import Face, FaceGeometry, recover
from fye_rt.landmarks.motion import BLENDSHAPES, MESH_POINTS, POINTS, Motion

Array = NDArray[np.float64]


class Recording:
    """Faces frame by frame; a frame without one repeats the face before it (at the start: the first face).

    Attributes:
        times: seconds of each frame.
        found: whether each frame has a face.
        widths: width of each found face, as a share of the picture's.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.found: list[bool] = []
        self.widths: list[float] = []
        self._points, self._blendshapes = Rows((POINTS, 3)), Rows((BLENDSHAPES,))
        self._latest: Face | None = None

    def __len__(self) -> int:
        return len(self.times)

    def add(self, time: float, face: Face | None) -> None:
        """Add the next frame.

        `face` is points float64 (478, 3), as in `Motion`, and blendshapes float64 (51,), or None.
        """
        self.times.append(time)
        self.found.append(face is not None)
        if face is not None:
            self._latest = face
            self.widths.append(float(np.ptp(face[0][:, 0])))
        if self._latest is not None:
            for rows, row in zip((self._points, self._blendshapes), self._latest, strict=True):
                for _ in range(len(self.times) - len(rows)):  # more than one if the first frames had none
                    rows.append(row[None])

    def motion(self, fps: float, size: tuple[int, int], geometry: FaceGeometry) -> Motion:
        """Return the motion of all frames, of which one or more has a face; nothing can be added any more."""
        points, mesh, pose = self._points.array(), Rows((MESH_POINTS, 3)), Rows((4, 4))
        for part in parts(len(points)):
            seen = recover(points[part], size, geometry)
            mesh.append(seen[0])
            pose.append(seen[1])
        return Motion(
            points=points,
            mesh=mesh.array(),
            pose=pose.array(),
            blendshapes=self._blendshapes.array(),
            times=np.array(self.times),
            fps=fps,
            source_size=size,
            valid=np.array(self.found),
        )
