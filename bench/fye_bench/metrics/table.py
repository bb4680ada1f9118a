"""The table of all metrics of a clip: names, labels, units and explanations for every report."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

LEVELS = "of 255"
# metrics are reported in these groups, in this order
SECTIONS = {
    "picture": "Distance to the truth",
    "identity": "Identity",
    "motion": "Motion",
    "expression": "Expression",
    "steadiness": "Steadiness",
}
_ACRONYMS = ("l1", "psnr", "ssim", "lpips", "fvd")
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
        name: name in files.
        label: name in reports.
        section: one of SECTIONS.
        unit: unit of the values; empty for a plain number.
        decimals: significant decimals.
        better: "less", "more", or "one": the truth has 1, and values on either side are worse.
        explanation: one sentence.
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
        """The better direction, in words."""
        return "nearer to 1 is better" if self.better == "one" else f"{self.better} is better"

    def badness(self, value: float) -> float:
        """Return a number that grows as the metric gets worse, in the metric's unit; NaN stays NaN."""
        if self.better == "one":
            return abs(value - 1)
        return -value if self.better == "more" else value

    def text(self, value: float | None, sign: str = "", more: int = 0) -> str:
        """Format a value for print; "-" stands for a missing one.

        Args:
            value: value in the metric's unit.
            sign: "+" to sign positive numbers too.
            more: decimals beyond the metric's own, which differences need.
        """
        if value is None or not math.isfinite(value):
            return "-"
        shown = f"{value:{sign}.{self.decimals + more}f}"
        return shown.replace("-", "+" if sign else "", 1) if float(shown) == 0 else shown


def _metric(name: str, section: str, explanation: str, unit: str, decimals: int, better: str) -> Metric:
    label = " ".join(word.upper() if word in _ACRONYMS else word for word in name.split("_"))
    return Metric(name, label, section, unit, decimals, better, explanation)


_levels = partial(_metric, unit=LEVELS, decimals=2, better="less")
_score = partial(_metric, unit="", decimals=3, better="more")
_loss = partial(_metric, unit="", decimals=3, better="less")
_ALL = (
    _levels("l1", "picture", "Mean absolute difference from the true frames."),
    _metric("psnr", "picture", "Peak signal-to-noise ratio to the true frames.", "dB", 2, "more"),
    _score("ssim", "picture", "Structural similarity to the true frames."),
    _levels("face_l1", "picture", "L1 inside the face."),
    _metric("face_psnr", "picture", "PSNR inside the face.", "dB", 2, "more"),
    _score("face_ssim", "picture", "SSIM inside the face."),
    _loss("lpips", "picture", "Perceptual distance to the true frames, by AlexNet."),
    _metric("fvd", "picture", "Fréchet distance between the features of generated and true videos.", "", 1, "less"),
    _levels(
        "identity_error", "identity", "Difference of the texture under the true face from that of the true frames."
    ),
    _levels("portrait_error", "identity", "Difference of the face's texture from the portrait's."),
    _score("identity_cosine", "identity", "Cosine between face-recognition features of the frames and the portrait."),
    _metric(
        "landmark_error",
        "motion",
        "Distance of the landmarks found in the generated frames to those that drive them, relative to the distance "
        "between the eyes' outer corners in the portrait.",
        "%",
        2,
        "less",
    ),
    _loss(
        "blendshape_distance",
        "motion",
        "Mean difference of the changes of MediaPipe's expression weights in the generated and in the driving frames.",
    ),
    _score("faces_found", "motion", "Share of the generated frames in which a face is found."),
    *(
        _loss(f"{group}_error", "expression", f"Mean error of the expression read from the frames: {meaning}.")
        for group, meaning in _EXPRESSIONS.items()
    ),
    *(
        _score(
            f"{group}_correlation",
            "expression",
            f"Correlation over the frames of the expression read with the true one: {meaning}.",
        )
        for group, meaning in _EXPRESSIONS.items()
    ),
    _metric(
        "flicker",
        "steadiness",
        "Change between frames over the true frames' change: 0 stands still, above 1 flickers.",
        "truth 1",
        2,
        "one",
    ),
    _levels(
        "temporal_error", "steadiness", "Difference of the frame-to-frame changes of the generated and the true frames."
    ),
    _levels(
        "true_warp_error",
        "steadiness",
        "Difference of each generated frame from the one before, moved as the true frames move.",
    ),
    _levels(
        "warp_error",
        "steadiness",
        "Difference of each generated frame from the one before it, moved by its optical flow; 0 for a still picture.",
    ),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
# metrics at the top of a report: the first measured one of each row
HEADLINES = (
    ("psnr",),
    ("lpips", "ssim"),
    ("identity_cosine", "identity_error", "portrait_error"),
    ("landmark_error", "mouth_error"),
    ("blendshape_distance", "eyes_error"),
    ("warp_error", "flicker"),
)
