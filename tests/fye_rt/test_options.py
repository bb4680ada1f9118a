from typing import Any

import numpy as np
import pytest

from fye_rt import Options
from fye_rt.errors import FyeError, OptionError


def test_the_defaults_are_the_documented_ones() -> None:
    assert Options() == Options(
        steps=30,
        guidance=3.5,
        seed=0,
        forecast="off",
        solver="ddim",
        windows="context",
        window_size=24,
        window_overlap=4,
        compute="auto",
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("steps", 0, "1 to 1000"),
        ("steps", 2.0, "a whole number"),
        ("steps", "2", "a whole number"),
        ("guidance", -0.1, "0 to 100"),
        ("guidance", np.nan, "0 to 100"),
        ("guidance", "3.5", "0 to 100"),
        ("guidance", None, "0 to 100"),
        ("seed", 2**64, r"0 to 2\*\*64 - 1"),
        ("window_size", 33, "1 to 32"),
        ("window_overlap", 24, "0 to window_size - 1 = 23"),
        ("forecast", "magic", "off"),
        ("solver", "euler", "ddim, dpm, unipc"),
        ("windows", "doors", "context, reference, tiles"),
        ("compute", "int8", "auto, fp32, bf16, fp16"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(OptionError, match=f"^{name}=.* is not valid; allowed: {allowed}$") as caught:
        Options(**{name: value})
    assert isinstance(caught.value, FyeError)
