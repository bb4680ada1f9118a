"""All metrics of a clip whose truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from fye_bench.metrics.expression_reader import ExpressionReader


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What was found of one clip.

    Attributes:
        numbers: by metric; NaN where a clip has none.
        truth: float64 (F, 9), the true change of expression since the portrait.
        read: float64 (F, 9), the change that was read.
        seen: bool (F, 9), what can be seen of it in the true frames.
    """

    numbers: Mapping[str, float]
    truth: Array
    read: Array
    seen: NDArray[np.bool_]

    def correlation(self, group: str) -> float:
        """Of one of GROUPS over this clip's frames; NaN where the truth stands still."""
        value = correlation(*([column] for column in self.columns(group)))["mean"]
        return float("nan") if value is None else float(value)

    def columns(self, group: str) -> tuple[Array, Array]:
        """True and read values of one of GROUPS, of all that can be seen."""
        seen = self.seen[:, GROUPS[group]]
        return self.truth[:, GROUPS[group]][seen], self.read[:, GROUPS[group]][seen]


class Judge:
    """Compares clips with what was drawn; CPU only, the same numbers every time.

    Args:
        reader: of expressions; by default the package's own.
    """

    def __init__(self, reader: "ExpressionReader | None" = None) -> None:
        # here, because PyTorch comes with it, and what only makes clips needs no PyTorch
        from fye_bench.metrics.expression_reader import ExpressionReader

        self._reader = reader or ExpressionReader.load()

    def compare(self, drawn: Truth, made: Image, face: Shown | None = None) -> Scores:
        """Measure a clip.

        Expressions are changes since the portrait: of the true mesh, and of what the reader sees in the made frames
        and in the portrait; so whatever it misreads of a character's face at rest doesn't count.

        `identity_error` is the difference of the textures that lie under the true mesh in the made and in the true
        frames; `portrait_error` compares them with the portrait's.

        Args:
            drawn: the truth.
            made: uint8 (F, H, W, 3).
            face: where the face is in `made`; by default where it ought to be.

        Raises:
            InputError: `made` has another shape than the true frames.
        """
        if made.shape != drawn.frames.shape or made.dtype != np.uint8:
            raise InputError(f"{drawn}: frames are {made.dtype} {made.shape}; give uint8 {drawn.frames.shape}")
        face = drawn.face if face is None else face
        shape = drawn.who.shape
        mesh = np.concatenate((drawn.portrait_face.mesh, drawn.face.mesh))
        absolute = expression_of(shape, mesh, drawn.gaze)
        truth, seen = absolute[1:] - absolute[0], readable(shape, absolute[1:], drawn.face)
        rest = self._reader.read(drawn.portrait[None], shape, drawn.portrait_face)
        read = self._reader.read(made, shape, face) - rest
        numbers = distances(made, drawn.frames, face_mask(drawn.face.points, drawn.face.size))
        numbers |= steadiness(made, drawn.frames)
        numbers["identity_error"] = texture_error(made, drawn.face, drawn.frames, drawn.face)
        portrait = np.broadcast_to(drawn.portrait, made.shape)
        numbers["portrait_error"] = texture_error(made, face, portrait, drawn.portrait_face.still(len(made)))
        for group, columns in GROUPS.items():
            visible = seen[:, columns]
            off = np.abs(read - truth)[:, columns][visible]
            numbers[f"{group}_error"] = float(off.mean()) if len(off) else float("nan")
        return Scores(numbers, truth, read, seen)

    def copied(self, drawn: Truth) -> Scores:
        """The lower anchor: the portrait, standing still.

        Its expression, and its texture in comparison to the portrait's, are looked for where its face is: those of a
        face at rest, and of the very same character. `identity_error` unwraps it where its face should be.
        """
        frames = len(drawn)
        return self.compare(drawn, np.repeat(drawn.portrait[None], frames, axis=0), drawn.portrait_face.still(frames))

    def true(self, drawn: Truth) -> Scores:
        """The upper anchor: the true frames; its expression errors are the reader's own."""
        return self.compare(drawn, drawn.frames)


def summarise(scores: Sequence[Scores]) -> dict[str, Estimate]:
    """Means over clips with 95 % intervals, and correlations over all their frames.

    Args:
        scores: of some clips, one or more.
    """
    summary = {name: mean([score.numbers[name] for score in scores]) for name in scores[0].numbers}
    for group in GROUPS:
        truth, read = zip(*(score.columns(group) for score in scores), strict=True)
        summary[f"{group}_correlation"] = correlation(truth, read)
    return summary


def change(scores: Sequence[Scores], others: Sequence[Scores]) -> dict[str, Estimate]:
    """How every metric differs from another run's, case by case, with 95 % intervals.

    Args:
        scores: of this run.
        others: of the other one, of the same cases in the same order.
    """
    pairs = list(zip(scores, others, strict=True))
    found = {
        name: paired([one.numbers[name] for one, _ in pairs], [other.numbers[name] for _, other in pairs])
        for name in scores[0].numbers
    }
    for group in GROUPS:
        truth, read = zip(*(one.columns(group) for one, _ in pairs), strict=True)
        found[f"{group}_correlation"] = paired_correlation(truth, read, [other.columns(group)[1] for _, other in pairs])
    return found
