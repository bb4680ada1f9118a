"""A plan that says something else than ONNX Runtime in float32 is found out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_engines.checking import compare, exact_engine, random_inputs, refusal
from fye_rt.bundle import Bundle, symbols

EXACT = {"v": np.linspace(-1, 1, 1000, dtype=np.float32)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda v: v, ""),
        (lambda v: v.astype(np.float16).astype(np.float32), ""),
        (lambda v: v * np.float32(1.02), "relative RMS 2.0e-02"),
        (lambda v: v + np.float32(0.05), "cosine 0.996"),
        (lambda v: np.zeros_like(v), "cosine 0.00000"),
        (lambda v: np.where(np.arange(1000) == 7, np.float32("nan"), v), "not finite"),
        (lambda v: np.where(np.arange(1000) == 7, np.float32("inf"), v), "not finite"),
        (lambda v: v[:-1], "another shape"),
    ],
)
def test_a_plan_with_a_different_output_is_refused_with_the_difference(change: Any, why: str) -> None:
    found = refusal(compare({"v": change(EXACT["v"])}, EXACT))
    assert (why in found and found.startswith("v ")) if why else not found


def test_a_plan_with_an_all_zero_output_is_refused() -> None:
    assert "cannot be compared" in refusal(compare({"v": np.zeros(3)}, {"v": np.zeros(3)}))


def test_every_output_of_a_plan_is_compared() -> None:
    with pytest.raises(KeyError, match="w"):
        compare(EXACT, EXACT | {"w": EXACT["v"]})


@pytest.mark.slow
def test_the_inputs_and_exact_outputs_of_a_check_are_reproducible(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle, verify=False)
    one, other = (random_inputs(bundle, "denoiser", symbols(2, 64, 64)) for _ in range(2))
    assert list(one) == [spec.name for spec in bundle.graphs["denoiser"].inputs] and one["timestep"] == [999]
    outputs = exact_engine(bundle, "denoiser").run(one)
    assert not refusal(compare(exact_engine(bundle, "denoiser").run(other), outputs))
    assert set(outputs) == {"v_unconditional", "v_conditional"}
