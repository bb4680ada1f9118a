"""What is measured of a clip: one table of all metrics, for everything that reports them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

LEVELS = "of 255"
# metrics are reported in these groups, in this order
SECTIONS = {
    "picture": "Distance to the truth",
    "identity": "Identity",
    "motion": "Motion",
    "expression": "Expression",
    "steadiness": "Steadiness",
}
_EXPRESSIONS = {
    "eyes": "how far the lids are open",
    "gaze": "where the eyes look",
    "brows": "how high the brows are",
    "mouth": "how far the mouth is open",
    "lips": "how wide the mouth is, and how much it smiles",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about a clip.

    Attributes:
        name: in files.
        label: for people.
        section: one of SECTIONS.
        unit: of its values; empty for a plain number.
        decimals: that mean something.
        better: "less", "more", or "one": the truth has 1, and either side of it is worse.
        explanation: in one sentence.
    """

    name: str
    label: str
    section: str
    unit: str
    decimals: int
    better: str
    explanation: str

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "nearer to 1 is better" if self.better == "one" else f"{self.better} is better"

    def badness(self, value: float) -> float:
        """A number that grows as the metric gets worse, in the metric's unit; NaN stays NaN."""
        if self.better == "one":
            return abs(value - 1)
        return -value if self.better == "more" else value

    def text(self, value: float | None, sign: str = "", more: int = 0) -> str:
        """A value as it is printed; "-" if there is none.

        Args:
            value: in the metric's unit.
            sign: "+" to print that of positive numbers too.
            more: decimals than of the metric itself: differences need them.
        """
        if value is None or not math.isfinite(value):
            return "-"
        shown = f"{value:{sign}.{self.decimals + more}f}"
        return shown.replace("-", "+" if sign else "", 1) if float(shown) == 0 else shown


_ALL = (
    Metric("l1", "L1", "picture", LEVELS, 2, "less", "Mean absolute difference to the true frames."),
    Metric("psnr", "PSNR", "picture", "dB", 2, "more", "Peak signal-to-noise ratio to the true frames."),
    Metric("ssim", "SSIM", "picture", "", 3, "more", "Structural similarity to the true frames."),
    Metric("face_l1", "face L1", "picture", LEVELS, 2, "less", "L1 inside of the face."),
    Metric("face_psnr", "face PSNR", "picture", "dB", 2, "more", "PSNR inside of the face."),
    Metric("face_ssim", "face SSIM", "picture", "", 3, "more", "SSIM inside of the face."),
    Metric("lpips", "LPIPS", "picture", "", 3, "less", "Perceptual distance to the true frames, by AlexNet."),
    Metric("fvd", "FVD", "picture", "", 1, "less", "Fréchet distance between the features of made and true videos."),
    Metric(
        "identity_error",
        "identity error",
        "identity",
        LEVELS,
        2,
        "less",
        "Difference of the textures under the true face in the made and in the true frames.",
    ),
    Metric(
        "portrait_error",
        "portrait error",
        "identity",
        LEVELS,
        2,
        "less",
        "Difference of the face's texture to the portrait's.",
    ),
    Metric(
        "identity_cosine",
        "identity cosine",
        "identity",
        "",
        3,
        "more",
        "Cosine between a face-recognition network's features of the made frames and of the portrait.",
    ),
    Metric(
        "landmark_error",
        "landmark error",
        "motion",
        "%",
        2,
        "less",
        "Distance of the landmarks found in the made frames to those that drive them, of the distance of the "
        "eyes' outer corners in the portrait.",
    ),
    Metric(
        "blendshape_distance",
        "blendshape distance",
        "motion",
        "",
        3,
        "less",
        "Mean difference of the changes of MediaPipe's expression weights in the made and in the driving frames.",
    ),
    Metric("faces_found", "faces found", "motion", "", 3, "more", "Share of the made frames in which a face is found."),
    *(
        Metric(
            f"{group}_error",
            f"{group} error",
            "expression",
            "",
            3,
            "less",
            f"Mean error of what is read of the expression: {what}.",
        )
        for group, what in _EXPRESSIONS.items()
    ),
    *(
        Metric(
            f"{group}_correlation",
            f"{group} correlation",
            "expression",
            "",
            3,
            "more",
            f"Correlation over the frames of what is read with the truth: {what}.",
        )
        for group, what in _EXPRESSIONS.items()
    ),
    Metric(
        "flicker",
        "flicker",
        "steadiness",
        "truth 1",
        2,
        "one",
        "Change from frame to frame over the true frames' change: 0 stands still, above 1 flickers.",
    ),
    Metric(
        "temporal_error",
        "temporal error",
        "steadiness",
        LEVELS,
        2,
        "less",
        "Difference of the changes from frame to frame of the made and of the true frames.",
    ),
    Metric(
        "true_warp_error",
        "true warp error",
        "steadiness",
        LEVELS,
        2,
        "less",
        "Difference of each made frame to the one before it, moved as the true frames move.",
    ),
    Metric(
        "warp_error",
        "warp error",
        "steadiness",
        LEVELS,
        2,
        "less",
        "Difference of each made frame to the one before it, moved by its own optical flow; a picture that "
        "stands still has 0.",
    ),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
# what a report opens with: the first of each row that was measured
HEADLINES = (
    ("psnr",),
    ("lpips", "ssim"),
    ("identity_cosine", "identity_error", "portrait_error"),
    ("landmark_error", "mouth_error"),
    ("blendshape_distance", "eyes_error"),
    ("warp_error", "flicker"),
)
