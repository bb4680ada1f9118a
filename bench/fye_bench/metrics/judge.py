"""All metrics of a clip whose truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.expression import GROUPS, expression_of, readable
from fye_bench.metrics.images import distances, steadiness
from fye_bench.metrics.statistics import Estimate, correlation, mean, paired, paired_correlation
from fye_bench.metrics.texture import texture_error
from fye_bench.metrics.truth import Image, Shown, Truth
from fye_rt.errors import InputError
from fye_training.masks import face_mask
from fye_training.topology import Array


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Measurements of one clip.

    Attributes:
        numbers: value of each metric; NaN where it does not apply.
        truth: float64 (F, 9), the true change of expression since the portrait.
        read: float64 (F, 9), the change read from the frames.
        seen: bool (F, 9), quantities visible in the true frames.
    """

    numbers: Mapping[str, float]
    truth: Array
    read: Array
    seen: NDArray[np.bool_]

    def columns(self, group: str) -> tuple[Array, Array]:
        """Return the true and the read values of one of GROUPS where they are visible."""
        seen = self.seen[:, GROUPS[group]]
        return self.truth[:, GROUPS[group]][seen], self.read[:, GROUPS[group]][seen]


class Judge:
    """Compares clips with the drawn truth, on the CPU and deterministically."""

    def __init__(self) -> None:
        # imported here because it imports PyTorch, which making clips does not need
        from fye_bench.metrics.expression_reader import ExpressionReader

        self._reader = ExpressionReader.load()

    def compare(self, drawn: Truth, generated: Image, face: Shown | None = None) -> Scores:
        """Measure a clip.

        Expressions are changes since the portrait, of the true mesh and of the reader's view of the generated frames;
        so its misreading of a character's face at rest doesn't count.

        `identity_error` is the difference of the textures under the true mesh in the generated and in the true frames;
        `portrait_error` compares them with the portrait's.

        Args:
            drawn: the truth.
            generated: uint8 (F, H, W, 3).
            face: face in `generated`; by default the true one.

        Raises:
            InputError: `generated` differs from the true frames in shape.
        """
        if generated.shape != drawn.frames.shape or generated.dtype != np.uint8:
            frames = f"{generated.dtype} {generated.shape}"
            raise InputError(f"{drawn}: frames are {frames}; give uint8 {drawn.frames.shape}")
        face = drawn.face if face is None else face
        shape = drawn.character.shape
        mesh = np.concatenate((drawn.portrait_face.mesh, drawn.face.mesh))
        absolute = expression_of(shape, mesh, drawn.gaze)
        truth, seen = absolute[1:] - absolute[0], readable(shape, absolute[1:], drawn.face)
        rest = self._reader.read(drawn.portrait[None], shape, drawn.portrait_face)
        read = self._reader.read(generated, shape, face) - rest
        numbers = distances(generated, drawn.frames, face_mask(drawn.face.points, drawn.face.size))
        numbers |= steadiness(generated, drawn.frames)
        numbers["identity_error"] = texture_error(generated, drawn.face, drawn.frames, drawn.face)
        portrait = np.broadcast_to(drawn.portrait, generated.shape)
        numbers["portrait_error"] = texture_error(generated, face, portrait, drawn.portrait_face.still(len(generated)))
        for group, columns in GROUPS.items():
            visible = seen[:, columns]
            off = np.abs(read - truth)[:, columns][visible]
            numbers[f"{group}_error"] = float(off.mean()) if len(off) else float("nan")
        return Scores(numbers, truth, read, seen)

    def copied(self, drawn: Truth) -> Scores:
        """Measure the lower anchor: the portrait, standing still.

        Its expression and its `portrait_error` are measured where its face is: at rest, and of the very same
        character. `identity_error` unwraps it where its face should be.
        """
        frames = len(drawn)
        return self.compare(drawn, np.repeat(drawn.portrait[None], frames, axis=0), drawn.portrait_face.still(frames))

    def true(self, drawn: Truth) -> Scores:
        """Measure the upper anchor: the true frames; its expression errors are the reader's own."""
        return self.compare(drawn, drawn.frames)


def summarise(scores: Sequence[Scores]) -> dict[str, Estimate]:
    """Return means over one or more clips with 95 % intervals, and correlations over all their frames."""
    summary = {name: mean([score.numbers[name] for score in scores]) for name in scores[0].numbers}
    for group in GROUPS:
        truth, read = zip(*(score.columns(group) for score in scores), strict=True)
        summary[f"{group}_correlation"] = correlation(truth, read)
    return summary


def change(scores: Sequence[Scores], others: Sequence[Scores]) -> dict[str, Estimate]:
    """Compare every metric with another run's, case by case, with 95 % intervals.

    Args:
        scores: measurements of this run.
        others: measurements of the other run, of the same cases in the same order.
    """
    changes = {
        name: paired([score.numbers[name] for score in scores], [other.numbers[name] for other in others])
        for name in scores[0].numbers
    }
    for group in GROUPS:
        truth, read = zip(*(score.columns(group) for score in scores), strict=True)
        changes[f"{group}_correlation"] = paired_correlation(truth, read, [other.columns(group)[1] for other in others])
    return changes
