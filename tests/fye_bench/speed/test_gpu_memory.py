import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from fye_bench.speed import gpu_memory
from fye_bench.speed.gpu_memory import Allocations, Needs
from fye_export.random_checkpoint import PRESETS

ROOT = Path(__file__).resolve().parents[3]


def test_counted_memory_is_the_peak_of_live_tensors() -> None:
    x = torch.empty(1000, device="meta")  # 4 kB
    with Allocations() as allocations:
        allocations.know([x])
        first = x + 1
        second = first + 1  # two live
        del first
        third = second + 1  # two live again
        assert (allocations.now, allocations.peak) == (8000, 8000)
        del second, third
        assert (allocations.now, allocations.peak) == (0, 8000)


def test_views_and_operations_in_place_allocate_nothing() -> None:
    x = torch.empty(10, 100, device="meta")
    with Allocations() as allocations:
        allocations.know([x])
        x.add_(1)
        F.relu(x, inplace=True)
        x.view(100, 10).transpose(0, 1)
    assert allocations.peak == 0


@pytest.mark.slow
def test_activations_grow_with_the_frames_and_weights_do_not() -> None:
    few, many = (gpu_memory.needs(PRESETS["tiny"], (64, 64), frames) for frames in (4, 8))
    assert few.weights == many.weights
    assert many.peaks["denoiser"] == pytest.approx(2 * few.peaks["denoiser"], rel=0.1)
    assert few.peaks["reference"] == many.peaks["reference"]  # once per portrait
    assert many.peaks["vae_decoder"] == pytest.approx(2 * few.peaks["vae_decoder"], rel=0.1)  # 8 at once on a GPU


def test_low_memory_frees_the_reference_network_and_clip_before_denoising() -> None:
    weights = dict.fromkeys(("unet", "referencenet", "lmk_guider", "vae", "image_encoder"), 100)
    peaks = dict.fromkeys(("image_encoder", "vae_encoder", "reference", "guider", "denoiser", "vae_decoder"), 10)
    needs = Needs(weights, 0, peaks)
    allowance = 1 + gpu_memory.SLACK
    assert needs.all_open() == round(gpu_memory.CONTEXT + allowance * 520)
    assert needs.low_memory() == round(gpu_memory.CONTEXT + allowance * 220)


def test_the_committed_result_has_the_table_s_clips_and_the_released_weights() -> None:
    result = json.loads((ROOT / "bench/results/gpu_memory.json").read_text())
    clips = {(clip["size"], clip["frames"]) for clip in result["clips"]}
    assert clips >= {("512x512", frames) for frames in (8, 16, 24)}
    page = (ROOT / "docs/measurements/gpu-memory.md").read_text()
    for clip in result["clips"]:
        assert sum(clip["weights_bytes"].values()) == pytest.approx(2.56e9 * 2, rel=0.01)
        start = f"| {clip['size']}, {clip['frames']} frames |"
        row = next(line for line in page.splitlines() if line.startswith(start))
        for total in ("all_open_bytes", "low_memory_bytes"):
            assert f"{clip[total] / 2**30:.1f} GiB" in row


def test_the_memory_table_of_the_readme_shows_the_committed_result() -> None:
    result = json.loads((ROOT / "bench/results/gpu_memory.json").read_text())
    lines = (ROOT / "README.md").read_text().splitlines()
    clips = [clip for clip in result["clips"] if clip["size"] == "512x512"]
    assert len(clips) == 3
    for clip in clips:
        row = next(line for line in lines if line.startswith(f"| {clip['frames']} frames"))
        _, memory, low_memory, *cards = (cell.strip() for cell in row.strip("|").split("|"))
        assert memory == f"{clip['all_open_bytes'] / 2**30:.1f} GiB"
        assert low_memory == f"{clip['low_memory_bytes'] / 2**30:.1f} GiB"
        said = {"all_open": "fits", "low_memory": "`--low-memory`", "no": "no"}
        assert cards == [said[how] for how in clip["cards"].values()]
