"""Folders of runs, as an evaluation keeps them, with numbers that look like real ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_bench.evaluation.clips import write_clip
from fye_bench.metrics.statistics import groups, mean
from fye_rt import media

FAMILIES = ("people", "cartoon", "animal", "statue")
KINDS = ("talking", "exaggerated", "gaze", "head turns", "calm")
# name: mean, spread over pairs, and the part of the spread that is noise of one run
MEASURED = {
    "l1": (7.7, 2.0),
    "psnr": (24.3, 2.5),
    "ssim": (0.82, 0.06),
    "face_psnr": (23.2, 2.5),
    "face_ssim": (0.78, 0.05),
    "lpips": (0.14, 0.04),
    "identity_error": (8.1, 2.0),
    "portrait_error": (8.3, 2.0),
    "landmark_error": (3.1, 0.8),
    "blendshape_distance": (0.062, 0.015),
    "mouth_error": (0.014, 0.004),
    "mouth_correlation": (0.93, 0.04),
    "flicker": (0.93, 0.06),
    "temporal_error": (3.9, 1.2),
    "warp_error": (3.1, 0.9),
}
ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00", "fye_rt": "0.1.0", "python": "3.11.7", "platform": "Linux-6.1-x86_64",
    "cpu": {"model": "A processor", "cores": 2}, "memory_bytes": 16 * 10**9, "threads": 2, "commit": "0123456789abcdef",
    "packages": {"numpy": "2.3.5", "onnxruntime": "1.31.1", "torch": None},
}  # fmt: skip
OPTIONS = {
    "steps": 30, "guidance": 1.5, "seed": 0, "shared_noise": 1.0, "solver": "ddim", "compute": "fp32",
    "windows": "progressive", "window_size": 24, "window_overlap": 4, "forecast": {"method": "off"},
}  # fmt: skip
WITHOUT_TRUTH = ("landmark_error", "blendshape_distance", "warp_error")
MORE = ("psnr", "ssim", "face_psnr", "face_ssim", "mouth_correlation")

Image = NDArray[np.uint8]


def write_run(
    folder: Path,
    *,
    pairs: int = 20,
    worse: float = 0.0,
    noise: float = 0.002,
    failed: Mapping[int, str] | None = None,
    without_truth: Sequence[int] = (),
    seconds: float = 2.0,
    side: int = 32,
    frames: int = 3,
    pictures: bool = True,
    seed: int = 0,
    **about: Any,
) -> Path:
    """Write a run into a new folder; its pair n is of family n mod 4 and kind n mod 5.

    Every metric is worse by the share `worse`, and has a share `noise` of it drawn from `seed`; what else pairs have is
    the same in all runs. `failed` has errors by number of the pair; `about` replaces what results.json says of the run.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    rows = [_row(n, worse, noise, random, n not in without_truth, (failed or {}).get(n)) for n in range(pairs)]
    found = {"format": "fye-eval", "version": 1, **_found(rows, about, side, frames)}
    (folder / "results.json").write_text(json.dumps(found))
    costs = {row["pair"]: _cost(n, seconds) for n, row in enumerate(rows) if row["error"] is None}
    performance = {"environment": ENVIRONMENT, "pairs": costs, "summary": {}, "seconds": seconds * pairs}
    (folder / "performance.json").write_text(json.dumps(performance))
    for name in ("clips", "sheets"):
        (folder / name).mkdir()
    for n, row in enumerate(rows):
        if pictures and row["error"] is None:
            _keep(folder, n, row, side, frames, round(255 * worse) + seed % 2)
    return folder


def edit(folder: Path, change: Any, name: str = "results.json") -> None:
    path = folder / name
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def _found(rows: list[dict[str, Any]], about: dict[str, Any], side: int, frames: int) -> dict[str, Any]:
    run: dict[str, Any] = {
        "suite": {"name": "drawn faces", "digest": "5" * 64, "pairs": len(rows)},
        "bundle": {"digest": "b" * 64, "precision": "fp16", "name": "mini"},
        "backend": "onnxruntime",
        "options": OPTIONS,
        "frames": frames,
        "size": [side, side],
        "metrics": {"identity_model": None, "lpips": "1" * 64, "fvd": None},
    }
    good = [row for row in rows if row["error"] is None]
    summary = {
        group: {name: mean(np.array([good[i]["metrics"][name] for i in chosen], float).tolist()) for name in MEASURED}
        for group, chosen in groups(good).items()  # None becomes NaN
    }
    options = run["options"] | about.get("options", {})
    return {"run": run | about | {"options": options}, "pairs": rows, "summary": summary}


def _row(
    n: int, worse: float, noise: float, random: np.random.Generator, truth: bool, error: str | None
) -> dict[str, Any]:
    own = np.random.default_rng([1, n])
    hardness = own.normal()
    metrics: dict[str, float | None] = {}
    for name, (centre, spread) in MEASURED.items():
        off = 0.6 * hardness + 0.8 * own.normal()
        bad = (1 + worse) * (1 + noise * random.normal())
        value = centre - spread * off if name in MORE else centre + spread * off
        # the truth's flicker is 1, and these lie below
        value = value / bad if name in (*MORE, "flicker") else value * bad
        metrics[name] = value if truth or name in WITHOUT_TRUTH else None
    if n % 5 == 4:
        metrics["mouth_correlation"] = None  # the mouth of a still face never moves
    family, kind = FAMILIES[n % 4], KINDS[n % 5]
    portrait, motion = f"{family}-{n:02}", f"{kind.replace(' ', '-')}-{n % 7}"
    mode, known = ("self", "drawn") if truth else ("cross", "none")
    pair = {"pair": f"{portrait}--{motion}", "portrait": portrait, "motion": motion, "family": family, "kind": kind}
    made = {"frames": None, "evaluations": None, "metrics": {}} if error else {"frames": 3, "evaluations": 30}
    return pair | {"mode": mode, "truth": known} | {"metrics": metrics} | made | {"error": error}


def _cost(n: int, seconds: float) -> dict[str, Any]:
    shares = {"encode_portrait": 0.1, "encode_motion": 0.05, "denoise": 0.7, "decode": 0.15}
    spent = {stage: share * seconds * (1 + 0.01 * (n % 3)) for stage, share in shares.items()}
    return {"seconds": spent | {"measure": 1.25}, "peak_memory_bytes": 500_000_000 + n * 1000}


def _keep(folder: Path, n: int, row: Mapping[str, Any], side: int, frames: int, off: int) -> None:
    ramp = np.linspace(40 + n % 50, 200, side).astype(np.uint8)
    across = np.tile(ramp, (side, 1))
    portrait = np.stack((across, across.T, np.full_like(across, 90)), axis=-1)
    clip = np.stack([np.roll(portrait, k + 1, axis=1) for k in range(frames)])
    made = np.clip(clip.astype(np.int16) + off, 0, 255).astype(np.uint8)
    write_clip(folder / "clips" / f"{row['pair']}.mkv", made, 8)
    truth = row["truth"] != "none"
    blank = np.zeros_like(portrait)
    columns = [np.concatenate((portrait, blank, blank) if truth else (portrait, blank))]
    for true, one in zip(clip, made, strict=True):
        columns.append(np.concatenate((255 - true, true, one) if truth else (255 - true, one)))
    media.write_image(folder / "sheets" / f"{row['pair']}.jpg", np.concatenate(columns, axis=1))
