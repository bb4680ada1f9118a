"""Follow a face through the frames of a video: in the whole frame while it is large, else in a square around it.

A square stays where it is until the face nears its edge, so that a face that stays put is always seen in the same one.
"""

from dataclasses import dataclass, replace

import numpy as np

from fye_rt.landmarks.geometry import Face, FaceGeometry
from fye_rt.landmarks.search import FaceChoice, choose_face, every_face, search
from fye_rt.landmarks.square import Image, Look, Square, is_exact, nearest, same

KEEP_FACE = 1.5  # another face must be this many times as large as the followed one to take its place
PATIENCE = 0.4  # seconds without the face before a search for it, and between searches; half a second is bridged
VIDEO_TILES, LIVE_TILES = 150, 24  # looks of one search: 0.4 s and 0.06 s on a core


@dataclass(slots=True)
class Follower:
    """Finds one person's face in frame after frame.

    Attributes:
        look: finds the faces in a picture.
        geometry: the canonical face.
        face: which of several faces, as for `choose_face`. The choice is made where none is followed, at first and
            after 0.4 s without the face; "largest" also changes to a face 1.5 times as large.
        searching: whether small and turned faces are searched for.
        first_tiles: number of squares of the first search; None for as many as faces of 32 pixels take.
        tiles: number of squares of each later search.
        most: the most faces seen in one frame.
        side: smallest square of the searches, in pixels; 0 before the first.
    """

    look: Look
    geometry: FaceGeometry
    face: FaceChoice = "largest"
    searching: bool = True
    first_tiles: int | None = None
    tiles: int = VIDEO_TILES
    most: int = 0
    side: int = 0
    _followed: Face | None = None
    _square: Square | None = None
    _seen: float = -np.inf  # seconds
    _searched: float = -np.inf

    def step(self, time: float, image: Image) -> tuple[Face | None, int]:
        """Return the face in a frame, or None, and the number of faces seen there."""
        size = image.shape[0], image.shape[1]
        faces = self.look(image)
        chosen = self._known(faces, size)
        if self.searching and not (chosen and is_exact(chosen, size)):
            tracked = self._tracked(image)
            if tracked:
                faces = [*(face for face in faces if not same(face, tracked, size)), tracked]
                chosen = self._known(faces, size)
            elif chosen is None and self._is_due(time, faces):
                faces = self._search(time, image, faces)
                chosen = self._chosen_anew(faces, size)
            if chosen and chosen is not tracked and not is_exact(chosen, size):
                self._square = Square.around(chosen, size).quartered()
                chosen = nearest(self._square.faces(image, self.look), chosen, size) or chosen
        elif not self.searching and chosen is None and self._is_lost(time):
            chosen = self._chosen_anew(faces, size)
        if chosen:
            self._followed, self._seen = chosen, time
            self._square = self._square and self._square.following(chosen, size)
        self.most = max(self.most, len(faces))
        return chosen, len(faces)

    def _known(self, faces: list[Face], size: tuple[int, int]) -> Face | None:
        """Return the followed face, or the one that takes its place."""
        if self.face == "largest":
            return largest(faces, self._followed, size)
        return None if self._followed is None else nearest(faces, self._followed, size)

    def _chosen_anew(self, faces: list[Face], size: tuple[int, int]) -> Face | None:
        if not faces or (isinstance(self.face, int) and not 1 <= self.face <= len(faces)):
            return None
        if self.face == "largest":
            return largest(faces, self._followed, size)
        return faces[choose_face([points for points, _ in faces], self.face, size)]

    def _tracked(self, image: Image) -> Face | None:
        """Look for the followed face around its last place, and if it is not there, further around."""
        if self._followed is None:
            return None
        size = image.shape[0], image.shape[1]
        self._square = self._square or Square.around(self._followed, size).quartered()
        for square in (self._square, replace(self._square, side=2.0 * self._square.side)):
            if face := nearest(square.faces(image, self.look), self._followed, size):
                return face
        return None

    def _is_lost(self, time: float) -> bool:
        return self._followed is None or time - self._seen >= PATIENCE - 1e-6

    def _is_due(self, time: float, faces: list[Face]) -> bool:
        """Return whether to search now: only now and then, but at once where the first faces of a video appear."""
        return self._is_lost(time) and (time - self._searched >= PATIENCE - 1e-6 or bool(faces and not self.most))

    def _search(self, time: float, image: Image, faces: list[Face]) -> list[Face]:
        first = np.isinf(self._searched)
        self._searched = time
        if not faces:
            sought = search(image, self.look, self.geometry, self.first_tiles if first else self.tiles)
            faces, self.side = sought.faces, max(sought.side, self.side)
        return every_face(image, self.look, self.geometry, faces) if faces and self.face != "largest" else faces


def largest(faces: list[Face], followed: Face | None, size: tuple[int, int]) -> Face | None:
    """Return the largest face by bounding box in pixels; the followed face counts 1.5 times.

    Without this bonus, two people at the same distance would take turns from frame to frame.
    """

    def weight(face: Face) -> float:
        low, high = face[0][:, :2].min(axis=0), face[0][:, :2].max(axis=0)
        area = float(np.prod((high - low) * size[::-1]))
        if followed is None:
            return area
        centre = (low + high) / 2.0
        inside = (followed[0][:, :2].min(axis=0) <= centre) & (centre <= followed[0][:, :2].max(axis=0))
        return area * KEEP_FACE if inside.all() else area

    return max(faces, key=weight, default=None)
