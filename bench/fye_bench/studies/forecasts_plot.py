"""Plot of quality over network evaluations and over speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fye_bench.studies.lossless import CONTROLS, MOST_WORSE

_OURS = "calibrated"
_LEAST = 5e-4  # smaller values are drawn here: a logarithmic axis has no zero


def draw_front(path: Path, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the distance to the full run, and the worst metric against the truth, over evaluations and over speed.

    Args:
        path: .png or .svg.
        methods: rows of each method, from `fye_bench.studies.lossless.summarise`.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 10), layout="constrained")
    rows = (
        ("distance to the full run, dB", lambda row: row["distance"]["mean"]),
        ("worst metric, worse end of its interval, %", lambda row: 100 * max(row["worst"]["relative"], _LEAST)),
    )
    columns = (
        ("network evaluations", lambda row: row["evaluations"]),
        ("speed of the denoising loop, full run = 1", lambda row: row["speedup"]),
    )
    axes = figure.subplots(2, 2, sharey="row")
    colours = [colormaps["tab20"](number) for number in (*range(0, 20, 2), *range(1, 20, 2))]
    for i, (y_label, y) in enumerate(rows):
        for j, (x_label, x) in enumerate(columns):
            axis = axes[i][j]
            for number, (method, points) in enumerate(methods.items()):
                style = "--" if method in CONTROLS else "-"
                marker = "osD^v<>*PX"[number // 10 + number % 10]
                width = 3 if method == _OURS else 1.3
                look = {"color": colours[number % len(colours)], "marker": marker, "markersize": 4, "linewidth": width}
                axis.plot([x(row) for row in points], [y(row) for row in points], style, label=method, **look)
            axis.set(xlabel=x_label, ylabel=y_label if j == 0 else "")
            axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_yscale("log")
        axis.axhline(100 * MOST_WORSE, color="black", linestyle=":", linewidth=1)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)
