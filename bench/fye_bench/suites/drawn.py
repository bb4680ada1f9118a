"""The truth of a pair of drawn characters: drawn from seeds on demand, and stored nowhere."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_serializer

from fye_bench.json_input import Strict, condition
from fye_bench.suites.manifest import Seed
from fye_training.drawing.character import FAMILIES

if TYPE_CHECKING:
    from fye_bench.metrics.truth import Truth
    from fye_rt.landmarks import Motion
    from fye_training.face import Placement
    from fye_training.identity import Identity


class DrawnTruth(Strict):
    """A character and the place of its head. With a driving motion, all frames follow from these.

    Attributes:
        family: family of the character, one of `fye_training.identity.FAMILIES`.
        identity: seed of the character.
        placement: seed of the head's place in the portrait.
    """

    family: Annotated[str, condition(FAMILIES.__contains__, f"give one of {', '.join(FAMILIES)}")]
    identity: Seed
    placement: Seed

    @model_serializer
    def entry(self) -> dict[str, Any]:
        """Return the truth as a manifest holds it."""
        return {"drawn": dict(self)}

    def landmarks(self, size: tuple[int, int]) -> "Motion":
        """Return the portrait's landmarks, one frame: a neutral face that looks straight ahead.

        Args:
            size: height and width of the portrait in pixels.
        """
        from fye_training import face
        from fye_training.performance import resting

        character, place = self._character(size)
        return face.motion(character.shape, resting(1), size, place)

    def portrait(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Draw the portrait, uint8 (H, W, 3)."""
        from fye_training.portrait import render

        return render(self._character(size)[0], self.landmarks(size), size)[0]

    def draw(self, size: tuple[int, int], driving: "Motion") -> "Truth":
        """Draw what the clip should show when a motion drives the portrait, as the runtime retargets the motion.

        Args:
            size: height and width in pixels: the portrait's, or another size of the same aspect ratio.
            driving: the F frames that drive the clip; the first frame anchors the head's position.

        Returns:
            F frames, for `fye_bench.metrics.judge.Judge`.

        Raises:
            InputError: the motion moves the face through the camera.
        """
        from fye_bench.metrics.expression import gaze_of
        from fye_bench.metrics.truth import Shown, Truth
        from fye_training import face
        from fye_training.portrait import render

        character, place = self._character(size)
        resting, moved = self.landmarks(size), face.transfer(character.shape, driving, size, place)
        before, after = (Shown.of(motion, size) for motion in (resting, moved))
        return Truth(
            character=character,
            portrait=render(character, resting, size)[0],
            frames=render(character, moved, size),
            portrait_face=before,
            face=after,
            gaze=np.concatenate((gaze_of(character.shape, before), gaze_of(character.shape, after))),
        )

    def _character(self, size: tuple[int, int]) -> "tuple[Identity, Placement]":
        from fye_training import face
        from fye_training.identity import identity

        character = identity(self.identity, self.family)
        return character, face.placement(character.shape, size, self.placement)
