from typing import Any

import numpy as np
import pytest

from fye_rt import Bundle
from fye_rt.engine import Settings
from tests.fye_rt.networks import graph_inputs

openvino = pytest.importorskip("openvino")

# bfloat16 keeps 8 bits: 1 to 4 % of the prediction after 90 attentions and 400 linear layers. Where attention with as
# many queries as heads is left as it is, the error is 30 %.
BF16 = 0.1
EIGHT_FRAMES = (8, 96, 96)  # frames, height and width: the motion modules have 8 heads
FOUR_POSITIONS = (3, 128, 128)  # 2x2 at the deepest level, where the tiny bundle's transformers have 4 heads


def run(bundle: Bundle, compute: str, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    from fye_rt.backends.openvino import open_engine

    engine = open_engine(bundle, "denoiser", Settings(compute=compute))
    assert engine.compute == compute
    return [engine.run(case) for case in cases]


def relative_rms(got: dict[str, Any], want: dict[str, Any]) -> float:
    return max(float(np.sqrt(np.mean((got[name] - want[name]) ** 2) / np.mean(want[name] ** 2))) for name in want)


@pytest.mark.slow
def test_bf16_stays_near_fp32_in_two_shapes_of_one_denoiser(bundle: Bundle) -> None:
    cases = [graph_inputs(bundle, "denoiser", *shape) for shape in (EIGHT_FRAMES, FOUR_POSITIONS)]
    exact = run(bundle, "fp32", *cases)
    assert exact[1]["v_conditional"].shape == (1, 4, 3, 16, 16)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute in bfloat16")
    for got, want in zip(run(bundle, "bf16", *cases), exact, strict=True):
        assert relative_rms(got, want) < BF16
