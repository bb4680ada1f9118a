"""Quality against evaluations and against time, drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fye_bench.quality.lossless import CONTROLS


def draw_front(path: Path, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Distance to the full run, and SSIM against the truth, over evaluations and over speed.

    Args:
        path: .png or .svg.
        methods: by name, rows as `fye_bench.quality.lossless.summarise` gives them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 10), layout="constrained")
    rows = (
        ("distance to the full run, dB", lambda row: row["distance"]["mean"]),
        ("change of SSIM against the truth, %", lambda row: _relative(row, "ssim")),
    )
    columns = (
        ("network evaluations", lambda row: row["evaluations"]),
        ("speed of the denoising loop, full run = 1", lambda row: row["speedup"]),
    )
    axes = figure.subplots(2, 2, sharey="row")
    for i, (y_label, y) in enumerate(rows):
        for j, (x_label, x) in enumerate(columns):
            axis = axes[i][j]
            for number, (method, points) in enumerate(methods.items()):
                style = "--" if method in CONTROLS else "-"
                marker = "osD^v<>*PX"[number // 10 + number % 10]
                values = [(x(row), y(row)) for row in points]
                axis.plot(*zip(*values, strict=True), style, marker=marker, markersize=4, label=method)
            axis.set(xlabel=x_label, ylabel=y_label if j == 0 else "")
            axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)


def _relative(row: Mapping[str, Any], metric: str) -> float:
    estimate = row["change"][metric]
    return 100.0 * float(estimate["mean"]) / abs(float(estimate["of"]))
