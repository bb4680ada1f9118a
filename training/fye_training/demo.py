"""Draw the inputs of `fye demo`: a held-out character of each family, and landmarks of an exaggerated motion.

python -m fye_training.demo engines/bundles/demo
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from fye_rt import media
from fye_rt.errors import FyeError, OutputError
from fye_rt.landmarks import landmark_images
from fye_training import face
from fye_training.identity import held_out, identity
from fye_training.performance import perform
from fye_training.portrait import render

SIZE = (192, 192)
FRAMES, STRIDE = 16, 3  # every third of 25 frames a second
CHARACTERS = {"people": 300_000, "cartoons": 300_000, "sculptures": 300_004, "animals": 300_006}
FIRST_MOTION = 2**31  # seeds of motions from here on are held out of training


def write(folder: Path) -> None:
    """Write FAMILY/portrait.png, and FAMILY/landmarks/00.png to 15.png, retargeted and drawn by the runtime.

    Raises:
        OutputError: the folder cannot be written.
    """
    for family, number in CHARACTERS.items():
        character, seed = identity(held_out(number), family), FIRST_MOTION + number
        place = face.placement(character.shape, SIZE, seed)
        acting = perform(seed, FRAMES * STRIDE + 1, "exaggerated")[::STRIDE]
        motion = face.motion(character.shape, acting, SIZE, place)
        landmarks = folder / family / "landmarks"
        try:
            landmarks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {landmarks} ({error.strerror}); choose another") from error
        media.write_image(folder / family / "portrait.png", render(character, motion[:1], SIZE)[0])
        for k, image in enumerate(landmark_images(motion[:1], motion[1:], SIZE)):
            media.write_image(landmarks / f"{k:02}.png", image)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit code."""
    if len(arguments) != 1:
        print("usage: python -m fye_training.demo FOLDER", file=sys.stderr)
        return 2
    try:
        write(Path(arguments[0]))
    except FyeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
