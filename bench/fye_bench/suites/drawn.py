"""The truth of a pair of drawn characters: drawn from seeds when it is asked for, and kept nowhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fye_bench.suites import manifest as given
from fye_rt.errors import InputError

if TYPE_CHECKING:
    from fye_bench.metrics.truth import Truth
    from fye_bench.suites.suite import Portrait, Suite
    from fye_rt.landmarks import Motion
    from fye_training.face import Placement
    from fye_training.identity import Identity


@dataclass(frozen=True, slots=True)
class DrawnTruth:
    """Which character, and where its head stands; with a driving motion, all that its frames follow from.

    Attributes:
        family: of the character, one of `fye_training.identity.FAMILIES`.
        identity: its seed.
        placement: seed of where the head stands in the portrait.
    """

    family: str
    identity: int
    placement: int

    @classmethod
    def parse(cls, where: str, value: Any) -> Self:
        """What a manifest says of it.

        Args:
            where: for messages.
            value: a JSON object.

        Raises:
            InputError: it is not valid.
        """
        from fye_training.identity import FAMILIES

        entry = given.fields(where, value, ("family", "identity", "placement"))
        if entry["family"] not in FAMILIES:
            raise InputError(
                f"{where} has the family {given.shown(entry['family'])}; give one of {', '.join(FAMILIES)}"
            )
        seeds = (given.number(f"the {key} of {where}", entry[key]) for key in ("identity", "placement"))
        return cls(entry["family"], *seeds)

    def entry(self) -> dict[str, Any]:
        """What a manifest says of it, the key "drawn" included."""
        return {"drawn": {"family": self.family, "identity": self.identity, "placement": self.placement}}

    def landmarks(self, size: tuple[int, int]) -> "Motion":
        """The portrait's landmarks, one frame: a neutral face that looks straight ahead.

        Args:
            size: height and width of the portrait in pixels.
        """
        from fye_training import face
        from fye_training.performance import resting

        who, place = self._character(size)
        return face.motion(who.shape, resting(1), size, place)

    def portrait(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The portrait, uint8 (H, W, 3)."""
        from fye_training.portrait import render

        return render(self._character(size)[0], self.landmarks(size), size)[0]

    def draw(self, size: tuple[int, int], driving: "Motion") -> "Truth":
        """What the portrait ought to show when a motion drives it, as the runtime retargets it.

        Args:
            size: height and width in pixels: the portrait's, or another of the same shape to draw it finer or coarser.
            driving: F frames, the same ones that drive the clip; the first of them anchors the head's position.

        Returns:
            F frames, for `fye_bench.metrics.judge.Judge`.

        Raises:
            InputError: the motion moves the face through the camera.
        """
        from fye_bench.metrics.expression import gaze_of
        from fye_bench.metrics.truth import Shown, Truth
        from fye_training import face
        from fye_training.portrait import render

        who, place = self._character(size)
        resting, moved = self.landmarks(size), face.transfer(who.shape, driving, size, place)
        before, after = (Shown.of(motion, size) for motion in (resting, moved))
        return Truth(
            who=who,
            portrait=render(who, resting, size)[0],
            frames=render(who, moved, size),
            portrait_face=before,
            face=after,
            gaze=np.concatenate((gaze_of(who.shape, before), gaze_of(who.shape, after))),
        )

    def _character(self, size: tuple[int, int]) -> "tuple[Identity, Placement]":
        from fye_training import face
        from fye_training.identity import identity

        who = identity(self.identity, self.family)
        return who, face.placement(who.shape, size, self.placement)


def drawn_otherwise(suite: "Suite") -> Iterator[str]:
    """A line for each family whose first drawn portrait this version of fye-rt draws otherwise than it is kept.

    The truth of such a suite belongs to other characters than its portraits show.
    """
    from fye_rt import media

    first: dict[str, tuple[DrawnTruth, Portrait]] = {}
    for pair in suite.pairs:
        if isinstance(pair.truth, DrawnTruth):
            first.setdefault(pair.truth.family, (pair.truth, pair.portrait))
    for truth, portrait in first.values():
        kept = media.read_image(portrait.file.path)
        if not np.array_equal(kept, truth.portrait((kept.shape[0], kept.shape[1]))):
            yield f"{portrait.file.path} is not what is drawn for it now; make the suite again with: fye suite drawn"
