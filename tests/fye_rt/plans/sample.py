"""A plan, its key, and what tests do to them."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fye_rt.errors import BackendError
from fye_rt.plans import PlanCache
from fye_rt.plans.key import PlanKey, profile

Values = dict[str, Any]

BUILD = "fye build BUNDLE --backend tensorrt"
CONTENT = bytes(range(256)) * 40
NEWER = CONTENT[::-1]
NOBODY = 65534
DAY = 24 * 3600
KEY = PlanKey(
    graph="denoiser",
    sm="sm_90",
    tensorrt="10.16.1.11",
    driver="580.65.06",
    onnx="3f" * 32,
    weights="a7" * 32,
    profile=profile(
        {
            "latents": [(2, 4, 1, 64, 64), (2, 4, 16, 64, 64), (2, 4, 32, 64, 64)],
            "timestep": [(), (), ()],
            "clip_key.0": [(1, 257, 320), (1, 257, 320), (1, 257, 320)],
        }
    ),
    precision="fp16",
    flags=("refit", "opt_level=3"),
)
# another value of each field, and what a message says of the two: of the plan that is there, and of the one asked for
OTHERS: dict[str, tuple[Any, str, str]] = {
    "graph": ("guider", "", "no plan of guider"),
    "sm": ("sm_120", "GPU architecture sm_90", "GPU architecture sm_120"),
    "tensorrt": ("11.4.0.106", "TensorRT 10.16.1.11", "TensorRT 11.4.0.106"),
    "driver": ("590.10", "driver 580.65.06", "driver 590.10"),
    "onnx": ("5b" * 32, "ONNX file 3f3f3f3f3f3f", "ONNX file 5b5b5b5b5b5b"),
    "weights": ("", "weights a7a7a7a7a7a7", "weights none"),
    "profile": (
        (("latents", ((2, 4, 1, 8, 8), (2, 4, 2, 8, 8), (2, 4, 3, 8, 8))), *KEY.profile[::2]),
        "shapes latents 2x4x1x64x64 to 2x4x32x64x64, most often 2x4x16x64x64",
        "shapes latents 2x4x1x8x8 to 2x4x3x8x8, most often 2x4x2x8x8",
    ),
    "precision": ("bf16", "precision fp16", "precision bf16"),
    "flags": (("strip_plan", "refit"), "flags opt_level=3 refit", "flags refit strip_plan"),
}


def other(field: str) -> PlanKey:
    return replace(KEY, **{field: OTHERS[field][0]})


def refusal(cache: PlanCache, key: PlanKey = KEY) -> str:
    with pytest.raises(BackendError) as caught:
        cache.open(key, BUILD)
    message = str(caught.value)
    assert "\n" not in message and BUILD in message and key.graph in message
    return message


def edit(folder: Path, change: Callable[[Values], object]) -> None:
    """Change plan.json."""
    values = json.loads((folder / "plan.json").read_text())
    change(values)
    (folder / "plan.json").write_text(json.dumps(values))


def hidden(cache: PlanCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir() if path.name.startswith("."))


def used_at(path: Path, age: float) -> None:
    moment = time.time() - age
    os.utime(path, (moment, moment))
